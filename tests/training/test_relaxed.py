"""Relaxed starts and fresh noise: the trust region, what is kept of a move, resuming bit for bit."""

import dataclasses
import math

import pytest
import torch

from s4s.training.optimizers.gradient import learn, loss_and_gradient
from s4s.training.optimizers.objective import distances, rmse
from s4s.training.optimizers.relaxed import ANCHOR, MOVED, Offer, projected, trust_region
from s4s.training.optimizers.state import new_state
from s4s.training.run import Stopped
from s4s.training.teacher.pairs import FreshPairs, known_pairs, make_pairs
from s4s.training.teacher.solvers import teacher_table
from tests.toy import small, toy_source
from tests.training.test_optimizers import prepared
from tests.training.test_run import interrupt_after, run_in

MANY = 1000.0                   # LD3's radius in a plane of two numbers is a thousandth: this many make it visible


def regions(relaxed=MANY, **changes):
    source, parameters, pairs, held_out, config = prepared(relaxed=relaxed, **changes)
    return trust_region(source, parameters, pairs, rmse, relaxed), held_out, config


def test_the_radius_is_ld3s():
    region, _, _ = regions(relaxed=2.0, calls=4)
    assert region.radius == pytest.approx(2 * ANCHOR * 2 / 4 ** 2)
    assert trust_region(region.source, region.parameters, region.pairs, rmse, 0.0) is None
    cifar = dataclasses.replace(region.source, shape=(3, 32, 32))
    wide = trust_region(cifar, region.parameters, region.pairs, rmse, 1.0)
    assert wide.radius == pytest.approx(0.192)              # as its code prints


def test_projection_is_the_nearest_point_of_the_ball():
    centre = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    way = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    way = way / way.flatten(1).norm(dim=1)[:, None, None, None]
    found = projected(centre + way * torch.tensor([0.1, 0.5, 3.0])[:, None, None, None], centre, 0.5)
    torch.testing.assert_close(found, centre + way * torch.tensor([0.1, 0.5, 0.5])[:, None, None, None])
    assert torch.equal(projected(centre, centre, 0.5), centre)


def test_one_backward_pass_gives_the_plain_gradient_and_each_samples_own_way():
    region, _, _ = regions()
    vector, places = region.parameters.initial() + 0.05, [3, 7, 11]
    loss, gradient, offer = region.loss_gradient_offer(vector, {}, places)
    some = region.pairs.part(places)
    wanted = loss_and_gradient(region.source, region.parameters, vector, some, rmse)
    assert loss == wanted[0] and torch.equal(gradient, wanted[1])
    alone = region.loss_gradient_offer(vector, {}, [7])[2]
    torch.testing.assert_close(alone.moved.noise[0], offer.moved.noise[1])             # whoever else is in the batch
    way = offer.moved.noise - some.noise
    nudged = [dataclasses.replace(some, noise=some.noise + share * way) for share in (1e-3, -1e-3)]
    ahead, behind = (distances(region.source, region.parameters, vector, pairs, rmse) for pairs in nudged)
    assert bool((ahead < behind).all()) and float(way.norm(dim=1).max()) <= region.radius * (1 + 1e-5)


def test_only_moves_that_come_closer_are_kept():
    region, _, _ = regions()
    vector, places = region.parameters.initial(), [5, 2, 9]
    plain = region.pairs.part(places)
    before = distances(region.source, region.parameters, vector, plain, rmse)
    moved = dataclasses.replace(plain, noise=plain.noise + 0.5)
    offer = Offer(places, moved, before + torch.tensor([math.inf, -math.inf, math.nan]))
    kept = region.kept(vector, {"other": before}, offer)
    assert torch.equal(kept[MOVED][5], moved.noise[0]) and torch.equal(kept["other"], before)
    untouched = [i for i in range(len(region.pairs)) if i != 5]
    assert torch.equal(kept[MOVED][untouched], region.pairs.noise[untouched])


