"""Peak memory of plain sampling and of both ways to learn, by the number of calls.

    python -m tests.bench.memory [--model digits-eps] [--images 64] [--calls 2,4,6,10] [--ways gradient]

Each cell is a process of its own: the highest resident memory the system saw (VmHWM), beyond that of the loaded model
and beside it; and the bytes of PyTorch's tensors alone, which do not depend on the allocator. Goals: gradient mode at
most 1.05 times as much at 10 calls as at 2; forward-only mode at most 1.1 times plain sampling.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import torch

WAYS = ("plain sampling", "forward", "gradient")
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536",
             "OMP_NUM_THREADS": "1"}                    # freed blocks go back to the system at once


def high_water() -> int:
    """Most resident memory this process has had, in bytes."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def cell(model: str, way: str, calls: int, images: int, metered: bool) -> dict:
    """Bytes of one way at these calls: {"before": ..., "peak": ...}, or {"tensors": ...}."""
    from s4s.training.demo_models.source import bundled
    from s4s.training.memory import Meter
    source = bundled(model, 3.0)
    work = prepared(source, way, calls, images)
    with torch.no_grad():
        source.denoiser(source.noise([0]), torch.ones(1), **source.conditions([0]))      # code and buffers are loaded
    if metered:
        with Meter() as meter:
            work()
        return {"tensors": meter.highest}
    before = high_water()
    work()
    return {"before": before, "peak": high_water()}


def prepared(source, way: str, calls: int, images: int):
    """What to run: sampling `images` images, or one iteration of learning from as many pairs."""
    from s4s.training.baselines.schedules import schedules_for
    from s4s.training.config import Config
    from s4s.training.optimizers.gauss_newton import learn_forward
    from s4s.training.optimizers.gradient import learn
    from s4s.training.optimizers.state import new_state
    from s4s.training.parametrization.parameters import Parameters
    from s4s.training.teacher.pairs import known_pairs, run
    levels = schedules_for(source)["sgm_uniform"](calls)
    parameters = Parameters(levels, flow=source.flow, highest=source.sigma_max)
    seeds = range(images)
    pairs = known_pairs(source, seeds, torch.zeros_like(source.noise(seeds)))
    if way == "plain sampling":
        table = parameters.frozen(parameters.initial())
        return lambda: run(source, table, pairs.noise, pairs.extra)
    config = Config.of(calls=(calls,), mode=way, iterations=1, batch=images, pairs=images, validation=8, budget=0,
                       every=1)
    learner, state = learn if way == "gradient" else learn_forward, new_state(way, parameters)
    return lambda: learner(source, parameters, pairs, pairs.part(slice(0, 8)), config, state)


def measured(model: str, way: str, calls: int, images: int) -> dict:
    """A cell's bytes, from two processes of its own."""
    found = {}
    for metered in (False, True):
        order = json.dumps([model, way, calls, images, metered])
        done = subprocess.run([sys.executable, "-m", "tests.bench.memory", "--cell", order], capture_output=True,
                              text=True, check=True, env={**os.environ, **ALLOCATOR})
        found |= json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits-eps,digits-flow")
    parser.add_argument("--images", type=int, default=64, help="in one network call")
    parser.add_argument("--calls", default="2,4,6,10")
    parser.add_argument("--ways", default=";".join(WAYS), help="of: %(default)s")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.cell:
        print(json.dumps(cell(*json.loads(chosen.cell))))
        return
    counts = [int(calls) for calls in chosen.calls.split(",")]
    for model in chosen.model.split(","):
        table(model, counts, chosen.images, chosen.ways.split(";"))


def table(model: str, counts: list[int], images: int, ways: list[str]) -> None:
    """Print one model's table and its two ratios beside their goals."""
    print(f"\n{model}, {images} images a call, torch {torch.__version__}, CPU; MB: whole process, beyond the loaded "
          f"model, tensors\n\n| | {' | '.join(f'{calls} calls' for calls in counts)} |\n|{'---|' * (len(counts) + 1)}")
    found = {}
    for way in ways:
        found[way] = [measured(model, way, calls, images) for calls in counts]
        cells = [f"{each['peak'] / 2**20:.0f}, {(each['peak'] - each['before']) / 2**20:.0f}, "
                 f"{each['tensors'] / 2**20:.0f}" for each in found[way]]
        print(f"| {way} | {' | '.join(cells)} |", flush=True)
    print()
    for what, size in (("whole process", lambda each: each["peak"]), ("tensors", lambda each: each["tensors"])):
        for way in found:
            sizes = [size(each) for each in found[way]]
            if way == "gradient":
                print(f"{what}, gradient: {counts[-1]} calls over {counts[0]}: {sizes[-1] / sizes[0]:.3f} (goal: 1.05)")
            elif "plain sampling" in found and way != "plain sampling":
                most = max(mine / size(plain) for mine, plain in zip(sizes, found["plain sampling"]))
                print(f"{what}, {way}: at most {most:.3f} times plain sampling (goal: 1.1)")


if __name__ == "__main__":
    main()
