"""The RES family against RES4LYF's own coefficients, number for number (res4lyf_numbers.py makes the golden ones)."""

from functools import partial

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import classical, mixture, sample, schedules
from tests.core.res4lyf_numbers import GRIDS, NAMES, START

GOLDEN = {      # name and levels -> the three ends
    "res_2s sd": [
        [0.44791203073717634, -1.0827173704891495], [-0.4214292302039987, 0.6742977540420606],
        [1.3324041196971497, 0.7046569332855893]],
    "res_2s flow": [
        [0.4338067393635121, -1.0123973163609457], [-0.3884976342897521, 0.6279492978143411],
        [1.2642540999376775, 0.6694769407297416]],
    "res_3s sd": [
        [0.45430876186525243, -1.083770467737075], [-0.4219718552903871, 0.6715120083508402],
        [1.3400662927734313, 0.7095136688792435]],
    "res_3s flow": [
        [0.4366940879846361, -1.0139759751356614], [-0.39006788078254323, 0.6278629235999443],
        [1.2682530499950537, 0.6720481287895047]],
    "res_2m sd": [
        [0.44512567184869434, -1.131181093383927], [-0.39520488458364683, 0.6805245603530927],
        [1.3784720197130849, 0.7216384289302098]],
    "res_2m flow": [
        [0.42203077196654737, -1.1067481987184782], [-0.4167309275333402, 0.680503945848624],
        [1.3241820607557346, 0.6959626519520995]],
    "res_3m sd": [
        [0.4600310851012291, -1.1235313744313555], [-0.378440674741188, 0.6654931328690264],
        [1.3913804109799668, 0.7307962329382757]],
    "res_3m flow": [
        [0.4362060139092481, -1.1209118769575717], [-0.40324652140018225, 0.6747439766497301],
        [1.3556519316072655, 0.7128234781395947]],
}
BONG_TANGENT = {
    2: [1.0, 0.5, 0.0],
    6: [1.0, 0.9289701, 0.7976859, 0.5, 0.1856007, 0.0568022, 0.0],
    11: [1.0, 0.9770013, 0.9455594, 0.9002703, 0.8304001, 0.7129003, 0.5, 0.2804908, 0.1464647, 0.0724956, 0.0285106,
        0.0],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", GRIDS)
def test_the_table_does_what_res4lyf_does(name, grid):
    flow, levels = GRIDS[grid]
    x = torch.tensor(START, dtype=torch.float64) * levels[0]
    end = sample(partial(mixture, flow=flow), x, classical.SOLVERS[name](levels, flow=flow))
    torch.testing.assert_close(end, torch.tensor(GOLDEN[f"{name} {grid}"], dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_multistep_solver_of_res4lyf_begins_with_single_steps_and_returns_to_them_where_a_step_is_long():
    fine, coarse = np.geomspace(10, 1, 12), np.geomspace(10, 0.2, 4)
    assert classical.SOLVERS["res_2m"](fine).calls == 2 + 2 + 9
    assert classical.SOLVERS["res_2m"](coarse).calls == 2 * 3
    assert classical.SOLVERS["res_2m"](np.geomspace(0.09, 0.001, 4)).calls == 3              # Euler's, below 0.1


@pytest.mark.parametrize("calls", BONG_TANGENT)
def test_bong_tangent_is_the_schedule_of_res4lyf(calls):
    np.testing.assert_allclose(schedules.bong_tangent(calls), BONG_TANGENT[calls], rtol=0, atol=1e-6)   # it is float32
