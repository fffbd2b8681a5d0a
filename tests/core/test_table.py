"""The table: what it refuses, what it freezes, and the constant law."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from s4s.s4s_nodes.core import MAX_CALLS, Table, classical, constant_law_error, end_response, sample
from s4s.s4s_nodes.core.table import LAW_TOLERANCE


def parts(**changed) -> dict:
    """Three calls that obey the law: every row but the last is free, the last forgets x and sums to 1."""
    good = {"sigmas": [3.0, 2.0, 1.0, 0.0], "query": [3.0, 2.1, 0.9], "scale": [1.0, 0.9, 1.1],
            "carry": [0.6, 0.4, 0.0], "weights": [[0.3, 0.0, 0.0], [0.5, 0.2, 0.0], [-0.5, 0.0, 1.5]]}
    return {**good, **changed}


def with_entry(name: str, index, value) -> np.ndarray:
    array = np.array(parts()[name])
    array[index] = value
    return array


def idle(calls: int) -> dict:
    """So many calls that each return the newest prediction."""
    return {"sigmas": np.linspace(1, 0, calls + 1), "query": np.ones(calls), "scale": np.ones(calls),
            "carry": np.zeros(calls), "weights": np.eye(calls)}


REFUSED = {
    "one level": (idle(0), r"shape \(1,\).*N \+ 1 levels"),
    "levels in a square": (parts(sigmas=np.ones((2, 2))), r"shape \(2, 2\).*one dimension"),
    "one number as sigmas": (parts(sigmas=3.0), "one dimension"),
    "more calls than a table holds": (idle(MAX_CALLS + 1), "1001 calls asked for.*at most 1000"),
    "a short query": (parts(query=[3.0, 2.0]), r"query has shape \(2,\).*3 calls and shape \(3,\)"),
    "a long scale": (parts(scale=np.ones(4)), r"scale has shape \(4,\)"),
    "a carry in two dimensions": (parts(carry=np.zeros((3, 1))), r"carry has shape \(3, 1\)"),
    "weights of another count": (parts(weights=np.eye(4)), r"weights has shape \(4, 4\).*\(3, 3\)"),
    "ragged weights": (parts(weights=[[1.0], [0.5, 0.5], [0.1, 0.2, 0.7]]), "weights must be an array"),
    "NaN": (parts(carry=[0.6, float("nan"), 0.0]), "carry holds NaN or infinity"),
    "infinity": (parts(weights=with_entry("weights", (2, 0), np.inf)), "weights holds NaN or infinity"),
    "nothing": (parts(query=None), "query must be an array of real numbers"),
    "texts": (parts(query=["3", "2", "1"]), "query must be an array of real numbers"),
    "complex numbers": (parts(query=np.array([3 + 1j, 2, 1])), "query must be an array of real numbers"),
    "an integer no float holds": (parts(query=[10 ** 400, 2, 1]), "query must be an array of real numbers"),
    "a tensor with gradient": (parts(carry=torch.zeros(3, requires_grad=True)), "carry must be.*detach"),
    "rising levels": (parts(sigmas=[3.0, 1.0, 2.0, 0.0]), "rise from 1 to 2 at index 2"),
    "zero in the middle": (parts(sigmas=[3.0, 2.0, 0.0, 0.0]), "only the last level may be 0"),
    "a negative end": (parts(sigmas=[3.0, 2.0, 1.0, -1.0]), "end in 1, -1"),
    "negative levels": (parts(sigmas=[3.0, -1.0, -2.0, -3.0]), "only the last level may be 0"),
    "a row that sees the future": (parts(weights=with_entry("weights", (0, 1), 0.1)), "0 has 1 prediction,"),
    "a later such row": (parts(weights=with_entry("weights", (1, 2), 0.1)), "1 has 2 predictions,"),
    "a query of zero": (parts(query=[3.0, 0.0, 1.0]), r"query\[1\] is 0: it must be above 0"),
    "a negative scale": (parts(scale=[1.0, 1.0, -1.0]), r"scale\[2\] is -1"),
    "weights that do not sum to one": (parts(weights=with_entry("weights", (2, 2), 1.4)), "law by 0.1"),
    "a last row that keeps x": (parts(carry=[0.6, 0.4, 0.1]), "breaks the constant law"),
    "numbers that overflow on the way": (parts(carry=[1e200, 1e200, 0.0]), "constant law by nan"),
    "weights that overflow on the way": (parts(weights=with_entry("weights", (1, slice(0, 2)), 1e308)),
                                         "constant law by nan"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_is_refused_with_the_reason(case):
    content, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        Table(**content)


def test_a_table_may_say_that_it_breaks_the_law():
    broken = parts(weights=with_entry("weights", (2, 2), 1.4))
    table = Table(**broken, keeps_constants=False)
    assert constant_law_error(table) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="keeps_constants=False"):
        Table(**broken)


def test_the_law_allows_rounding_and_no_more():
    last = 1.5 + np.array([0.5, 2.0]) * LAW_TOLERANCE
    Table(**parts(weights=with_entry("weights", (2, 2), last[0])))
    with pytest.raises(ValueError, match="breaks the constant law by 2e-08"):
        Table(**parts(weights=with_entry("weights", (2, 2), last[1])))


def test_the_largest_table_is_accepted():
    assert Table(**idle(MAX_CALLS)).calls == MAX_CALLS


def test_the_arrays_are_frozen_and_the_callers_are_not():
    mine = {name: np.array(value) for name, value in parts().items()}
    table = Table(**mine)
    with pytest.raises(ValueError, match="read-only"):
        table.weights[2, 0] = 7
    with pytest.raises(AttributeError):
        table.carry = np.zeros(3)
    mine["weights"][2, 0] = 7
    assert table.weights[2, 0] == -0.5
    assert all(getattr(table, name).dtype == np.float64 for name in mine)


def test_rows_hold_floats_without_the_zero_weights_and_say_what_can_go():
    rows = Table(**parts()).rows
    assert [row.terms for row in rows] == [((0, 0.3),), ((1, 0.2), (0, 0.5)), ((2, 1.5), (0, -0.5))]
    assert [row.done for row in rows] == [(), (1,), (0, 2)]             # D[1] has no use after its own row
    assert [(row.sigma, row.query, row.scale, row.carry) for row in rows] == [
        (3.0, 3.0, 1.0, 0.6), (2.0, 2.1, 0.9, 0.4), (1.0, 0.9, 1.1, 0.0)]
    assert all(type(number) is float for row in rows for number in row[:4])


def test_every_prediction_is_done_exactly_once():
    for name, solver in classical.SOLVERS.items():
        rows = solver(np.geomspace(10, 0.1, 7)).rows
        assert sorted(call for row in rows for call in row.done) == list(range(len(rows))), name


def test_same_as_compares_every_number():
    assert Table(**parts()).same_as(Table(**parts()))
    assert not Table(**parts()).same_as(Table(**parts(query=[3.0, 2.1, np.nextafter(0.9, 1)])))
    assert not Table(**parts()).same_as(Table(**parts(), keeps_constants=False))


# --- the constant law ---------------------------------------------------------------------------------------

@st.composite
def levels(draw, top: float):
    """2 to 7 levels that fall from at most `top`, neighbours at least 10 % apart, to 0 or above."""
    ratios = draw(st.lists(st.floats(0.1, 0.9), min_size=1, max_size=5))
    first = draw(st.floats(0.2, 1.0)) * top
    falling = first * np.cumprod([1.0, *ratios])
    return np.append(falling, 0.0) if draw(st.booleans()) else falling


@given(sigmas=levels(top=80.0), name=st.sampled_from(sorted(classical.SOLVERS)))
def test_classical_solvers_obey_the_law_of_exploding_variance(sigmas, name):
    first, total = end_response(classical.SOLVERS[name](sigmas))
    kept = sigmas[-1] / sigmas[0]
    assert (first, total) == pytest.approx((kept, 1 - kept), abs=1e-9)      # x = z + sigma n at the end level


@given(sigmas=levels(top=1.0), name=st.sampled_from(sorted(classical.SOLVERS)))
def test_classical_solvers_obey_the_law_of_rectified_flow(sigmas, name):
    first, total = end_response(classical.SOLVERS[name](sigmas, flow=True))
    kept = sigmas[-1] / sigmas[0]
    wanted = (1 - sigmas[-1]) - (1 - sigmas[0]) * kept                  # x = (1 - s) z + s n at the end level
    assert (first, total) == pytest.approx((kept, wanted), abs=1e-9)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("end", [0.0, 0.1])
def test_a_constant_denoiser_ends_in_its_picture(flow, end, noise):
    sigmas = np.append(np.geomspace(0.95, 0.2, 5), end)
    picture = torch.tensor([0.3, -2.0], dtype=torch.float64).expand_as(noise)

    def at(s):
        return ((1 - s) if flow else 1.0) * picture + s * noise
    for name, solver in classical.SOLVERS.items():
        got = sample(lambda x, sigma: picture, at(sigmas[0]), solver(sigmas, flow=flow))
        torch.testing.assert_close(got, at(end), rtol=0, atol=1e-10, msg=name)


@given(free=st.tuples(*[st.floats(-2, 2)] * 5), carry=st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
def test_rows_between_are_free_as_long_as_the_end_obeys(free, carry):
    a, b, c, d, e = free
    table = partial(parts, carry=[*carry, 0.0])
    Table(**table(weights=[[a, 0, 0], [b, c, 0], [d, e, 1 - d - e]]))
    with pytest.raises(ValueError, match="constant law"):
        Table(**table(weights=[[a, 0, 0], [b, c, 0], [d, e, 1.001 - d - e]]))


def test_a_window_that_ends_above_zero_may_keep_part_of_x():
    Table([2.0, 1.0], [2.0], [1.0], [0.5], [[0.5]])                    # z + 1 n, exploding
    Table([0.8, 0.4], [0.8], [1.0], [0.5], [[0.5]])               # (1 - 0.4) z + 0.4 n, flow: the same Euler
    with pytest.raises(ValueError, match="constant law by 0.5"):
        Table([2.0, 1.0], [2.0], [1.0], [0.0], [[1.0]])                # no noise left, yet the level says 1
