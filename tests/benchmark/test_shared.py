"""Many tables that run together end where each ends alone, for fewer network calls."""

from dataclasses import replace

import pytest
import torch

from s4s.s4s_nodes.core.classical import SOLVERS
from s4s.training.baselines.halving import EFFORTS, Entrants, search_cost, searched
from s4s.training.baselines.measure import STARTS, baselines, measured, shared_calls, shared_ends
from s4s.training.baselines.schedules import schedules_for
from s4s.training.teacher.pairs import ends, make_pairs
from s4s.training.teacher.solvers import AUTO, teacher_table
from tests.toy import toy_source


@pytest.fixture(params=[False, True], ids=["eps", "flow"])
def source(request):
    return toy_source(request.param)


def pairs_of(source, count):
    return make_pairs(source, range(count), teacher_table(source, AUTO, 20), "", quiet=True)


@pytest.mark.parametrize("chunk", [7, 64])
def test_each_ends_where_it_ends_alone(source, chunk):
    source.chunk = chunk
    pairs, some = pairs_of(source, 3), {(name, levels) for name in SOLVERS for levels in ("beta", "simple")}
    tables, before = [entry.table for entry in baselines(source, 5, some)], source.model_calls
    together = {id(table): end for table, end in shared_ends(source, tables, pairs)}
    assert source.model_calls - before == 3 * shared_calls(tables) < 0.6 * 3 * sum(table.calls for table in tables)
    assert len(tables) > 40 and len(together) == len(tables)
    for table in tables:
        torch.testing.assert_close(together[id(table)], ends(source, table, pairs), rtol=1e-6, atol=1e-6)


def test_tables_without_a_common_call_cost_what_they_cost_alone(source):
    first, second = (entry.table for entry in baselines(source, 4, {("euler", "beta"), ("heun", "beta")}))
    assert shared_calls([first, first]) == first.calls
    other = replace(second, query=second.query * 0.99)
    assert shared_calls([first, other]) == first.calls + other.calls
    pairs = pairs_of(source, 70)                                        # more than run at once
    alone = [torch.cat([end for which, end in shared_ends(source, [first, other], pairs) if which is table])
             for table in (first, other)]
    torch.testing.assert_close(alone[0], ends(source, first, pairs))
    torch.testing.assert_close(alone[1], ends(source, other, pairs))


def test_what_an_entry_has_run_it_does_not_run_again(source):
    pairs = pairs_of(source, 9)
    entries = baselines(source, 4, {(name, "beta") for name in ("euler", "heun", *STARTS[6:10])})
    some = [*measured(source, entries[:3], pairs.part(slice(0, 4))), *entries[3:]]
    before = source.model_calls
    done = measured(source, some, pairs)
    calls = source.model_calls - before
    assert calls == 5 * shared_calls(e.table for e in entries[:3]) + 9 * shared_calls(e.table for e in entries[3:])
    for entry, other in zip(done, entries):
        assert entry.errors == pytest.approx(measured(source, [other], pairs)[0].errors, rel=1e-5)
    before = source.model_calls
    assert measured(source, done, pairs)[0].errors is done[0].errors and source.model_calls == before


@pytest.mark.parametrize("calls", [4, 7])
def test_no_search_costs_more_than_it_says(source, calls):
    pairs, entries = pairs_of(source, 10), baselines(source, calls)
    source.features = lambda images: images
    for effort, features in ((EFFORTS[0], False), (EFFORTS[-1], True)):
        before = source.model_calls
        searched(source, entries, pairs, effort, [entries[-1].name], features)
        most = search_cost(effort, Entrants(calls, len(schedules_for(source)), source.flow), 10, features)
        assert 0.3 * most < source.model_calls - before <= most
