"""GS / GAS students (Oganov et al. 2025, arXiv 2510.17699; MIT): DPM-Solver++(3M) plus residuals on all history.

States and predictions are variance-preserving; the network's time is shifted, alpha and std are not:
m_j = (x_j - std(t_j) eps(x_j, t_j + xi_j)) / alpha(t_j). The formulas of a step are in `_step`.
"""

from __future__ import annotations

from itertools import takewhile

import numpy as np

from ..core import Model, Table
from . import clock, models
from .lower import Run
from .restricted import UnreadableFile, array

SOURCE = "GAS, Oganov et al. (2025), arXiv 2510.17699; github.com/3145tttt/GAS (MIT)"
_LAST = 1e-3                        # their network time of the end: sigma 0.029 (SD), 0.0105 (CIFAR-10)
_LAST_EDM_64 = 1e-4                 # ... for FFHQ and AFHQv2: sigma 0.0032
_SQUEEZE = 1e-5                     # mu is kept this far from 0 and 1


def times(logits, last: float) -> np.ndarray:
    """Network times from 1 down to `last`, by stick-breaking (eq. 14): t_k = last + (1 - last)(1 - prod mu_j)."""
    mu = _SQUEEZE + (1 - 2 * _SQUEEZE) / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))
    return np.concatenate([[last], last + (1 - last) * (1 - np.cumprod(mu)), [1.0]])[::-1]


def table(at, offsets, on_states, on_predictions, sigma: clock.Clock) -> Table:
    """The table for network times at (N+1,), their offsets (N,), and residuals (k, step), k = 0 the newest."""
    levels, asked = sigma(at), sigma(at[:-1] + offsets)
    alphas = clock.alpha(levels)
    logs = -np.log(levels)                                    # lambda = log(alpha / std)
    run, states, predictions = Run(levels[0], len(offsets)), [], []
    x = alphas[0] * run.start
    for i in range(len(offsets)):
        shown = clock.alpha(asked[i])
        answer = run.call(x / alphas[i], asked[i], levels[i], scale=alphas[i] / shown)
        noise = (x / shown - answer) / asked[i]
        states = [x, *states]
        predictions = [(x - alphas[i] * levels[i] * noise) / alphas[i], *predictions]
        x = _step(states, predictions, logs[:i + 2], alphas[i + 1], on_states[:, i], on_predictions[:, i])
    return run.finish(x)


def _step(states, predictions, logs, alpha, a, c):
    """The next state: DPM-Solver++ of order 1, 2, 3 with a_k, c_k added to its coefficients, and older terms."""
    h = logs[-1] - logs[-2]
    phi_1 = np.expm1(-h)
    phi_2 = phi_1 / h + 1
    phi_3 = phi_2 / h - 0.5
    std_ratio = alpha * np.exp(-logs[-1]) / _std(logs[-2])
    x = (std_ratio + a[0]) * states[0] - (alpha * phi_1 + c[0]) * predictions[0]
    if len(predictions) == 2:
        first = (predictions[0] - predictions[1]) * h / (logs[-2] - logs[-3])
        x = x - (alpha * phi_1 / 2 + c[1]) * first
    elif len(predictions) > 2:
        r0, r1 = (logs[-2] - logs[-3]) / h, (logs[-3] - logs[-4]) / h
        first, before = (predictions[0] - predictions[1]) / r0, (predictions[1] - predictions[2]) / r1
        second = (first - before) / (r0 + r1)
        x = x + (alpha * phi_2 + c[1]) * (first + r0 * second) - (alpha * phi_3 + c[2]) * second
    x = x + sum(c[k] * predictions[k] for k in range(3, len(predictions)))
    return x + sum(a[k] * states[k] for k in range(1, len(states)))


def _std(log_snr) -> float:
    return 1 / np.sqrt(1 + np.exp(2 * log_snr))


def fits(content) -> bool:
    """Whether a file's content is a checkpoint of theirs (its averaged parameters count)."""
    return isinstance(content, dict) and isinstance(content.get("ema"), dict) and "shadow_params" in content["ema"]


def read(content: dict, model: Model | None) -> tuple[Table, Model, dict]:
    """(table, model, record) of a file's content.

    The file holds the numbers in the order they were registered: times (N-1), offsets (N), then c_k, a_k (N each) for
    k = 1..N. What follows is a discriminator's. It does not say which model it is for: Stable Diffusion 1.x unless
    told, and for networks of EDM one says sigma_max = 152.
    """
    kept = content["ema"].get("shadow_params")
    kept = kept if isinstance(kept, list) else []
    first = array(kept[0]) if kept else None
    calls = len(first) + 1 if first is not None and first.ndim == 1 else 0
    ours = list(takewhile(lambda p: p is not None and p.shape == (calls,), map(array, kept[1:2 * calls + 2])))
    if not 2 <= calls <= 100 or len(ours) != 2 * calls + 1:
        raise UnreadableFile(f"holds {len(kept)} parameters that are not a GS student's: N-1 times, then 2 N + 1 of N")
    model, assumed = model or models.SD15, model is None
    sigma = models.clock_of(model)
    last = _LAST_EDM_64 if model.prediction == "x0" and model.sigma_min < 0.005 else _LAST
    learned = table(times(first, last), ours[0], np.stack(ours[2::2]), np.stack(ours[1::2]), sigma)
    record = {"assumed_model": model.family} if assumed else {}
    return learned, model, record

