"""What S4S costs: the loop beside others' samplers, and the start; in real hosts, where they are."""

from dataclasses import dataclass, field

from tests.bench.proof.hosts import A1111, COMFYUI, FORGE, Host, NotHere
from tests.bench.proof.loop_cost import Cell, cells, of_k_diffusion
from tests.bench.proof.start_cost import Start, of_command
from tests.k_diffusion_real import load


@dataclass
class Costs:
    """cells: the loop's. of: whose samplers stand beside it. starts: where -> Start. missing: what is not here, why."""

    cells: list[Cell] = field(default_factory=list)
    of: str = "ComfyUI"
    starts: dict[str, Start] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


HOSTS = {"ComfyUI": Host(COMFYUI, "comfyui/costs.py", "COMFYUI_PATH"),
         "Forge": Host(FORGE, "webui/costs.py", "S4S_WEBUI_HOST"),
         "A1111": Host(A1111, "webui/costs.py", "S4S_WEBUI_HOST")}


def costs(seconds: float) -> Costs:
    """Everything, the loop in about so many seconds: in ComfyUI, or where there is none beside k-diffusion's."""
    made = Costs()
    try:
        _, *found = HOSTS["ComfyUI"].answers("--seconds", str(seconds))
        made.cells = [Cell(**{**one, "shape": tuple(one["shape"])}) for one in found]
    except NotHere as reason:
        made.missing.append(f"the samplers of ComfyUI: {reason}")
        made.of, made.cells = "k-diffusion", list(cells(of_k_diffusion(load("sampling")), seconds))
    for name, host in HOSTS.items():
        try:
            made.starts[name] = Start(**next(iter(host.answers())))
        except NotHere as reason:
            made.missing.append(f"the start of {name}: {reason}")
    for command in ("--help", "list"):
        made.starts[f"`s4s {command}`"] = Start(**of_command(command))
    return made
