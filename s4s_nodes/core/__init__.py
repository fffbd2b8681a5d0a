"""The pure core: tables, schedules, the loop, presets. Needs torch, numpy and safetensors; knows no host."""

from . import classical, preset, schedule
from .adapt import adapted
from .analytic import mixture
from .choice import Choice, is_own, levels_for, solver_for
from .facts import ModelFacts, choose, suits
from .files import write_atomically
from .k_sampler import check_levels, sample_table
from .preset import Model, Preset, PresetError
from .sampling import Denoiser, sample
from .solver import MAX_CALLS, Solver, constant_law_error, end_response
from .trace import Table, Trace
