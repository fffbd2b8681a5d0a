"""Several sizes as one source: each image's own result and RMSE, one table for all, bit for bit after a stop."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import Model, mixture, preset_file, schedules
from s4s.training.benchmark.host_race import RaceProgress, Terms, hold_race, sheet_rows
from s4s.training.distil import identity
from s4s.training.progress import RunProgress
from s4s.training.run import Run, Stopped
from s4s.training.sizes import of_sizes, pack, unpack
from s4s.training.source import NaNFromModel, Source
from s4s.training.teacher.pairs import ends, errors, make_pairs, of_one_size
from s4s.training.teacher.solvers import AUTO, teacher_table
from tests.toy import small

SHAPES = (2, 3, 4), (2, 2, 2)


def answer(x, sigma, label):
    """The mixture's answer at every pixel, a little different at every size."""
    n, channels, height, width = x.shape
    pixels = x.movedim(1, -1).reshape(-1, channels)
    there = mixture(pixels, sigma.repeat_interleave(height * width)).reshape(n, height, width, channels).movedim(-1, 1)
    return there * (1 + 0.02 * width) + 0.05 * label.reshape(-1, 1, 1, 1)


def part(shape, network=answer):
    levels = schedules.sd_levels()
    model = Model("toy", "eps", float(levels[0]), float(levels[-1]))
    return Source("toy", model, levels, shape, network, lambda seeds: {"label": torch.tensor([s % 2 for s in seeds])},
                  1.0, torch.device("cpu"))


def both(network=answer, shapes=SHAPES):
    return of_sizes([part(shape, network) for shape in shapes], 2)


def size_of(seed, source=None):
    return int((source or both()).extra([seed])["size"][0])


def run_in(folder, resume=False, source=None, **changes):
    return Run(small(**{"pairs": 16, **changes}), folder, resume, source or both(), RunProgress(quiet=True))


def test_every_image_ends_where_its_own_size_alone_ends_at_the_same_rmse():
    source, seeds = both(), range(8)
    teacher, table = (teacher_table(source, AUTO, calls) for calls in (12, 4))
    pairs = make_pairs(source, seeds, teacher, "", True)
    off = errors(ends(source, table, pairs), pairs.target)
    for number, shape in enumerate(SHAPES):
        mine = [seed for seed in seeds if size_of(seed) == number]
        alone = part(shape)
        its = make_pairs(alone, mine, teacher, "", True)
        places = [list(seeds).index(seed) for seed in mine]
        torch.testing.assert_close(unpack(pairs.target[places], shape), its.target)
        np.testing.assert_allclose(off[places], errors(ends(alone, table, its), its.target), rtol=1e-4)
    assert source.model_calls == 8 * (12 + 4)


def test_a_vector_keeps_its_image_and_the_mean_of_its_squares():
    images = torch.randn(3, 2, 2, 2)
    vectors = pack(images, 24)
    assert vectors.shape == (3, 24) and not vectors[:, 8:].any()
    torch.testing.assert_close(unpack(vectors, (2, 2, 2)), images)
    torch.testing.assert_close(vectors.square().mean(1), images.flatten(1).square().mean(1))


@pytest.mark.parametrize("sizes", [2, 3])
@pytest.mark.parametrize("prompts", [1, 2, 3, 4])
def test_every_prompt_meets_every_size_and_the_sizes_take_turns(sizes, prompts):
    source = of_sizes([part((2, 2, 2 + wide)) for wide in range(sizes)], prompts)
    turns = [size_of(seed, source) for seed in range(10_000_000, 10_000_000 + sizes * prompts)]
    assert len({(seed % prompts, size) for seed, size in enumerate(turns, 10_000_000)}) == sizes * prompts
    assert all(turns.count(size) == prompts for size in range(sizes))
    assert all(len(set(turns[i:i + 3])) > 1 for i in range(len(turns) - 2))


