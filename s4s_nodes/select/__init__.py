"""Which preset is for a model, and which table runs on a host's levels. Pure: nothing is read here."""

from .adapt import adapted
from .dispatch import Selection, levels_for, table_for
from .match import ModelFacts, suits
from .selection import Request, select
