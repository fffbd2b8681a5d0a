"""The classical solvers as tables: sigmas -> Table.

Each is its textbook algorithm (slope.py, log_snr.py), written once and run on symbols (trace.py), so the same lines
give the float64 table of a host and, through `.table`, coefficients that are differentiable in the sigmas for the
trainer. flow=True selects a rectified flow, x = (1-s) x0 + s noise, in place of x = x0 + sigma noise.
"""

from . import exponential, slope
from .log_snr import dpmpp_2m, dpmpp_2s, dpmpp_3m, unipc, unipc_sigma
from .lowering import Solver
from .slope import deis, dpm_2, euler, heun, ipndm, lms

# every family and order under the names the command line and the race use
SOLVERS: dict[str, Solver] = {solver.__name__: solver for solver in (
    euler, dpmpp_2m, dpmpp_3m, heun, dpm_2, dpmpp_2s, exponential.res_multistep, exponential.dpmpp_2m_sigma,
    slope.gradient_estimation, slope.ipndm_v, exponential.sa_solver, exponential.er_sde, slope.heunpp2, slope.ralston,
    exponential.exp_heun)} | exponential.RES
for _order in (2, 3, 4):
    SOLVERS |= {f"lms_{_order}": lms.with_options(order=_order), f"ipndm_{_order}": ipndm.with_options(order=_order)}
SOLVERS |= {f"deis_{order}": deis.with_options(order=order) for order in (2, 3)}
for _kind in ("bh1", "bh2"):
    SOLVERS[f"unipc_{_kind}_sigma"] = unipc_sigma.with_options(kind=_kind)
    SOLVERS |= {f"unipc_{_kind}_{order}": unipc.with_options(order=order, kind=_kind) for order in (1, 2, 3)}
