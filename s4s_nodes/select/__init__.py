"""Which preset is for a model, and which table runs on a host's levels; decided once, without reading anything."""

from .adapt import adapted
from .dispatch import Choice, is_own, levels_for, table_for
from .match import choose, suits
from .model_facts import ModelFacts
