"""A budget holds, pays for learning, and survives an interruption bit for bit."""

import pytest

from s4s.training.budget import nodes_of, plan_for
from s4s.training.distil import distil, estimate
from s4s.training.sources import take_teacher
from tests.toy import small, toy_source


def budgeted(**changes):
    settings = dict(budget=6_000, iterations=0, pairs=256, validation=64, schedule="auto")
    return small(**{**settings, **changes})


@pytest.mark.parametrize("changes", [{}, {"calls": (3, 4)}, {"windows": (1.0, 0.5)}])
@pytest.mark.parametrize("flow", [False, True])
def test_the_budget_holds_and_pays(tmp_path, changes, flow):
    source, config = toy_source(flow), budgeted(**changes)
    made = distil(source, config, tmp_path)
    assert source.model_calls <= config.budget * len(made.tables) + source.chunk
    for name, (began, ended) in made.training["held_out_rmse"].items():
        assert ended < began, name


def test_a_budgeted_run_that_is_stopped_goes_on_bit_for_bit(tmp_path):
    whole = distil(toy_source(), budgeted(), tmp_path / "whole")

    class Enough(BaseException):
        pass
    for moment in (1_000, 2_500, 4_500):
        def stop(progress):
            if progress.done >= moment:
                raise Enough
        with pytest.raises(Enough):
            distil(toy_source(), budgeted(), tmp_path / str(moment), on_progress=stop)
        again = distil(toy_source(), budgeted(), tmp_path / str(moment), resume=True)
        assert again.short_hash == whole.short_hash


@pytest.mark.parametrize("budget", [500, 900, 1_000, 1_060, 1_080, 1_500])
@pytest.mark.parametrize("calls, teacher", [(3, "auto"), (4, "euler, sgm_uniform")])
def test_an_estimate_refuses_what_a_run_refuses_in_the_same_words_before_any_call(tmp_path, calls, teacher,
                                                                                   budget):
    """The teacher is off by much: a run that does not look ahead doubles its calls, and then lacks them."""
    config = budgeted(calls=(calls,), teacher_calls=2 * calls, teacher=teacher, budget=budget)
    seen = []
    for begin in (estimate, lambda source, config: distil(source, config, tmp_path)):
        source = toy_source()
        take_teacher(source, config)
        try:
            begin(source, config)
            seen.append("accepted")
        except ValueError as error:
            assert source.model_calls == 0
            seen.append(str(error))
    assert seen[0] == seen[1] and (seen[0] == "accepted" if budget == 1_500 else budget > 500 or "too small" in seen[0])


def test_more_budget_buys_more_pairs_up_to_those_asked_for():
    source = toy_source()
    few, more, all_of_them = (plan_for(nodes_of(budgeted(budget=budget))[0], source).data.pairs
                              for budget in (4_000, 8_000, 10 ** 6))
    assert few < more < all_of_them == 256


def test_tables_that_share_the_price_of_pairs_learn_from_more_of_them():
    source = toy_source()
    alone, shared = (plan_for(nodes_of(budgeted(calls=calls))[0], source).data.pairs for calls in ((4,), (3, 4)))
    assert shared > 1.7 * alone