def test_learning_moves_starts_within_the_ball_and_lowers_the_training_loss():
    losses = {}
    for relaxed in (0.0, MANY):
        region, held_out, config = regions(relaxed=relaxed, iterations=40, pairs=16, batch=16, every=40)
        source, parameters, pairs, _, _ = prepared(pairs=16)
        state = learn(source, parameters, pairs, held_out, config, new_state("gradient", parameters))
        losses[relaxed] = state.curve[-1][1]
        assert (MOVED in state.memory) == bool(relaxed)
    way = (state.memory[MOVED] - pairs.noise).norm(dim=1)
    assert 0 < float(way.max()) <= region.radius * (1 + 1e-5) and float(way.median()) > 0.1 * region.radius
    assert losses[MANY] < 0.85 * losses[0.0]


@pytest.mark.parametrize("changes", [{"relaxed": MANY}, {"fresh": True}])
@pytest.mark.parametrize("moment", [75, 110, 170])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, moment, changes):
    whole = run_in(tmp_path / "whole", **changes)
    made = whole.train()
    assert made.short_hash != run_in(tmp_path / "plain").train().short_hash
    with pytest.raises(Stopped):
        run_in(tmp_path / "parts", source=interrupt_after(moment), **changes).train()
    resumed = run_in(tmp_path / "parts", resume=True, **changes)
    assert resumed.train().short_hash == made.short_hash
    states = [run.states["calls4"].memory for run in (whole, resumed)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_fresh_pairs_are_those_of_their_seeds_and_are_never_used_twice(tmp_path):
    source = toy_source()
    table = teacher_table(source, "auto", 20)
    fresh = FreshPairs(source, range(100, 110), table)
    some = fresh.part([3, 1])
    wanted = make_pairs(source, [103, 101], table, "", quiet=True)
    assert len(fresh) == 10 and torch.equal(some.noise, wanted.noise) and torch.equal(some.target, wanted.target)
    run = run_in(tmp_path, fresh=True)
    used, known = [], run.source.noise
    run.source.noise = lambda seeds, fresh=0: used.extend(seeds) or known(seeds, fresh)
    made = run.train()
    training = [seed for seed in used if 1 < seed < 10_000]                    # 0 and 1: the test backward pass
    assert len(training) == len(set(training)) > 80 and made.training["pairs"] == 12 * 8


def test_fresh_noise_in_a_window_starts_on_the_teachers_own_images(tmp_path):
    source, made = toy_source(), None
    made = run_in(tmp_path, source=source, fresh=True, windows=(1.0, 0.5), calls=(3,)).train()
    top = next(table.sigmas[0] for name, table in made.tables.items() if "from" in name)
    whole, rest = (teacher_table(source, "auto", 20, level) for level in (None, float(top)))
    pairs = FreshPairs(source, range(4), rest, whole).part([2])
    image = make_pairs(source, [2], whole, "", quiet=True).target
    assert torch.equal(pairs.clean, image) and torch.equal(pairs.noise, known_pairs(source, [2], None, image).noise)


@pytest.mark.parametrize("changes, words", [
    ({"relaxed": 1.0, "mode": "forward"}, "--relaxed: only gradient mode can do that: use --mode gradient"),
    ({"fresh": True, "mode": "forward"}, "--fresh: only gradient mode"),
    ({"fresh": True, "relaxed": 1.0}, "--fresh has none"),
    ({"relaxed": -1.0}, "relaxed is -1"), ({"relaxed": math.inf}, "relaxed is inf"),
])
def test_settings_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        small(**changes)


@pytest.mark.parametrize("changes", [{"relaxed": 1.0}, {"fresh": True}])
def test_a_budget_pays_for_it(tmp_path, changes):
    run = run_in(tmp_path, budget=8000, iterations=0, **changes)
    run.train()
    assert 0.8 * 8000 < run.model_calls - run.facts["mode"]["calls"] <= 8000      # the check comes before the budget
