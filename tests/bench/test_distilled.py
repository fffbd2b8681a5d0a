"""The bench of distilled models: its losses and its page, without a training."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from s4s.s4s_nodes.core import Model, schedules
from s4s.training.source import Source
from tests.bench.distilled import models
from tests.bench.distilled.__main__ import TABLES, table_page
from tests.bench.distilled.models import KINDS, blend
from tests.bench.pages import placed


class Constant(nn.Module):
    """A denoiser that always answers one number."""

    def __init__(self, value: float):
        super().__init__()
        self.network = nn.Linear(1, 1)
        self.value = nn.Parameter(torch.tensor(value))

    def denoise(self, x, sigma, label):
        return x * 0 + self.value


def base(flow: bool) -> Source:
    levels = schedules.flow_levels() if flow else schedules.sd_levels()
    model = Model("toy", "flow" if flow else "eps", float(levels[0]), float(levels[-1]))
    return Source("toy", model, levels, (1, 2, 2), lambda x, sigma, label: torch.full_like(x, 0.25),
                  lambda seeds: {"label": torch.zeros(len(seeds), dtype=torch.long)}, 1.0, torch.device("cpu"))


@pytest.mark.parametrize("name", KINDS)
def test_a_model_that_answers_as_its_base_has_nothing_to_learn(name, monkeypatch, tmp_path):
    monkeypatch.setattr(models, "TRAJECTORIES", 8)
    monkeypatch.setattr(models, "digits", lambda folder: (torch.full((4, 1, 2, 2), 0.25), torch.zeros(4).long()))
    kind = replace(KINDS[name], size=512)      # some of lcm's at its lowest level
    off = [float(next(kind.losses(kind, Constant(value), base(name == "lcm"), tmp_path)).detach())
           for value in (0.25, 0.5)]
    assert off[0] == pytest.approx(0, abs=1e-6) and off[1] > 1e-3


def test_a_moving_average_moves_by_its_share():
    kept, now = Constant(0.0), Constant(0.0)
    nn.init.zeros_(kept.network.weight)
    nn.init.ones_(now.network.weight)
    blend(kept, now, 0.75)
    assert float(kept.network.weight.detach()) == pytest.approx(0.25)


def test_the_page_counts_seeds_and_says_where_nothing_was_gained():
    row = {"model": "lcm", "calls": 2, "teacher": "own", "goal": "own", "lost": False,
           "usual": {"errors": [0.4, 0.4], "far": 3.0, "off": 0.6},
           "s4s": {"errors": [0.1, 0.2], "far": 1.0, "off": 0.3},
           "best": {"errors": [0.2, 0.2], "far": 2.0, "off": 0.5, "name": "euler, a"}}
    assert ("| 0.4000 | 0.2000 (euler, a) | 0.1500 | 1.33 | 75 % | 0.6000, 0.5000, 0.3000 | 3.00, 2.00, 1.00 |"
            in table_page([row]))
    assert "nothing gained" in table_page([{**row, "lost": True}])


def test_a_table_is_placed_between_its_marks():
    page = f"before\n{TABLES[0]}\nold\n{TABLES[1]}\nafter"
    assert placed(page, TABLES, "new") == f"before\n{TABLES[0]}\n\nnew\n{TABLES[1]}\nafter"
