"""Add a classical solver: write one step, and get tables for hosts, for training and as a baseline."""

import numpy as np
import torch

from s4s import sample
from s4s.s4s_nodes.core import classical, mixture, schedules
from s4s.s4s_nodes.core.classical.lowering import lowered, steps


@lowered(calls_per_step=2)
def midpoint(trace, sigmas, flow):
    """The midpoint method: a second call in the middle of the step, whose slope the whole step takes."""
    x = trace.start
    for sigma, after in steps(sigmas):
        slope = (x - trace.call(x, sigma)) / sigma
        middle = (sigma + after) / 2
        there = x + (middle - sigma) * slope
        x = x + (after - sigma) * (there - trace.call(there, middle)) / middle
    return x


classical.SOLVERS["midpoint"] = midpoint                  # in the package: one line in classical/__init__.py
noise = torch.randn(256, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 10
exact = sample(mixture, noise, classical.SOLVERS["dpmpp_3m"](np.geomspace(10, 0.1, 1000)))
for count in (20, 40, 80):                              # second order: half the step, a quarter of the error
    error = sample(mixture, noise, midpoint(np.geomspace(10, 0.1, count + 1))) - exact
    print(f"{2 * count} calls: RMSE {error.square().mean().sqrt():.2e}")
print("baseline table:", midpoint(schedules.karras(3, 0.03, 15)).calls, "calls")
