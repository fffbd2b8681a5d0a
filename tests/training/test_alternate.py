"""S4S-Alt: the schedule and the coefficients take turns, in every mode, and a stopped run goes on bit for bit."""

import pytest
import torch

from s4s.s4s_nodes.core import schedules
from s4s.training.distil import distil
from s4s.training.optimizers.gauss_newton import learn_forward
from s4s.training.optimizers.gradient import learn, turned
from s4s.training.optimizers.state import new_state
from s4s.training.parametrization.parameters import LATER, Parameters
from s4s.training.run import Stopped
from s4s.training.teacher.pairs import make_pairs
from s4s.training.teacher.solvers import teacher_table
from tests.toy import small, toy_source
from tests.training.test_run import interrupt_after, run_in

ALT = dict(learn="alternate", rounds=3)
BUDGETED = dict(mode="forward", budget=6_000, iterations=0, pairs=256, validation=64)


def prepared(learner, **changes):
    """The vectors after every iteration of an alternating run."""
    config, source = small(**{**ALT, **changes}), toy_source()
    parameters = Parameters(schedules.karras(4, 0.03, source.sigma_max), learn="alternate")
    table = teacher_table(source, config.teacher.solver, config.teacher.calls)
    pairs, held_out = (make_pairs(source, range(first, first + 16), table, "", quiet=True) for first in (0, 1000))
    state = new_state("gradient" if learner is learn else "forward", parameters)
    vectors = [state.vector]

    def kept(state, *rest):                                     # a forward-only iteration comes in several pieces
        if learner is learn or state.iteration == len(vectors):
            vectors.append(state.vector)
    learner(source, parameters, pairs, held_out, config, state, kept)
    return parameters, vectors, state


def parts_moved(parameters, before, after):
    schedule_part = parameters.at(0).moving().bool()
    return bool((before != after)[schedule_part].any()), bool((before != after)[~schedule_part].any())


@pytest.mark.parametrize("learner, iterations, turns", [(learn, 12, [0, 0, 1, 1] * 3), (learn_forward, 6, [0, 1] * 3),
                                                        (learn, 4, [0, 1] * 2)])
def test_in_each_turn_one_half_moves_and_the_other_rests(learner, iterations, turns):
    parameters, vectors, _ = prepared(learner, iterations=iterations)
    for turn, before, after in zip(turns, vectors, vectors[1:]):
        assert parts_moved(parameters, before, after) in ([(True, False), (False, True)][turn], (False, False))
    assert parts_moved(parameters, vectors[0], vectors[-1]) == (True, True)


def test_the_carry_of_generalized_rows_rests_until_all_else_has_moved():
    config, source = small(learn="generalized", iterations=6), toy_source()
    parameters = Parameters(schedules.karras(4, 0.03, source.sigma_max), learn="generalized")
    table = teacher_table(source, config.teacher.solver, config.teacher.calls)
    pairs, held_out = (make_pairs(source, range(first, first + 16), table, "", quiet=True) for first in (0, 1000))
    state, vectors = new_state("forward", parameters), [parameters.initial()]

    def kept(state, *rest):
        if not torch.equal(state.vector, vectors[-1]):
            vectors.append(state.vector)
    learn_forward(source, parameters, pairs, held_out, config, state, kept)
    vectors = vectors[1:]
    carries = [vector[-3:].abs().max() for vector in vectors]
    assert carries[LATER - 1] == 0 and (vectors[LATER - 1] != parameters.initial()).any() and carries[-1] > 0


def test_a_new_turn_forgets_the_moments_and_others_keep_them():
    parameters = Parameters(schedules.karras(4, 0.03, 14.6), learn="alternate")
    state, config = new_state("gradient", parameters), small(**ALT, iterations=12)
    state.moment1 = state.moment2 = torch.ones(len(state.vector))
    for iteration, kept in ((0, True), (1, True), (2, False), (3, True), (4, False)):
        state.iteration = iteration
        turned(parameters, state, config)
        assert bool(state.moment1.any()) == kept
        state.moment1 = state.moment2 = torch.ones(len(state.vector))


@pytest.mark.parametrize("settings", [{"iterations": 24}, {"mode": "forward", "iterations": 6}])
def test_alternating_learns_more_than_the_coefficients_alone(tmp_path, settings):
    errors = {}
    for words in ("alternate", "coefficients"):
        made = distil(toy_source(), small(**{**ALT, **settings, "learn": words}), tmp_path / words)
        began, errors[words] = made.training["held_out_rmse"]["calls4"]
        assert errors[words] < began
    assert errors["alternate"] < errors["coefficients"]


@pytest.mark.parametrize("settings, moments", [({}, (75, 110, 141)), ({"mode": "forward", "iterations": 6}, (75, 141)),
                                               (BUDGETED, (90,))])
def test_a_stopped_alternation_goes_on_bit_for_bit(tmp_path, settings, moments):
    whole = run_in(tmp_path / "whole", **ALT, **settings).train()
    for moment in moments:
        with pytest.raises(Stopped):
            run_in(tmp_path / str(moment), source=interrupt_after(moment), **ALT, **settings).train()
        resumed = run_in(tmp_path / str(moment), resume=True, **ALT, **settings).train()
        assert resumed.short_hash == whole.short_hash
