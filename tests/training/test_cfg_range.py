"""A range of cfg in one run: its nodes, each from its neighbour's tables, at a part of the price."""

import math
from dataclasses import replace

import pytest
import torch

from s4s.s4s_nodes.core import mixture, preset_file
from s4s.s4s_nodes.select.cfg import at_cfg, cfg_nodes, learned_at
from s4s.training.budget import FIRST, PRICE, nodes_of, plan_for
from s4s.training.config import Config
from s4s.training.distil import distil, estimate
from tests.toy import small, toy_source


def guided_source():
    """The toy under a guidance that it is told: its points lie further out at a higher cfg."""
    def answer(x, sigma, label, cfg):
        return mixture(x, sigma) * (1 + 0.02 * cfg[:, None])
    return replace(toy_source(network=answer), cfg=4.0, any_cfg=True)


def ranged(**changes) -> Config:
    return small(**{"cfg": "2-6", "budget": 4_000, "iterations": 0, "validation": 8, **changes})


@pytest.mark.parametrize("given, nodes", [
    (5, (5.0,)), ("7.5", (7.5,)), ("3-7", (3.0, 4.6, 7.0)), ("3:7", (3.0, 4.6, 7.0)), (" 3 - 6 ", (3.0, 6.0)),
    ("1.5:12", (1.5, 3.0, 6.0, 12.0)), ("7,3", (3.0, 7.0)), ([1, 3, 5], (1.0, 3.0, 5.0)), ("4–5", (4.0, 5.0))])
def test_a_range_has_nodes_a_factor_of_two_apart_at_most(given, nodes):
    assert cfg_nodes(given) == nodes and Config(cfg=given).cfg == nodes and Config(cfg=nodes).cfg == nodes


@pytest.mark.parametrize("given", ["", "7-3", "3-3", "0-4", "a-b", "3-", (), "3,3", (3.0, 3.0), "nan", None, "1-2-3"])
def test_what_is_no_cfg_is_refused_with_what_to_write(given):
    with pytest.raises(ValueError, match="write a guidance scale such as 5, a range such as 3-7"):
        cfg_nodes(given)


def test_the_nodes_share_the_price_and_start_from_their_neighbour():
    nodes = nodes_of(Config(cfg="2:8", budget=10_000))
    assert [(node.cfg, node.neighbour) for node in nodes] == [(8.0, None), (4.0, 8.0), (2.0, 4.0)]
    for cfg in ("3-6", "2:8", "1.5:12"):
        first, *others = (node.share for node in nodes_of(Config(cfg=cfg)))
        assert first + sum(others) == pytest.approx(PRICE) and FIRST <= first and max(others) <= first
    for budget, own in ((10_000, [7_000, 5_000, 5_000]), (0, [70_000, 50_000, 50_000])):
        assert [plan_for(node, guided_source()).budget for node in nodes_of(Config(cfg="2:8", budget=budget))] == own
    assert nodes_of(Config(cfg=3)) == [(3.0, Config(cfg=3), 1.0, None)]


def test_a_share_of_a_budget_is_exceeded_and_only_too_small_a_whole_one_is_refused():
    source = guided_source()
    least = next(budget for budget in range(50, 10_000, 50) if fits(source, cfg=4, budget=budget))
    assert fits(source, cfg="2-6", budget=least) and not fits(source, cfg="2-6", budget=least - 50)


def fits(source, **changes) -> bool:
    try:
        return all(plan_for(node, source).data.pairs >= 4 for node in nodes_of(Config(**{"calls": "6", **changes})))
    except ValueError:
        return False


def test_a_range_is_learned_in_one_run_whose_preset_runs_at_every_cfg(tmp_path):
    source, events, said = guided_source(), [], []
    made = distil(source, ranged(windows=(1.0, 0.5)), tmp_path, on_progress=events.append, say=said.append)
    assert source.cfg == 4.0
    stems = learned_at(made)
    assert len(stems) == 2 and all(list(nodes) == [2.0, 3.5, 6.0] for nodes in stems.values())
    assert made.training["cfg"] == [2.0, 6.0] and made.training["model_calls"] == source.model_calls <= 1.7 * 2 * 4_000
    assert [event.done for event in events] == sorted(event.done for event in events) and events[-1].total < 13_700
    assert any("from the tables learned at cfg 6" in line for line in said)
    there = at_cfg(made, 2.6)[0]
    assert set(there.tables) == set(stems) and preset_file.load(tmp_path / "my-preset.safetensors").tables.keys() == \
        made.tables.keys()


def test_an_interrupted_range_keeps_the_tables_so_far_and_resumes_bit_for_bit(tmp_path):
    whole = distil(guided_source(), ranged(), tmp_path / "whole")

    def stop(progress):
        if progress.table == "calls4_cfg3.5" and math.isfinite(progress.held_out):
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        distil(guided_source(), ranged(), tmp_path / "run", on_progress=stop)
    kept = preset_file.load(tmp_path / "run" / "my-preset.safetensors")
    assert set(kept.tables) == {"calls4_cfg6", "calls4_cfg3.5"} and kept.training["cfg"] == [3.5, 6.0]
    again = distil(guided_source(), ranged(), tmp_path / "run", resume=True)
    assert again.short_hash == whole.short_hash and again.training["model_calls"] <= whole.training["model_calls"] + 64


def test_a_network_that_is_not_told_its_cfg_has_no_range(tmp_path):
    with pytest.raises(ValueError, match=r"toy can be sampled at cfg 1 only: give one cfg"):
        distil(toy_source(), ranged(), tmp_path)


def test_an_estimate_prices_the_whole_range():
    one, several = (estimate(guided_source(), ranged(cfg=cfg, budget=10_000)) for cfg in (4, "2-6"))
    assert several.free == 3 * one.free and 1.3 * one.price.calls < several.price.calls <= 1.7 * 10_000
    assert torch.isfinite(torch.tensor(several.price.seconds))
