"""The trainer's interface for hosts: pass a denoiser, get a preset.

    source = Source(name, model, levels, shape, network, conditions, cfg, device,
                    teacher=None, chunk=8)                              # see source.Source
    config = Config.of(name="my-preset", calls=(5, 6, 8), windows=(1.0, 0.5), budget=HOST_BUDGET)
    cost = estimate(source, config)                                     # print(cost.summary), cost.others
    preset = distil(source, config, folder, on_progress=show, say=log)  # show(Progress); resume=True resumes
    raced = race(source, preset, "calls6", unseen_pairs(source, 16))    # TableResult: scores, learned, ranked, verdict
    preset = with_scores(preset, {"calls6": raced.scores})              # marks it where a baseline won

Exceptions of the network, on_progress and say, including a host's interruption (BaseException), pass through unchanged
after the run is saved and the best tables so far are written to folder/NAME.safetensors. Nothing here prints, needs
click, or touches the host's global state.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from ..s4s_nodes.core import Preset
from ..s4s_nodes.core.preset_file import with_scores
from . import run_identity
from .benchmark.race import TableResult, race, unseen_pairs
from .config import Config
from .estimate import Estimate, estimate, own
from .progress import Progress, RunProgress
from .run import Run
from .source import Source

HOST_BUDGET = 10_000        # network calls per table: one to two hours at half a second a call

__all__ = ["Config", "Estimate", "Progress", "TableResult", "Source", "distil", "estimate", "identity", "race",
           "unseen_pairs", "with_scores", "HOST_BUDGET"]
_log = logging.getLogger(__name__)


def distil(source: Source, config: Config, folder, *, resume: bool = False,
           on_progress: Callable[[Progress], None] | None = None, say: Callable[[str], None] | None = None) -> Preset:
    """Learn config's tables for the source and return the preset, also written to folder/NAME.safetensors.

    Args:
        source: what to learn on; it gives the model's name, and the cfg unless config has a range.
        config: every setting.
        folder: of the run.
        resume: resume the run in the folder exactly where it stopped, or begin one.
        on_progress: on_progress(Progress) runs after every piece of work.
        say: say(text) gets what a person should read; None: logging.

    Raises ValueError for settings that cannot work, a folder with another run, a budget that is too small, a
    stochastic teacher, or a network that answers NaN.
    """
    config = own(config, source)
    with torch.inference_mode(False), torch.no_grad():          # hosts run nodes under inference mode
        return Run(config, Path(folder), resume, source, RunProgress(on_progress, say or _log.info)).carry_out()


def identity(source: Source, config: Config) -> str:
    """What `distil` writes into every file of this run, and into its preset's training["identity"]."""
    return run_identity.identity(own(config, source), source)
