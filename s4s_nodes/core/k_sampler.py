"""The k-diffusion interface: the signature that every host calls samplers with."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .loop import sample
from .table import Table

_SAME_LEVEL = 1e-3          # float32 schedules and a host's rounding to its own table stay within this


def sample_table(model, x: Tensor, sigmas: Tensor, extra_args: dict | None = None, callback=None,
                 disable: bool | None = None, *, table: Table | Callable) -> Tensor:
    """k-diffusion's sampler signature around the loop; returns the last state.

    Args:
        model: (x (B, ...), sigma (B,), **extra_args) -> denoised (B, ...).
        x (B, ...): the noisy start, with standard deviation sigmas[0] if it is pure noise.
        sigmas (steps + 1,): the host's noise levels.
        extra_args: keyword arguments for every call of the model.
        callback: gets {x, i, sigma, sigma_hat, denoised}, detached, after network call i = 0, 1, ...; sigma is the
            level of x, sigma_hat the one the network is told.
        disable: whether to hide the progress bar.
        table: one for exactly these levels, or a solver, sigmas -> Table, such as those of `classical`.

    Exceptions of callback and model pass through. Raises ValueError for a table that was made for other levels.
    """
    if len(sigmas) < 2:
        return x
    if isinstance(table, Table):
        check_levels(table, sigmas)
        runs = table
    else:
        runs = table(sigmas.detach().cpu().double())
    with tqdm(total=runs.calls, disable=disable) as bar:
        def on_call(i, state, row, denoised):
            if callback is not None:
                level, query = x.new_tensor([row.sigma, row.query], dtype=torch.float32)
                callback({"x": state.detach(), "i": i, "sigma": level, "sigma_hat": query,
                          "denoised": denoised.detach()})
            bar.update()
        return sample(model, x, runs, extra_args, on_call)


def check_levels(table: Table, sigmas) -> None:
    """Raise ValueError unless the host's levels are those the table was made for, to 1 part in 1000."""
    offered = np.asarray(sigmas.detach().cpu().double() if isinstance(sigmas, Tensor) else sigmas, dtype=np.float64)
    if not same_levels(table, offered):
        between = " with other levels between" if len(offered) == len(table.sigmas) else ""
        raise ValueError(
            f"this table makes {table.calls} calls from sigma {table.sigmas[0]:g} to {table.sigmas[-1]:g}, the host "
            f"offers {len(offered) - 1} steps from {offered[0]:g} to {offered[-1]:g}{between}: use the schedule that "
            "comes with the preset")


def same_levels(table: Table, levels: np.ndarray) -> bool:
    """Whether these are the table's levels, to 1 part in 1000."""
    return len(levels) == len(table.sigmas) and close(levels, table.sigmas)


def close(levels, others) -> bool:
    """Whether levels are equal to 1 part in 1000."""
    return bool(np.allclose(levels, others, rtol=_SAME_LEVEL, atol=1e-6))
