"""The core, by whichever door this package was opened.

As `training` in a clone or `s4s_training` once installed, the core is the top-level s4s_nodes; inside a host the
whole clone is one package of the host's naming and the core is a neighbour in it.
"""

if "." in __package__:
    from ..s4s_nodes.core import (Model, Preset, PresetError, Solver, Table, adapt, classical, conditioned, facts,
                                  names, preset, sample, schedule, sketch, write_atomically)
else:
    from s4s_nodes.core import (Model, Preset, PresetError, Solver, Table, adapt, classical, conditioned, facts,
                                names, preset, sample, schedule, sketch, write_atomically)

__all__ = ["Model", "Preset", "PresetError", "Solver", "Table", "adapt", "classical", "conditioned", "facts", "names",
           "preset", "sample", "schedule", "sketch", "write_atomically"]
