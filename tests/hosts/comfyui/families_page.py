"""Writes docs/reference/families.md: what the newest ComfyUI says of each family, and what S4S runs there.

COMFYUI_PATH=FOLDER PYTHON_OF_THE_HOST tests/hosts/comfyui/families_page.py, from anywhere.
"""

import sys
import tempfile
from pathlib import Path

import s4s_host
import tiny_families

PAGE = s4s_host.ROOT / "docs" / "reference" / "families.md"
HEAD = """# Model families

This page lists what ComfyUI {version} reports about each family, and what sampler and scheduler `s4s` run there at 8
steps if the model has no preset. `tests/hosts/comfyui/families_page.py` makes it from tiny random networks of the
host's own classes: a family's sampling does not depend on the network's size. The official settings are those of
ComfyUI's workflow templates (`s4s_nodes/select/families.py`). The shift is always the model's, after
any ModelSampling node.

| Model | Prediction | Shift | Clock | Levels | Without a preset | Checked how | Measured on |
|---|---|---|---|---|---|---|---|
"""
TAIL = """
* **Shift.** Mu is the logarithm of the shift. The templates of HiDream, Qwen-Image, Chroma and Wan set other shifts
  with a node, which S4S follows.
* **Clock.** What the network is told: the level times 1 or 1000, the number of the level in the model's table, or
  another function of it.
* **General.** The classical solver that is best on small models (flows or others), if the family has no official
  setting without noise.
* HunyuanImage has no official template. It runs HunyuanVideo's.
* A text to video network of Wan's 14B width runs Euler on simple, as the template of Wan 2.2's two experts does. Wan
  2.1's network of that width looks the same.
* LTX 2's templates have `euler_ancestral`, which is stochastic. S4S runs Euler on the same levels.
* ComfyUI {version} has no separate configuration for Qwen-Image 2.1, so that one is unchecked.
* In a WebUI the same table decides.

**Checked how**: *sampled* means that a tiny random network of this family went through the real KSampler for 3 steps
with sampler and scheduler `s4s`; *equal to the host's* means that the result is that of the host's own sampler of that
setting, on the same levels (`tests/hosts/comfyui/test_families.py`). *Read* means that only its configuration was read.

**Measured on**: no checkpoint of any family was measured. *Small models* are those of [the results](../measured.md) and
[the limits](../limits.md): flows, zero terminal SNR, or Stable Diffusion's levels as here, but of another size and on
other data. They only show what to expect. Race a preset on your checkpoint.

No table can be learned for models whose latent holds several things, such as video and sound, or for models that turn
one image into another, such as FlowRVS. They fall back, and the log says so. HiDream O1's noise is eight times as
strong as that of the others, also in a training.

## Not sampled here

These are the other models that ComfyUI {version} knows, by the name of their configuration. We read only that.

| Model | Prediction | Shift | Clock | Levels | Without a preset | Checked how | Measured on |
|---|---|---|---|---|---|---|---|
"""
UNREAD = """
Not read, because the host needs the weights for it: {names}.
"""


def row(title: str, model, sampled: bool) -> str:
    """One line of the page; sampled: by test_families.py."""
    import comfy.model_sampling
    facts = s4s_host.pack("s4s_nodes.hosts.comfyui.facts")
    seen, sampling = facts.of_model(model), model.get_model_object("model_sampling")
    mu = isinstance(sampling, comfy.model_sampling.ModelSamplingFlux)
    shift = "" if seen.shift is None else f"{seen.shift:.3g}" + (f" (mu {sampling.shift:g})" if mu else "")
    clock = "level x 1" if mu else f"level x {sampling.multiplier:g}" if seen.flow else "number" if \
        type(sampling).__bases__[0] is comfy.model_sampling.ModelSamplingDiscrete else "function of the level"
    prediction = seen.prediction + (", zero terminal SNR" if seen.zero_terminal_snr else "")
    runs = plain(seen)
    equal = sampled and runs.endswith(("official", "as none suits"))
    checked = ("sampled" + ", equal to the host's" * equal) if sampled else "read"
    small = seen.prediction != "x0" and (seen.flow or seen.zero_terminal_snr or seen.sigma_max < 20)
    measured = "nothing: no table is for it" if seen.unfit else "small models" if small else "nothing"
    return " | ".join([title, prediction, shift, clock, f"{seen.sigma_min:.3g} to {seen.sigma_max:.4g}", runs,
                       checked, measured])


def plain(seen) -> str:
    """What runs without a preset of the model's own, at 8 steps; `match.FAMILY_CALLS` has the cfg."""
    selection, families = s4s_host.pack("s4s_nodes.select.selection"), s4s_host.pack("s4s_nodes.select.families")
    shipped = s4s_host.pack("s4s_nodes.library").Library([]).named().values()

    published = selection.select(selection.Request(seen, shipped, steps=8, cfg=7.0)).preset
    found = selection.select(selection.Request(seen, shipped, steps=8))
    before = "" if published is None else f"from cfg 5 on {published.name}, published for the family; else "
    named = families.official(seen.family)[1] if seen.flow else ""
    levels = named or ("even, shifted" if seen.flow else "simple" if seen.zero_terminal_snr else "Karras, rho 5")
    solver = found.classical.split(" on ")[0]
    whose = "official" if named else "as none suits" if seen.unfit else "general"
    return f"{before}{solver}; {levels}, {whose}"


def page() -> str:
    """The whole page."""
    from comfyui_version import __version__
    rows = "".join(f"| {row(tiny.title, tiny_families.build(name), True)} |\n" for name, tiny in
                   tiny_families.FAMILIES.items())
    others = tiny_families.build_others()
    rest = "".join(f"| {row(name, model, False)} |\n" for name, model in others.items() if model is not None)
    names = ", ".join(name for name, model in others.items() if model is None)
    return HEAD.format(version=__version__) + rows + TAIL.format(version=__version__) + rest + UNREAD.format(
        names=names)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    s4s_host.start(s4s_host.make_base(Path(tempfile.mkdtemp(prefix="s4s-host-"))))
    PAGE.write_text(page(), encoding="utf-8")
