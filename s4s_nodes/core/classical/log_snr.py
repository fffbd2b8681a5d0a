"""Solvers written in half-logSNR lambda: DPM-Solver++ and UniPC, data prediction.

Variance exploding: lambda = -log sigma, alpha = 1. Rectified flow: lambda = log((1-s)/s), alpha = 1 - s.
"""

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
            share = _slope_share(after, h, flow)
            first = (past[0] - past[1]) / (steps[0] / h)
            if len(past) > 2:
                r0, r1 = steps[0] / h, steps[1] / h
                second = (first - (past[1] - past[2]) / r1) / (r0 + r1)
                first = first + second * r0
                x = x - (share / h - (1 - after if flow else 1.0) / 2) * second
            x = x + share * first
    return x


@lowered()
def unipc(trace: Trace, sigmas: Tensor, flow: bool, order: int = 3, kind: str = "bh2") -> Tensor:
    """UniPC with its corrector, data prediction, orders 1-3, B(h) of kind "bh1" or "bh2" (Zhao et al. 2023, Alg. 1-2).

    The corrector uses the call at the predicted point, which is also the next step's first prediction: one
    call per step. The order falls in the last steps, so that the step to 0 is first-order.
    """
    check_order(order, 3)
    if kind not in ("bh1", "bh2"):
        raise ValueError(f"UniPC kind {kind!r} is not known: use bh1 or bh2")
    logs, calls = _half_log_snr(sigmas, flow), len(sigmas) - 1

    def step(x, past, i, used, newest=None):
        """UniP from level i, of order `used`; with `newest`, the prediction at the step's end, its UniC correction."""
        after, h = sigmas[i + 1], logs[i + 1] - logs[i]
        moved = _towards(x, past[0], sigmas[i], after)
        if used == 1 and newest is None:
            return moved
        ratios = [(logs[i - k] - logs[i]) / h for k in range(1, used)]
        differences = [(past[k] - past[0]) / ratios[k - 1] for k in range(1, used)]
        if newest is not None:
            ratios, differences = [*ratios, torch.ones_like(h)], [*differences, newest - past[0]]
        width = -h if kind == "bh1" else torch.expm1(-h)             # B(h)
        weights = _unipc_weights(ratios, -h, width)
        end = 1 - after if flow else 1.0
        return moved - end * width * sum(w * d for w, d in zip(weights, differences))
    x = predicted = trace.start
    past, used = [], 1
    for i, (sigma, _) in enumerate(steps(sigmas)):
        newest = trace.call(predicted, sigma)
        if i > 0:
            x = step(x, past, i - 1, used, newest)
        past = [newest, *past][:order]
        used = min(order, i + 1, calls - i)
        predicted = step(x, past, i, used)
    return predicted


@lowered()
def unipc_sigma(trace: Trace, sigmas: Tensor, flow: bool, kind: str = "bh1") -> Tensor:
    """UniPC in -log sigma, as ComfyUI's uni_pc and uni_pc_bh2 run it on a flow; order 3, but below the steps.

    Theirs ends at 0.001 in place of 0.
    """
    return unipc.run(trace, sigmas, False, max(1, min(3, len(sigmas) - 2)), kind)


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
    levels = with_middles(sigmas, flow)
    x, logs, at = trace.start, _half_log_snr(levels, flow), 0
    for sigma, after in steps(sigmas):
        denoised = trace.call(x, sigma)
        if after > 0:
            middle, ratio = levels[at + 1], (logs[at + 1] - logs[at]) / (logs[at + 2] - logs[at])
            change = trace.call(_towards(x, denoised, sigma, middle), middle) - denoised
            denoised = denoised + change / (2 * ratio)
        x, at = _towards(x, denoised, sigma, after), at + 2
    return x


def with_middles(sigmas: Tensor, flow: bool) -> Tensor:
    """The levels (N+1,) with one more inside every step but that to 0, even in lambda."""
    logs, levels = _half_log_snr(sigmas, flow), []
    for i, after in enumerate(sigmas[1:]):
        middle = torch.lerp(logs[i:i + 1], logs[i + 1:i + 2], 0.5)
        levels += [sigmas[i:i + 1], *([torch.sigmoid(-middle) if flow else torch.exp(-middle)] if after > 0 else [])]
    return torch.cat([*levels, sigmas[-1:]])


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
