"""The trainer's narrow door: a host hands over a denoiser and gets a preset.

    source = Source(name, model, levels, shape, network, conditions, cfg, device,
                    differentiable=False, teacher=None, chunk=8)        # see denoisers.Source
    config = Config(name="my-preset", calls=(5, 6, 8), windows=(1.0, 0.5), budget=HOST_BUDGET, mode="auto")
    found = estimate(source, config)                                    # print(found.words)
    preset = distil(source, config, folder, estimated=found,            # gradients are not checked twice
                    on_progress=show, say=log)                          # show(Progress); resume=True goes on
    raced = race(source, preset, "calls6", unseen_pairs(source, 16))    # Raced: scores, learned, ranked, verdict
    preset = with_scores(preset, {"calls6": raced.scores})              # marks it where a classical pair won

Whatever the network, on_progress or say raises, a host's own interruption too (BaseException), passes on
unchanged, after the run is saved and the best tables so far are written to folder/NAME.safetensors.
Nothing here prints, needs click or matplotlib, or touches the host's global state.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..s4s_nodes.core import Preset
from . import memory
from .benchmark.race import Raced, race, unseen_pairs, with_scores
from .budget import forecast, planned
from .checks import check
from .config import Config
from .modes import Way, settled_mode
from .parametrization.parameters import Parameters
from .progress import Progress
from .run import Run
from .source import Source

HOST_BUDGET = 10_000        # network calls per table: one to two hours at half a second a call

__all__ = ["Config", "Estimate", "Progress", "Raced", "Source", "distil", "estimate", "race", "unseen_pairs",
           "with_scores", "HOST_BUDGET"]
_log = logging.getLogger(__name__)


def distil(source: Source, config: Config, folder, *, resume: bool = False,
           on_progress: Callable[[Progress], None] | None = None, say: Callable[[str], None] | None = None,
           estimated: Estimate | None = None) -> Preset:
    """Learn config's tables for the source and return the preset, also written to folder/NAME.safetensors.

    config.model and config.cfg are taken from the source. resume: go on with the run in the folder, exactly where
    it stopped, or begin where there is none. say(text) gets what a person should read; default: logging.
    estimated: of this source and config; what it found out of gradients holds, and is counted as the run's own calls.
    Raises ValueError in words for settings that cannot work, a folder with another run, a budget that is too small,
    a stochastic teacher, a network that answers NaN.
    """
    config = replace(config, model=source.name, cfg=source.cfgs or source.cfg)
    with torch.inference_mode(False), torch.no_grad():          # hosts run nodes under inference mode
        return Run(config, Path(folder), resume, quiet=False, source=source, on_progress=on_progress,
                   say=say or _log.info, way=estimated and estimated.way).carry_out()


@dataclass(frozen=True)
class Estimate:
    """What a run will cost, all tables together; memory in bytes on top of what is held now, for `images` at once."""

    rows: int
    free: int
    calls: int
    seconds: float
    memory: int
    images: int
    way: Way

    @property
    def mode(self) -> str:
        return self.way.mode

    @property
    def words(self) -> str:
        """One line for people."""
        return (f"{self.rows} rows, {self.free} free numbers, {self.calls:,} network calls, about "
                f"{_duration(self.seconds)} and {memory.words(self.memory)} on top of the model with {self.images} "
                f"image{'s' if self.images > 1 else ''} at once; {self.mode} mode: {self.way.why}")


def estimate(source: Source, config: Config) -> Estimate:
    """What `distil` will cost, from a few network calls (uncounted), timed and weighed. Raises ValueError as `distil`
    does."""
    config = replace(config, model=source.name, cfg=source.cfgs or source.cfg)
    with torch.inference_mode(False), torch.no_grad():
        tried = replace(source, on_model_calls=None)
        check(config, tried)
        way = settled_mode(tried, config)
        plan = planned(config, tried, way.mode)
        sizes = [Parameters.of(plan, source, torch.linspace(1, 0, calls + 1).numpy()) for calls in plan.calls]
        calls, windows = forecast(plan, tried), len(plan.windows)
        once = _seconds(tried, False)
        seconds, weight, images = calls * once, memory.of_a_call(tried), tried.chunk
        if way.mode == "gradient":                                  # its second runs are among the calls already
            behind = sum(plan.iterations * plan.batch * each for each in plan.calls) * windows
            seconds += behind * max(0.0, _seconds(tried, True) - 2 * once)
            weight, images = memory.of_a_call(tried, backward=True), min(plan.batch, tried.chunk)
    return Estimate(sum(plan.calls) * windows, windows * sum(int(size.moving().sum()) for size in sizes), calls,
                    seconds, weight * images, images, way)


def _seconds(source: Source, backward: bool) -> float:
    """Of one image through the network, and back if wanted, after a first call to warm up."""
    shown = memory.first_call(source, min(4, source.chunk))
    memory.call(source, shown, backward)
    began = time.perf_counter()
    memory.call(source, shown, backward)
    return (time.perf_counter() - began) / len(shown[0])


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"
