"""The classical solvers as tables: sigmas -> Solver.

Each is its textbook algorithm, written once and run on symbols (trace.py), so the same lines give the float64
table of a host and, through `.table`, coefficients that are differentiable in the sigmas for the trainer.

Notation: d = (x - D) / sigma is the slope dx/dsigma; for a rectified flow, x = (1-s) x0 + s noise, the same
expression is the velocity, so every solver written in d serves both. Where half-logSNR lambda enters (DPM-Solver++,
UniPC) flow=True selects lambda = log((1-s)/s) in place of -log sigma.
"""

from __future__ import annotations

import functools
from typing import Callable

import numpy as np
import torch
from torch import Tensor

from .solver import MAX_CALLS, Solver
from .trace import Table, Trace

FLOW_TOP = 1 - 1e-4         # a flow's logSNR is infinite at s = 1; formulas in lambda stand this far below it

SOLVERS: dict[str, Callable] = {}        # name -> function(sigmas, flow=False) -> Solver


def _solver(calls_per_step: int = 1):
    """Turn run(trace, sigmas, flow, **options) -> last state into sigmas -> Solver, with `.table` beside it."""
    def wrap(run):
        @functools.wraps(run)
        def table(sigmas, flow: bool = False, **options) -> Table:
            levels = torch.as_tensor(sigmas, dtype=torch.float64)
            _check(levels, flow)
            trace = Trace(levels, calls_per_step * (len(levels) - 1))
            return trace.finish(run(trace, levels, flow, **options))

        @functools.wraps(run)
        def solver(sigmas, flow: bool = False, **options) -> Solver:
            return table(sigmas, flow, **options).solver()
        solver.table, solver.calls_per_step = table, calls_per_step
        return solver
    return wrap


def _check(levels: Tensor, flow: bool) -> None:
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"sigmas has shape {tuple(levels.shape)}: a solver needs at least two levels, the start "
                         "and the end")
    if len(levels) > MAX_CALLS + 1:
        raise ValueError(f"{len(levels) - 1} steps asked for: a table holds at most {MAX_CALLS}")
    if not bool(torch.isfinite(levels).all()):
        raise ValueError("sigmas hold NaN or infinity")
    if bool((levels[1:] >= levels[:-1]).any()) or bool(levels[-1] < 0):
        raise ValueError(f"sigmas must fall strictly to an end of at least 0, got {levels.tolist()[:6]}")
    if flow and bool(levels[0] > 1):
        raise ValueError(f"sigmas start at {float(levels[0]):g}, but a flow's levels run from 1 to 0: leave "
                         "flow=False for other models")


# --- one call per step ------------------------------------------------------------------------------------------