def test_one_table_is_learned_for_both_sizes_and_the_preset_says_which(tmp_path):
    run = run_in(tmp_path, budget=4000, iterations=0)
    preset = run.train()
    began, ended = preset.training["held_out_rmse"]["calls4"]
    assert ended < 0.95 * began and preset_file.load(run.preset_path).training["resolution"] == [[3, 4], [2, 2]]
    held_out = run._window.held_out
    off = errors(ends(run.source, preset.tables["calls4"], held_out), held_out.target)
    start = run.tables.parameters("calls4").frozen(run.tables.parameters("calls4").initial())
    before = errors(ends(run.source, start, held_out), held_out.target)
    sizes = held_out.extra["size"].numpy()
    assert all(off[sizes == number].mean() < before[sizes == number].mean() for number in (0, 1))


def test_a_stopped_training_of_two_sizes_resumes_to_the_same_bits(tmp_path):
    changes = {"windows": (1, 0.6), "iterations": 3, "pairs": 8, "validation": 8}
    whole, calls = run_in(tmp_path / "whole", **changes).train(), []

    def stopping(x, sigma, label):
        calls.append(1)
        if len(calls) == 450:
            raise KeyboardInterrupt
        return answer(x, sigma, label)
    with pytest.raises(Stopped):
        run_in(tmp_path / "parts", source=both(stopping), **changes).train()
    assert run_in(tmp_path / "parts", resume=True, **changes).train().short_hash == whole.short_hash


def test_a_run_of_other_sizes_is_not_resumed(tmp_path):
    run_in(tmp_path)
    with pytest.raises(ValueError, match="another model or of other conditions"):
        run_in(tmp_path, resume=True, source=both(shapes=((2, 3, 4), (2, 3, 2))))
    assert identity(part(SHAPES[0]), small()) == identity(both(shapes=SHAPES[:1]), small())


def test_one_size_given_twice_is_the_plain_source_and_the_largest_comes_first():
    assert type(both(shapes=(SHAPES[1], SHAPES[1]))) is Source
    source = both(shapes=SHAPES[::-1])
    assert source.shapes == list(SHAPES) and source.shape == (24,) and source.size == [[3, 4], [2, 2]]
    assert part(SHAPES[0]).size == [3, 4]


def test_pictures_side_by_side_are_of_one_size(tmp_path):
    shown, run = [], run_in(tmp_path)
    run.progress.on_progress = lambda now: None if now.preview is None or shown else shown.extend(now.preview())
    preset = run.train()
    assert [tuple(images.shape[1:]) for images in shown] == [SHAPES[size_of(10_000_000)]] * 2
    source = both()
    with torch.no_grad():
        held = hold_race(source, preset, Terms(("calls4",), range(3), 3000, 12), RaceProgress())
        rows = sheet_rows(source, held)
    assert {tuple(states.shape[1:]) for _, _, states in rows} == {SHAPES[size_of(20_000_000)]}
    (condition, score), = held.preset.scores["calls4"].items()
    assert score["size"] == [[3, 4], [2, 2]] and "3 x 4 and 2 x 2" in condition
    pairs = make_pairs(source, range(8), preset.tables["calls4"], "", True)
    assert len(of_one_size(pairs, 3)) == 3 and len(of_one_size(pairs, 9)) == 4


def test_nan_at_one_size_is_refused_in_words(tmp_path):
    def broken(x, sigma, label):
        return answer(x, sigma, label) * (float("nan") if x.shape[-1] == 2 else 1)
    with pytest.raises(NaNFromModel, match="toy answered NaN"):
        run_in(tmp_path, source=both(broken)).train()


def test_memory_that_runs_out_halves_what_is_asked_at_once():
    def tight(x, sigma, label):
        if len(x) > 2:
            raise RuntimeError("out of memory")
        return answer(x, sigma, label)
    source = replace(both(tight), chunk=16)
    wide = both()
    x, extra = source.noise(range(12)), source.extra(range(12))
    sigma = torch.full((12,), 2.0)
    torch.testing.assert_close(source.denoiser(x, sigma, **extra), wide.denoiser(x, sigma, **extra))
    assert source.chunk < 16
