"""Exponential integrators of the data prediction, by the Runge-Kutta or the Adams-Bashforth rule.

Those of the RES family stand in -log sigma, for a flow, too, as the hosts run them; the others in half-logSNR.
Every step to 0 is first-order. ComfyUI's `seeds_2` without noise is `dpmpp_2s`.
"""

import torch
from torch import Tensor

from ..levels import gauss, lagrange
from ..trace import Trace
from .log_snr import _half_log_snr, _slope_share, _towards, dpmpp_2m
from .lowering import Solver, lowered, steps

LONGEST = 1.0               # a step of RES4LYF's multistep solvers that is longer in log sigma is a Runge-Kutta step
SMALL = 0.1                 # the sigma below which it is Euler's
POINTS = 200                # points of the sums that stand for integrals in ComfyUI's er_sde


@lowered()
def res_multistep(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """RES, two steps (Zhang et al. 2023, refined exponential solver), as in ComfyUI.

    It is Adams-Bashforth; in half-logSNR, where it differs for a flow only, DPM-Solver++ (2M) of type "heun".
    """
    x, past, logs = trace.start, [], _half_log_snr(sigmas, False)
    for i, (sigma, after) in enumerate(steps(sigmas)):
        past = [trace.call(x, sigma), *past][:2]
        x = _multistep(x, sigmas, logs, i, past if after > 0 else past[:1])
    return x


@lowered()
def dpmpp_2m_sigma(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """DPM-Solver++(2M) in -log sigma, as k-diffusion and the hosts run it on a flow; else it is `dpmpp_2m`."""
    return dpmpp_2m.run(trace, sigmas, flow=False)


@lowered()
def sa_solver(trace: Trace, sigmas: Tensor, flow: bool, predictor: int = 3, corrector: int = 4) -> Tensor:
    """SA-Solver without noise (Xue et al. 2023, eqs. 15 and 18): Adams' predictor and corrector in half-logSNR.

    One call a step. Towards 0 both lower their order, and the step to 0 has no corrector.
    """
    logs, calls = _half_log_snr(sigmas, flow), len(sigmas) - 1
    x = shown = trace.start
    past: list = []
    for i, (sigma, after) in enumerate(steps(sigmas)):
        past = [trace.call(shown, sigma), *past][:max(predictor, corrector)]
        if after == 0:
            return past[0]
        left = calls - i + (sigmas[-1] > 0) * calls
        if i > 0:
            order = min(corrector, len(past), left)
            x = _adams(x, past[:order], logs[[i - k for k in range(order)]], logs, sigmas, i - 1, flow)
        order = min(predictor, len(past), left - 1)
        shown = _adams(x, past[:order], logs[[i - k for k in range(order)]], logs, sigmas, i, flow)
    return shown


@lowered()
def er_sde(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """ER-SDE-Solver-3 (Cui et al. 2023) as an ODE: predictions quadratic in sigma / alpha, integrals as sums of 200."""
    top = torch.where(sigmas > 0, torch.exp(-_half_log_snr(sigmas, flow)), torch.zeros_like(sigmas))
    x, past, slopes = trace.start, [], []
    for i, (sigma, after) in enumerate(steps(sigmas)):
        past = [trace.call(x, sigma), *past][:2]
        x = _towards(x, past[0], sigma, after)
        if after == 0 or i == 0:
            continue
        step, alpha = top[i + 1] - top[i], after / top[i + 1]
        at = top[i + 1] - torch.arange(POINTS, dtype=torch.float64) * step / POINTS
        slopes = [(past[0] - past[1]) / (top[i] - top[i - 1]), *slopes][:2]
        x = x + alpha * (step - top[i + 1] * (step / POINTS / at).sum()) * slopes[0]
        if len(slopes) > 1:
            bend = (slopes[0] - slopes[1]) / ((top[i] - top[i - 2]) / 2)
            x = x + alpha * (step ** 2 / 2 - top[i + 1] * ((at - top[i]) * step / POINTS / at).sum()) * bend
    return x


@lowered(calls_per_step=2)
def exp_heun(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """Heun's exponential rule in half-logSNR (ComfyUI's exp_heun_2_x0): the second call at the end of the step."""
    x, logs = trace.start, _half_log_snr(sigmas, flow)
    for i, (sigma, after) in enumerate(steps(sigmas)):
        first = trace.call(x, sigma)
        x = _towards(x, first, sigma, after)
        if after > 0:
            x = x + _slope_share(after, logs[i + 1] - logs[i], flow) * (trace.call(x, after) - first)
    return x


def _res(trace: Trace, sigmas: Tensor, flow: bool, stages: int, multistep: bool) -> Tensor:
    """RES with two or three stages in -log sigma (Zhang et al. 2023; RES4LYF): res_2s, the second in the middle of the
    step, and res_3s, the third at its end. multistep: res_2m and res_3m without noise, which begin with as many such
    steps, return to them where a step is long, and else weigh the last predictions.

    RES4LYF puts the model's lowest level before 0 where the schedule does not end there: give levels that have it.
    """
    logs, x, past = _half_log_snr(sigmas, False), trace.start, []
    for i, (sigma, after) in enumerate(steps(sigmas)):
        first = trace.call(x, sigma)
        past = [first, *past][:stages]
        length = logs[i + 1] - logs[i]
        if after == 0 or (multistep and length >= LONGEST and sigma < SMALL):
            x = _towards(x, first, sigma, after)
        elif multistep and i >= stages and length < LONGEST:
            x = _multistep(x, sigmas, logs, i, past)
        else:
            x = _one_step(trace, x, first, sigma, after, length, stages)
    return x


RES = {f"res_{stages}{kind}": Solver(_res, calls_per_step=stages, stages=stages, multistep=kind == "m")
       for kind in "sm" for stages in (2, 3)}


def _one_step(trace: Trace, x: Tensor, first: Tensor, sigma: Tensor, after: Tensor, h: Tensor, stages: int) -> Tensor:
    middle = torch.sqrt(sigma * after)
    second = trace.call(_towards(x, first, sigma, middle), middle)
    if stages == 2:
        return _towards(x, first, sigma, after) + 2 * _share(h) * (second - first)
    gamma = _gamma(0.5, 1.0)
    there = _towards(x, first, sigma, after) + (gamma * _share(h / 2) + 2 * _share(h)) * (second - first)
    third = trace.call(there, after)
    return _towards(x, first, sigma, after) + _share(h) / (gamma / 2 + 1) * (
        gamma * (second - first) + (third - first))


def _multistep(x: Tensor, sigmas: Tensor, logs: Tensor, i: int, past: list) -> Tensor:
    """The step from level i with the newest one, two or three predictions, weighted as stages at their levels."""
    moved = _towards(x, past[0], sigmas[i], sigmas[i + 1])
    if len(past) == 1:
        return moved
    h = logs[i + 1] - logs[i]
    at = [(logs[i - k] - logs[i]) / h for k in range(1, len(past))]
    if len(past) == 2:
        return moved + _share(h) / at[0] * (past[1] - past[0])
    gamma = _gamma(*at)
    return moved + _share(h) / (gamma * at[0] + at[1]) * (gamma * (past[1] - past[0]) + (past[2] - past[0]))


def _gamma(second, third):
    """The weight of the second stage by that of the third (Zhang et al. 2023, three stages)."""
    return (3 * third ** 3 - 2 * third) / (second * (2 - 3 * second))


def _share(h: Tensor) -> Tensor:
    """h phi_2(-h): the weight in -log sigma of a prediction that changes by 1 over the step."""
    return _slope_share(h, h, False)


def _adams(x, past: list, nodes: Tensor, logs: Tensor, sigmas: Tensor, i: int, flow: bool) -> Tensor:
    """x at level i + 1 from x at level i: alpha int e^(lambda - end) D(lambda), D through the predictions at nodes."""
    start, end = logs[i], logs[i + 1]
    points, weights = map(torch.from_numpy, gauss(24))
    at = torch.lerp(start, end, points)
    weights = weights * (end - start) * torch.exp(at - end) * ((1 - sigmas[i + 1]) if flow else 1.0)
    moved = _towards(x, past[0], sigmas[i], sigmas[i + 1])
    return moved + sum((weights * lagrange(list(nodes), j, at)).sum() * (past[j] - past[0])
                       for j in range(1, len(past)))
