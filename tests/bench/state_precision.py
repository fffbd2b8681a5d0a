"""Does a float32 state help a network in half precision? The error each choice adds, and the loop's time.

    python -m tests.bench.state_precision

The bundled digits models at cfg 3, 64 seeds. Errors are RMSE to the same table with network and state in float32. Time
is the processor's for a call of the loop with a network that costs nothing, 8x4x128x128, the median of 15 rounds.
"""

import time

import torch

from s4s.s4s_nodes.core import classical, preset_file, sample, schedules
from s4s.s4s_nodes.library import shipped_folder
from s4s.training.demo_models.models import load
from s4s.training.source import guided

SEEDS, CFG, SHAPE, ROUNDS = 64, 3.0, (8, 4, 128, 128), 15


def ends(network, table, x, label, narrow=None):
    """The last states; narrow: the type that the denoiser is shown and answers in, where it is not the state's."""
    denoise = guided(network.denoise, CFG, network.null)

    def asked(x, sigma, label):
        return denoise(x if narrow is None else x.to(narrow), sigma, label)
    return sample(asked, x, table, {"label": label}).float()


def errors(name: str, half: torch.dtype, table) -> list[float]:
    """Of a state in half precision; of one in float32 with a denoiser in half; of a network in half alone."""
    exact, rounded = load(name), load(name, dtype=half)
    chance = torch.Generator().manual_seed(0)
    x = float(table.sigmas[0]) * torch.randn(SEEDS, *exact.shape, generator=chance)
    label = torch.arange(SEEDS) % exact.classes
    wanted = ends(exact, table, x, label)
    made = [ends(rounded, table, x.to(half), label), ends(rounded, table, x, label, half),
            ends(rounded, table, x, label)]
    return [float((each - wanted).square().mean().sqrt()) for each in made]


def seconds(state: torch.dtype, answers: torch.dtype, table) -> float:
    """A call of the loop."""
    x, answer, taken = torch.randn(SHAPE).to(state), torch.randn(SHAPE).to(answers), []
    for _ in range(ROUNDS):
        began = time.process_time()
        sample(lambda x, sigma: answer, x, table)
        taken.append(time.process_time() - began)
    return sorted(taken)[ROUNDS // 2] / table.calls


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    for name, levels in (("digits-eps", schedules.karras(20, 0.03, 14.6)), ("digits-flow", schedules.linear_flow(20))):
        preset = preset_file.load(shipped_folder() / f"{name}-cfg3.safetensors")
        flow = preset.model.flow
        tables = {"S4S, 6 calls": preset.table(6), "DPM++ 2M, 20 calls": classical.dpmpp_2m(levels, flow=flow)}
        for words, table in tables.items():
            for half in (torch.bfloat16, torch.float16):
                print(name, words, half, "  ".join(f"{error:.5f}" for error in errors(name, half, table)), flush=True)
    table = classical.dpmpp_2m(schedules.karras(8, 0.03, 14.6))
    for half in (torch.bfloat16, torch.float16):
        print(half, "us a call:", *(f"{1e6 * seconds(state, half, table):.0f}" for state in (half, torch.float32)))


if __name__ == "__main__":
    main()
