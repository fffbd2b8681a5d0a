"""Solvers written in half-logSNR lambda: DPM-Solver++ and UniPC, data prediction.

Variance exploding: lambda = -log sigma, alpha = 1. Rectified flow: lambda = log((1-s)/s), alpha = 1 - s.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..trace import Trace
from .lowering import check_order, lowered, steps

FLOW_TOP = 1 - 1e-4         # a flow's logSNR is infinite at s = 1; formulas in lambda stand this far below it


@lowered()
def dpmpp_2m(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, Alg. 2)."""
    x, old = trace.start, None
    for sigma, after, h, h_before in _log_steps(sigmas, flow):
        denoised = target = trace.call(x, sigma)
        if old is not None and after > 0:
            target = denoised + (denoised - old) * h / (2 * h_before)
        x, old = _towards(x, target, sigma, after), denoised
    return x


@lowered()
def dpmpp_3m(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """DPM-Solver++(3M) (Lu et al. 2022, appendix; k-diffusion's 3M SDE without noise).

    As in k-diffusion, diffusers and the hosts, `second` is half of Taylor's term, so the order is 2, not 3.
    """
    x, past, steps = trace.start, [], []
    for sigma, after, h, h_before in _log_steps(sigmas, flow):
        past = [trace.call(x, sigma), *past][:3]
        x = _towards(x, past[0], sigma, after)
        steps = [h_before, *steps][:2]
        if len(past) > 1 and after > 0:
            end = 1 - after if flow else 1.0                    # alpha at the end of the step
            phi_2 = torch.expm1(-h) / h + 1
            first = (past[0] - past[1]) / (steps[0] / h)
            if len(past) > 2:
                r0, r1 = steps[0] / h, steps[1] / h
                second = (first - (past[1] - past[2]) / r1) / (r0 + r1)
                first = first + second * r0
                x = x - end * (phi_2 / h - 0.5) * second
            x = x + end * phi_2 * first
    return x


@lowered()
def unipc(trace: Trace, sigmas: Tensor, flow: bool, order: int = 3, kind: str = "bh2") -> Tensor:
    """UniPC with its corrector, data prediction, orders 1-3, B(h) of kind "bh1" or "bh2" (Zhao et al. 2023, Alg. 1-2).

    The corrector uses the call at the predicted point, which is also the next step's first prediction: one
    call per step. The order falls in the last steps, so that the step to 0 is first-order.
    """
    return _unipc(trace, sigmas, flow, order, kind)


@lowered()
def unipc_sigma(trace: Trace, sigmas: Tensor, flow: bool, kind: str = "bh1") -> Tensor:
    """UniPC in -log sigma, as ComfyUI's uni_pc and uni_pc_bh2 run it on a flow; order 3, but below the steps.

    Theirs ends at 0.001 in place of 0.
    """
    return _unipc(trace, sigmas, False, max(1, min(3, len(sigmas) - 2)), kind)


def _unipc(trace: Trace, sigmas: Tensor, flow: bool, order: int, kind: str) -> Tensor:
    check_order(order, 3)
    if kind not in ("bh1", "bh2"):
        raise ValueError(f"UniPC kind {kind!r} is not known: use bh1 or bh2")
    levels = list(_log_steps(sigmas, flow))
    logs = _half_log_snr(sigmas, flow)
    shown, past, before, used = trace.start, [], None, 1
    for i, (sigma, *_) in enumerate(levels):
        newest = trace.call(shown, sigma)
        base = shown
        if before is not None:
            base = _unipc_step(before, past, i - 1, logs, sigmas, flow, kind, used, newest)
        past = [newest, *past][:order]
        used = min(order, i + 1, len(levels) - i)
        shown = _unipc_step(base, past, i, logs, sigmas, flow, kind, used)
        before = base
    return shown


def _unipc_step(x, past, i, logs, sigmas, flow, kind, order, newest=None):
    """One UniP step from level i, or with `newest` (the prediction at the end of the step) its UniC correction."""
    after, h = sigmas[i + 1], logs[i + 1] - logs[i]
    moved = _towards(x, past[0], sigmas[i], after)
    if order == 1 and newest is None:
        return moved
    ratios = [(logs[i - k] - logs[i]) / h for k in range(1, order)]
    differences = [(past[k] - past[0]) / ratios[k - 1] for k in range(1, order)]
    if newest is not None:
        ratios, differences = [*ratios, torch.ones_like(h)], [*differences, newest - past[0]]
    width = -h if kind == "bh1" else torch.expm1(-h)             # B(h)
    weights = _unipc_weights(ratios, -h, width)
    end = 1 - after if flow else 1.0
    return moved - end * width * sum(w * d for w, d in zip(weights, differences))


def _unipc_weights(ratios: list, hh: Tensor, width: Tensor) -> list:
    """Solve R a = b (Zhao et al. 2023, eq. 9). With one unknown the paper and its code take a = 1/2."""
    if len(ratios) == 1:
        return [0.5]
    rows, target, phi, factorial = [], [], torch.expm1(hh) / hh - 1, 1.0
    for k in range(1, len(ratios) + 1):
        rows.append(torch.stack(ratios) ** (k - 1))
        target.append(phi * factorial / width)
        factorial *= k + 1
        phi = phi / hh - 1 / factorial
    return list(torch.linalg.solve(torch.stack(rows), torch.stack(target)))


@lowered(calls_per_step=2)
def dpmpp_2s(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """DPM-Solver++(2S) (Lu et al. 2022, Alg. 1, r = 1/2); the step to 0 is first-order."""
    sizes = two_calls(sigmas)
    return single_step.run(trace, with_middles(sigmas, sizes, flow), flow, sizes)


@lowered()
def single_step(trace: Trace, sigmas: Tensor, flow: bool, sizes: tuple) -> Tensor:
    """DPM-Solver++ (1S, 2S, 3S) in steps of `sizes` calls (Lu et al. 2022, Alg. 1; its third order as in their code).

    sigmas (N+1,) also holds the levels inside the steps, anywhere between their ends.
    """
    x, logs, at = trace.start, _half_log_snr(sigmas, flow), 0
    for size in sizes:
        x = _one_step(trace, x, sigmas[at:at + size + 1], logs[at:at + size + 1], flow)
        at += size
    return x


def two_calls(sigmas: Tensor) -> tuple[int, ...]:
    """Sizes of steps of two calls each; the step to 0 has one."""
    return tuple(2 if after > 0 else 1 for after in sigmas[1:])


def with_middles(levels, sizes: tuple, flow: bool) -> Tensor:
    """Levels (steps+1,) with those inside steps of these sizes added, even in lambda."""
    sigmas = torch.as_tensor(levels, dtype=torch.float64)
    logs, inside = _half_log_snr(sigmas, flow), []
    for i, size in enumerate(sizes):
        shares = torch.arange(1, size, dtype=torch.float64) / size
        points = torch.lerp(logs[i], logs[i + 1], shares) if size > 1 else shares       # lambda is infinite at 0
        inside += [sigmas[i:i + 1], torch.sigmoid(-points) if flow else torch.exp(-points)]
    return torch.cat([*inside, sigmas[-1:]])


def _one_step(trace: Trace, x: Tensor, sigmas: Tensor, logs: Tensor, flow: bool) -> Tensor:
    sigma, end = sigmas[0], sigmas[-1]
    first = trace.call(x, sigma)
    if len(sigmas) == 2:
        return _towards(x, first, sigma, end)
    h = logs[-1] - logs[0]
    r1 = (logs[1] - logs[0]) / h
    change = trace.call(_towards(x, first, sigma, sigmas[1]), sigmas[1]) - first
    if len(sigmas) == 3:
        return _towards(x, first + change / (2 * r1), sigma, end)
    r2 = (logs[2] - logs[0]) / h
    there = _towards(x, first, sigma, sigmas[2]) + _slope_share(sigmas[2], r2 * h, flow) * r2 / r1 * change
    change = trace.call(there, sigmas[2]) - first
    return _towards(x, first, sigma, end) + _slope_share(end, h, flow) / r2 * change


def _slope_share(end: Tensor, h: Tensor, flow: bool) -> Tensor:
    """alpha phi_2(h) = alpha ((e^-h - 1) / h + 1): the weight of a prediction that changes by 1 over the step."""
    return (1 - end if flow else 1.0) * (torch.expm1(-h) / h + 1)


def _towards(x: Tensor, denoised: Tensor, sigma: Tensor, after: Tensor) -> Tensor:
    """The exponential-integrator step with a constant prediction; the same for flow: (after/sigma) x + (1 - ..) D."""
    kept = after / sigma
    return kept * x + (1 - kept) * denoised


def _half_log_snr(sigmas: Tensor, flow: bool) -> Tensor:
    """lambda of each level; a flow's s = 1 is moved to where lambda is finite, level 0 has lambda = inf.

    Level 0 is left out of the logarithm: inside it, the gradient would be 0 * inf.
    """
    inside = torch.where(sigmas > 0, sigmas, torch.ones_like(sigmas) / 2)
    if flow:
        inside = inside.clamp(max=((1 + sigmas[1]) / 2).clamp(min=FLOW_TOP))   # below 1, above sigmas[1]
    logs = (torch.log1p(-inside) if flow else 0) - torch.log(inside)
    return torch.where(sigmas > 0, logs, torch.inf)


def _log_steps(sigmas: Tensor, flow: bool):
    """(sigma, next sigma, h, h of the step before) per step; h is the step in lambda."""
    logs = _half_log_snr(sigmas, flow)
    h = [None, *(logs[1:] - logs[:-1])]
    return [(sigma, after, h[i + 1], h[i]) for i, (sigma, after) in enumerate(steps(sigmas))]