@_solver()
def euler(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """Euler's method (Karras et al. 2022, Alg. 2 without churn); DDIM and DPM-Solver++ 1S are the same."""
    x = trace.start
    for sigma, after in _steps(sigmas):
        x = x + (after - sigma) * (x - trace.call(x, sigma)) / sigma
    return x


@_solver()
def lms(trace: Trace, sigmas: Tensor, flow: bool, order: int = 4) -> Tensor:
    """Variable-step Adams-Bashforth in sigma, orders 1-4 (k-diffusion's LMS; DEIS calls it rho-AB)."""
    return _adams_bashforth(trace, sigmas, order, clock=lambda sigma: sigma, euler_at_end=False)


@_solver()
def deis(trace: Trace, sigmas: Tensor, flow: bool, order: int = 3, kind: str = "tab") -> Tensor:
    """DEIS (Zhang and Chen 2023, eq. 15), orders 1-4: Adams-Bashforth on slopes polynomial in a clock.

    kind "tab": the clock of the VP process for sigma in [0.002, 80], as the hosts have it; "logrho": log sigma,
    as diffusers has it where states are x0 + sigma noise. The last step to 0 is Euler.
    """
    clocks = {"tab": _vp_time, "logrho": torch.log}
    if kind not in clocks:
        raise ValueError(f"DEIS kind {kind!r} is not known: use one of {', '.join(clocks)}")
    return _adams_bashforth(trace, sigmas, order, clocks[kind], euler_at_end=True)


@_solver()
def ipndm(trace: Trace, sigmas: Tensor, flow: bool, order: int = 4) -> Tensor:
    """iPNDM (Zhang and Chen 2023; Liu et al. 2022): equal-step Adams-Bashforth weights on any steps, orders 1-4."""
    _check_order(order, 4)
    x, slopes = trace.start, []
    for sigma, after in _steps(sigmas):
        denoised = trace.call(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes][:order]
        if after == 0:
            return denoised
        x = x + (after - sigma) * sum(w * d for w, d in zip(_EQUAL_STEPS[len(slopes)], slopes))
    return x


_EQUAL_STEPS = {1: (1.,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def _adams_bashforth(trace: Trace, sigmas: Tensor, order: int, clock, euler_at_end: bool) -> Tensor:
    """x' = x + sum_j d_j int l_j(clock(s)) ds over the step, l_j the Lagrange basis on the clock of past levels."""
    _check_order(order, 4)
    x, slopes, past = trace.start, [], []
    for sigma, after in _steps(sigmas):
        slopes = [(x - trace.call(x, sigma)) / sigma, *slopes][:order]
        past = [sigma, *past][:order]
        used = past[:1] if euler_at_end and after == 0 else past
        weights = _lagrange_integrals([clock(s) for s in used], clock, sigma, after)
        x = x + sum(w * d for w, d in zip(weights, slopes))
    return x


def _lagrange_integrals(nodes: list, clock, start: Tensor, end: Tensor) -> list:
    """int_start^end l_j(clock(s)) ds for each node j, by Gauss-Legendre points (exact for polynomials)."""
    points, weights = _gauss(2 if clock(start) is start else 24)
    width = end - start
    if len(nodes) == 1:
        return [width]
    inside = clock(start + width * points)
    return [width * (weights * _lagrange(nodes, j, inside)).sum() for j in range(len(nodes))]


def _lagrange(nodes: list, j: int, at: Tensor) -> Tensor:
    value = torch.ones_like(at)
    for k, node in enumerate(nodes):
        if k != j:
            value = value * (at - node) / (nodes[j] - node)
    return value


@functools.cache
def _gauss(count: int) -> tuple[Tensor, Tensor]:
    """Points and weights on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)


def _vp_time(sigma: Tensor, epsilon: float = 1e-3, low: float = 0.002, high: float = 80.0) -> Tensor:
    """The clock t of the VP process that has sigma(epsilon) = low and sigma(1) = high (EDM, Karras et al. 2022)."""
    at_low, at_high = np.log1p(low ** 2), np.log1p(high ** 2)
    beta_d = 2 * (at_low / epsilon - at_high) / (epsilon - 1)
    beta_min = at_high - beta_d / 2
    return (torch.sqrt(beta_min ** 2 + 2 * beta_d * torch.log1p(sigma ** 2)) - beta_min) / beta_d


# --- half-logSNR: DPM-Solver++ and UniPC ------------------------------------------------------------------------

@_solver()
def dpmpp_2m(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, Alg. 2)."""
    x, old = trace.start, None
    for sigma, after, h, h_before in _log_steps(sigmas, flow):
        denoised = target = trace.call(x, sigma)
        if old is not None and after > 0:
            target = denoised + (denoised - old) * h / (2 * h_before)
        x, old = _towards(x, target, sigma, after), denoised
    return x


@_solver()
def dpmpp_3m(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """DPM-Solver++(3M) (Lu et al. 2022, appendix; k-diffusion's 3M SDE without noise).

    As k-diffusion, diffusers and the hosts have it: `second` is half of Taylor's term, so the order is 2, not 3.
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


@_solver()
def unipc(trace: Trace, sigmas: Tensor, flow: bool, order: int = 3, kind: str = "bh2") -> Tensor:
    """UniPC with its corrector, data prediction, orders 1-3, B(h) of kind "bh1" or "bh2" (Zhao et al. 2023, Alg. 1-2).

    The corrector uses the call at the predicted point, which is also the next step's first prediction: one
    call per step. The last steps lower their order, so that the step to 0 is first-order.
    """
    _check_order(order, 3)
    if kind not in ("bh1", "bh2"):
        raise ValueError(f"UniPC kind {kind!r} is not known: use bh1 or bh2")
    levels = list(_log_steps(sigmas, flow))
    logs = _half_log_snr(sigmas, flow)
    shown, past, before = trace.start, [], None
    for i, (sigma, after, h, _) in enumerate(levels):
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
    weights = _unipc_weights(ratios, -h, width, corrects=newest is not None)
    end = 1 - after if flow else 1.0
    return moved - end * width * sum(w * d for w, d in zip(weights, differences))


def _unipc_weights(ratios: list, hh: Tensor, width: Tensor, corrects: bool) -> list:
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


def _towards(x: Tensor, denoised: Tensor, sigma: Tensor, after: Tensor) -> Tensor:
    """The exponential-integrator step with a constant prediction; the same for flow: (after/sigma) x + (1 - ..) D."""
    kept = after / sigma
    return kept * x + (1 - kept) * denoised


def _half_log_snr(sigmas: Tensor, flow: bool) -> Tensor:
    """lambda of each level; a flow's s = 1 is moved to where lambda is finite, level 0 has lambda = inf.

    The end is computed beside the logarithm: a 0 inside it would make the gradient 0 * inf.
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
    return [(sigma, after, h[i + 1], h[i]) for i, (sigma, after) in enumerate(_steps(sigmas))]


# --- two calls per step -----------------------------------------------------------------------------------------

@_solver(calls_per_step=2)
def heun(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """Heun's method (Karras et al. 2022, Alg. 1); two calls a step, one for the step to 0."""
    x = trace.start
    for sigma, after in _steps(sigmas):
        slope = (x - trace.call(x, sigma)) / sigma
        ahead = x + (after - sigma) * slope
        if after > 0:
            ahead = x + (after - sigma) * (slope + (ahead - trace.call(ahead, after)) / after) / 2
        x = ahead
    return x


@_solver(calls_per_step=2)
def dpm_2(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """DPM-Solver-2 in sigma (Karras et al. 2022 after Lu et al. 2022): the slope at the geometric middle."""
    x = trace.start
    for sigma, after in _steps(sigmas):
        slope = (x - trace.call(x, sigma)) / sigma
        if after > 0:
            middle = torch.sqrt(sigma * after)
            halfway = x + (middle - sigma) * slope
            slope = (halfway - trace.call(halfway, middle)) / middle
        x = x + (after - sigma) * slope
    return x


@_solver(calls_per_step=2)
def dpmpp_2s(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """DPM-Solver++(2S) (Lu et al. 2022, Alg. 1, r = 1/2); the step to 0 is first-order."""
    x, logs = trace.start, _half_log_snr(sigmas, flow)
    for i, (sigma, after) in enumerate(_steps(sigmas)):
        target = trace.call(x, sigma)
        if after > 0:
            middle = (logs[i] + logs[i + 1]) / 2
            middle = torch.sigmoid(-middle) if flow else torch.exp(-middle)
            target = trace.call(_towards(x, target, sigma, middle), middle)
        x = _towards(x, target, sigma, after)
    return x


def _steps(sigmas: Tensor):
    return list(zip(sigmas[:-1].unbind(), sigmas[1:].unbind()))


def _check_order(order: int, highest: int) -> None:
    if order not in range(1, highest + 1):
        raise ValueError(f"order {order!r} asked for: there are orders 1 to {highest}")


def _register() -> None:
    """Fill SOLVERS with every family and order under the names the command line and the race use."""
    def at(function, **options):
        fixed = functools.partial(function, **options)
        fixed.table = functools.partial(function.table, **options)
        fixed.calls_per_step = function.calls_per_step
        return fixed
    SOLVERS.update(euler=euler, dpmpp_2m=dpmpp_2m, dpmpp_3m=dpmpp_3m, heun=heun, dpm_2=dpm_2, dpmpp_2s=dpmpp_2s)
    for order in (2, 3, 4):
        SOLVERS[f"lms_{order}"] = at(lms, order=order)
        SOLVERS[f"ipndm_{order}"] = at(ipndm, order=order)
    for order in (2, 3):
        SOLVERS[f"deis_{order}"] = at(deis, order=order)
    for kind in ("bh1", "bh2"):
        for order in (1, 2, 3):
            SOLVERS[f"unipc_{kind}_{order}"] = at(unipc, order=order, kind=kind)


_register()
