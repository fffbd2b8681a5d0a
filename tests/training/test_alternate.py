"""S4S-Alt: the schedule and the coefficients take turns, and a stopped run goes on bit for bit."""

import pytest
import torch

from s4s.s4s_nodes.core import schedules
from s4s.training.distil import distil
from s4s.training.optimizers.gauss_newton import learn
from s4s.training.optimizers.state import State
from s4s.training.parametrization.parameters import LATER, Parameters
from s4s.training.run import Stopped
from s4s.training.teacher.pairs import make_pairs
from s4s.training.teacher.solvers import teacher_table
from tests.toy import small, toy_source
from tests.training.test_run import interrupt_after, run_in

ALT = dict(learn="alternate")
BUDGETED = dict(budget=6_000, iterations=0, pairs=256, validation=64)


def prepared(**changes):
    """The vectors after every iteration of an alternating run."""
    config, source = small(**{**ALT, **changes}), toy_source()
    parameters = Parameters(schedules.karras(4, 0.03, source.sigma_max), learn="alternate")
    table = teacher_table(source, config.teacher.solver, config.teacher.calls)
    pairs, held_out = (make_pairs(source, range(first, first + 16), table, "", quiet=True) for first in (0, 1000))
    state = State(parameters.initial(), parameters.initial())
    vectors = [state.vector]

    def kept(state, *rest):                                     # an iteration comes in several pieces
        if state.iteration == len(vectors):
            vectors.append(state.vector)
    learn(source, parameters, pairs, held_out, config, state, kept)
    return parameters, vectors, state


def parts_moved(parameters, before, after):
    schedule_part = parameters.at(0).moving().bool()
    return bool((before != after)[schedule_part].any()), bool((before != after)[~schedule_part].any())


def test_in_each_turn_one_half_moves_and_the_other_rests():
    parameters, vectors, _ = prepared(iterations=6)
    turns = [0, 1] * 3
    for turn, before, after in zip(turns, vectors, vectors[1:]):
        assert parts_moved(parameters, before, after) in ([(True, False), (False, True)][turn], (False, False))
    assert parts_moved(parameters, vectors[0], vectors[-1]) == (True, True)


def test_the_carry_of_generalized_rows_rests_until_all_else_has_moved():
    config, source = small(learn="generalized", iterations=6), toy_source()
    parameters = Parameters(schedules.karras(4, 0.03, source.sigma_max), learn="generalized")
    table = teacher_table(source, config.teacher.solver, config.teacher.calls)
    pairs, held_out = (make_pairs(source, range(first, first + 16), table, "", quiet=True) for first in (0, 1000))
    state, vectors = State(parameters.initial(), parameters.initial()), [parameters.initial()]

    def kept(state, *rest):
        if not torch.equal(state.vector, vectors[-1]):
            vectors.append(state.vector)
    learn(source, parameters, pairs, held_out, config, state, kept)
    vectors = vectors[1:]
    carries = [vector[-3:].abs().max() for vector in vectors]
    assert carries[LATER - 1] == 0 and (vectors[LATER - 1] != parameters.initial()).any() and carries[-1] > 0


def test_alternating_learns_more_than_the_coefficients_alone(tmp_path):
    errors = {}
    for words in ("alternate", "coefficients"):
        made = distil(toy_source(), small(learn=words, iterations=6), tmp_path / words)
        began, errors[words] = made.training["held_out_rmse"]["calls4"]
        assert errors[words] < began
    assert errors["alternate"] < errors["coefficients"]


@pytest.mark.parametrize("settings, moments", [({"iterations": 6}, (75, 141)), (BUDGETED, (90,))])
def test_a_stopped_alternation_goes_on_bit_for_bit(tmp_path, settings, moments):
    whole = run_in(tmp_path / "whole", **ALT, **settings).train()
    for moment in moments:
        with pytest.raises(Stopped):
            run_in(tmp_path / str(moment), source=interrupt_after(moment), **ALT, **settings).train()
        resumed = run_in(tmp_path / str(moment), resume=True, **ALT, **settings).train()
        assert resumed.short_hash == whole.short_hash
