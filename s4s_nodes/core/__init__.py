"""The core: tables, schedules, the sampling loop, presets. It needs torch, numpy and safetensors only."""

from . import classical, preset_file, schedules
from .analytic import mixture
from .files import write_atomically
from .k_sampler import check_levels, sample_table
from .loop import Denoiser, sample
from .model import Model, PresetError
from .preset_file import Preset
from .table import MAX_CALLS, Table, constant_law_error, end_response, lawful_total
from .trace import TensorTable, Trace
