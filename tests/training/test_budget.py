"""A budget holds, pays for learning, and survives an interruption bit for bit."""

import pytest
import torch

from s4s.s4s_nodes.core import schedules
from s4s.training.budget import plan_for
from s4s.training.distil import distil, estimate
from s4s.training.optimizers.gauss_newton import LONGEST, damped
from s4s.training.optimizers.jacobian import SKETCHED, measured, sketch
from s4s.training.parametrization.parameters import Parameters
from s4s.training.teacher.pairs import make_pairs
from s4s.training.teacher.solvers import teacher_table
from tests.toy import small, toy_source


def budgeted(**changes):
    settings = dict(mode="forward", budget=6_000, iterations=0, pairs=256, validation=64, schedule="auto")
    return small(**{**settings, **changes})


@pytest.mark.parametrize("changes", [{}, {"calls": (3, 4)}, {"windows": (1.0, 0.5)}, {"mode": "auto"},
                                     {"mode": "gradient"}])
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


@pytest.mark.parametrize("budget", [500, 900, 1_000, 1_100, 1_400])
@pytest.mark.parametrize("mode", ["gradient", "forward"])
def test_an_estimate_refuses_what_a_run_refuses_in_the_same_words_before_any_call(tmp_path, mode, budget):
    """The teacher is off by much: a run that does not look ahead doubles its calls, and then lacks them."""
    config, seen = budgeted(mode=mode, calls=(3,), teacher_calls=6, budget=budget), []
    for begin in (estimate, lambda source, config: distil(source, config, tmp_path)):
        source = toy_source()
        try:
            begin(source, config)
            seen.append("accepted")
        except ValueError as error:
            assert source.model_calls == 0
            seen.append(str(error))
    assert seen[0] == seen[1] and ("too small" in seen[0]) == (budget == 500)


def test_more_budget_buys_more_pairs_up_to_those_asked_for():
    source = toy_source()
    few, more, all_of_them = (plan_for(budgeted(budget=budget), source, "forward").data.pairs
                              for budget in (4_000, 8_000, 10 ** 6))
    assert few < more < all_of_them == 256


def test_a_sketch_keeps_squares_and_inner_products_within_its_size():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 6, 200_000, generator=generator)
    kept = sketch(one)
    assert kept.shape == (6, SKETCHED)
    torch.testing.assert_close(kept.square().mean(1), one.square().mean(1), rtol=0.1, atol=0)   # deviation 2 %
    products = (sketch(one) * sketch(other)).mean(1) - (one * other).mean(1)
    assert products.abs().max() < 0.08                                                          # deviation 1.6 %
    assert torch.equal(sketch(one[:, :100]), one[:, :100])


def test_a_measured_jacobian_predicts_small_moves_and_a_damped_step_lowers_the_linear_model():
    source = toy_source()
    parameters = Parameters(schedules.karras(4, 0.03, source.sigma_max))
    pairs = make_pairs(source, range(16), teacher_table(source, "auto", 40), "", quiet=True)
    vector = parameters.initial()
    with torch.no_grad():
        miss, jacobian = measured(source, parameters, vector, pairs)
        move = 0.01 * torch.randn(len(vector), generator=torch.Generator().manual_seed(1))
        move[3] = -abs(move[3])                                     # the first query stands at the model's top
        there, _ = measured(source, parameters, vector + move.double(), pairs)
    predicted = torch.einsum("nkd,k->nd", jacobian, move)
    assert (there - miss - predicted).norm() < 0.1 * (there - miss).norm()
    moving, errors = parameters.moving().bool(), {}
    for damping in (1e-3, 3.0):
        step = damped(jacobian, miss, moving, damping).float()
        assert step.abs().max() < LONGEST + 1e-6                    # none goes beyond what the Jacobian knows
        after = miss + torch.einsum("nkd,k->nd", jacobian, step)
        errors[damping] = float(after.square().mean(1).sqrt().mean() / miss.square().mean(1).sqrt().mean())
    assert errors[1e-3] < 1 and errors[3.0] < 0.8                  # the first is shortened, the second whole
