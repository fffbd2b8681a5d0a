"""Solvers written in the slope d = (x - D) / sigma = dx/dsigma: Euler, Heun, DPM-2 and the Adams-Bashforth family.

For a rectified flow, x = (1-s) x0 + s noise, the same expression is the velocity, so one formula serves both.
"""

import numpy as np
import torch
from torch import Tensor

from ..levels import gauss, lagrange
from ..trace import Trace
from .log_snr import with_middles
from .lowering import check_order, lowered, steps


@lowered()
def euler(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """Euler's method (Karras et al. 2022, Alg. 2 without churn); DDIM and DPM-Solver++ 1S are the same."""
    x = trace.start
    for sigma, after in steps(sigmas):
        x = x + (after - sigma) * (x - trace.call(x, sigma)) / sigma
    return x


@lowered()
def lms(trace: Trace, sigmas: Tensor, flow: bool, order: int = 4) -> Tensor:
    """Variable-step Adams-Bashforth in sigma, orders 1-4 (k-diffusion's LMS; DEIS calls it rho-AB)."""
    return _adams_bashforth(trace, sigmas, order, clock=lambda sigma: sigma, euler_at_end=False)


@lowered()
def deis(trace: Trace, sigmas: Tensor, flow: bool, order: int = 3) -> Tensor:
    """DEIS (Zhang and Chen 2023, eq. 15), orders 1-4: Adams-Bashforth on slopes polynomial in a clock.

    The clock is the time of the VP process for sigma in [0.002, 80], as in the hosts. The last step to 0 is Euler.
    """
    return _adams_bashforth(trace, sigmas, order, _vp_time, euler_at_end=True)


@lowered()
def ipndm(trace: Trace, sigmas: Tensor, flow: bool, order: int = 4) -> Tensor:
    """iPNDM (Zhang and Chen 2023; Liu et al. 2022): equal-step Adams-Bashforth weights on any steps, orders 1-4."""
    return _multistep(trace, sigmas, order, lambda *widths: EQUAL_STEPS[len(widths)])


EQUAL_STEPS = {1: (1.,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


@lowered(lawful=False)
def ipndm_v(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """iPNDM of order 4 for unequal steps, with the weights of diff-sampler, as the hosts have them.

    From order 3 on they are not those of variable-step Adams-Bashforth (`lms`), and those of order 4 need not add to 1.
    """
    return _multistep(trace, sigmas, 4, _unequal_steps)


def _unequal_steps(h, h1=None, h2=None, h3=None) -> list:
    """Weights of the slopes, newest first, after steps h (the one to take), h1, h2, h3 (the oldest)."""
    weights = [1.0, 0.0, 0.0, 0.0]
    if h1 is not None:
        weights[0], weights[1] = 1 + h / h1 / 2, -h / h1 / 2
    if h2 is not None:
        third = (1 - h / (3 * (h + h1)) * (h * (h + h1)) / (h1 * (h1 + h2))) / 2
        for k, share in enumerate((1, -(1 + h1 / h2), h1 / h2)):
            weights[k] = weights[k] + share * third
    if h3 is not None:
        fourth = ((1 - h / (3 * (h + h1))) / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))) \
            * (h * (h + h1) * (h + h1 + h2)) / (h1 * (h1 + h2) * (h1 + h2 + h3))
        older = h1 * (h1 + h2) / (h2 * (h2 + h3))
        for k, share in enumerate((1, -(1 + h1 / h2 + older), h1 / h2 + older * (1 + h2 / h3), -older * h1 / h2)):
            weights[k] = weights[k] + share * fourth
    return weights


@lowered()
def gradient_estimation(trace: Trace, sigmas: Tensor, flow: bool, gamma: float = 2.0) -> Tensor:
    """Gradient estimation (Permenter and Yuan 2024): Euler on a slope moved on by its last change."""
    return _multistep(trace, sigmas, 2, lambda *widths: (gamma, 1 - gamma) if len(widths) > 1 else (1.0,))


def _multistep(trace: Trace, sigmas: Tensor, order: int, weights) -> Tensor:
    """x' = x + h sum_j w_j d_j, newest slope first, with w = weights(h, the steps before); the step to 0 is Euler's."""
    check_order(order, 4)
    x, slopes = trace.start, []
    for i, (sigma, after) in enumerate(steps(sigmas)):
        denoised = trace.call(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes][:order]
        if after == 0:
            return denoised
        widths = [sigmas[i + 1 - k] - sigmas[i - k] for k in range(len(slopes))]
        x = x + widths[0] * sum(w * d for w, d in zip(weights(*widths), slopes))
    return x


def _adams_bashforth(trace: Trace, sigmas: Tensor, order: int, clock, euler_at_end: bool) -> Tensor:
    """x' = x + sum_j d_j int l_j(clock(s)) ds over the step, l_j the Lagrange basis on the clock of past levels."""
    check_order(order, 4)
    x, slopes, past = trace.start, [], []
    for sigma, after in steps(sigmas):
        slopes = [(x - trace.call(x, sigma)) / sigma, *slopes][:order]
        past = [sigma, *past][:order]
        used = past[:1] if euler_at_end and after == 0 else past
        weights = _lagrange_integrals([clock(s) for s in used], clock, sigma, after)
        x = x + sum(w * d for w, d in zip(weights, slopes))
    return x


def _lagrange_integrals(nodes: list, clock, start: Tensor, end: Tensor) -> list:
    """int_start^end l_j(clock(s)) ds for each node j, by Gauss-Legendre points (exact for polynomials)."""
    points, weights = map(torch.from_numpy, gauss(2 if clock(start) is start else 24))
    width = end - start
    if len(nodes) == 1:
        return [width]
    inside = clock(start + width * points)
    return [width * (weights * lagrange(nodes, j, inside)).sum() for j in range(len(nodes))]


def _vp_time(sigma: Tensor, epsilon: float = 1e-3, low: float = 0.002, high: float = 80.0) -> Tensor:
    """The clock t of the VP process that has sigma(epsilon) = low and sigma(1) = high (EDM, Karras et al. 2022)."""
    at_low, at_high = np.log1p(low ** 2), np.log1p(high ** 2)
    beta_d = 2 * (at_low / epsilon - at_high) / (epsilon - 1)
    beta_min = at_high - beta_d / 2
    return (torch.sqrt(beta_min ** 2 + 2 * beta_d * torch.log1p(sigma ** 2)) - beta_min) / beta_d


@lowered(calls_per_step=2)
def heun(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """Heun's method (Karras et al. 2022, Alg. 1); two calls a step, one for the step to 0."""
    return _two_calls(trace, sigmas, sigmas[1:], share=1 / 2)


@lowered(calls_per_step=2)
def ralston(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """Ralston's method of order 2 (1962): a second call two thirds of the way; one call for the step to 0."""
    return _two_calls(trace, sigmas, torch.lerp(sigmas[:-1], sigmas[1:], 2 / 3), share=3 / 4)


@lowered(calls_per_step=2)
def dpm_2(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """DPM-Solver-2 in sigma (Karras et al. 2022 after Lu et al. 2022): the slope at the geometric middle."""
    return _two_calls(trace, sigmas, with_middles(sigmas, False)[1::2], share=1.0)


def _two_calls(trace: Trace, sigmas: Tensor, inside: Tensor, share: float) -> Tensor:
    """Steps with a second call at the level `inside`, whose slope has this share of the step; that to 0 is Euler's."""
    x = trace.start
    for (sigma, after), there in zip(steps(sigmas), inside):
        slope = (x - trace.call(x, sigma)) / sigma
        if after > 0:
            state = x + (there - sigma) * slope
            slope = (1 - share) * slope + share * (state - trace.call(state, there)) / there
        x = x + (after - sigma) * slope
    return x


@lowered(calls_per_step=3)
def heunpp2(trace: Trace, sigmas: Tensor, flow: bool) -> Tensor:
    """Heun++ as the hosts have it: Heun looking two steps ahead, weights by level; at last two calls, and one."""
    x, count = trace.start, len(sigmas) - 1
    for i, (sigma, after) in enumerate(steps(sigmas)):
        slopes, state, ahead = [], x, sigmas[i:i + 1 + min(3, count - i)]
        for k in range(len(ahead) - 1):
            slopes.append((state - trace.call(state, ahead[k], level=sigmas[min(i + 1, i + k)])) / ahead[k])
            state = state + (ahead[k + 1] - ahead[k]) * slopes[-1]
        shares = [level / (len(slopes) * sigmas[0]) for level in ahead[1:len(slopes)]]
        x = x + (after - sigma) * sum(w * d for w, d in zip([1 - sum(shares), *shares], slopes))
    return x
