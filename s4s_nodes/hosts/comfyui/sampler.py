"""The dropdown rows: sampler `s4s`, which finds the table for its model and levels, and scheduler `s4s`."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ...core import end_response, sample_table
from ...library import Choice, ModelFacts, Preset, choose, is_own, levels_for, suits, table_for, unproven
from . import facts, record
from .folder import presets


def sample_s4s(model, x: Tensor, sigmas: Tensor, extra_args: dict | None = None, callback=None,
               disable: bool | None = None, preset=None, strict: bool = False) -> Tensor:
    """k-diffusion's sampler signature: run the table for this model, these levels; len(sigmas) - 1 calls.

    preset is used where it is given, else the installed one that suits the loaded model best. Levels no table was
    learned for are run with a classical solver, and said so; with strict they are refused.
    Raises ValueError for rising levels, and in strict mode.
    """
    if len(sigmas) < 2:
        return x
    _check_falling(sigmas)
    choice = choose_table(model, sigmas, preset)
    record.tell(choice)
    if strict and choice.fallback:
        raise ValueError(f"{choice.words()}; strict matching is on: connect the SIGMAS of the same preset, or turn "
                         "strict off to run a classical solver here")
    extra_args = extra_args or {}
    levels = torch.tensor(choice.table.sigmas)
    end = sample_table(model, x, levels, _told(extra_args, levels, sigmas), callback, disable, table=choice.table)
    return _known_put_back(end, x, model, extra_args.get("denoise_mask"), choice.table)


def choose_table(model, sigmas: Tensor, preset=None) -> Choice:
    """The library's answer for a running model, a host's levels and perhaps a given preset.

    A scheduler sees less of a model than its sampler, so `s4s` the schedule may stem from another preset than the
    one found here. Its inner levels are then nobody's wish: the preset's own take their place.
    """
    seen, scheduler_saw = facts.of_running(model)
    cfg = getattr(getattr(model, "inner_model", None), "cfg", None)
    levels, installed = sigmas.detach().double().cpu().numpy(), presets().presets()
    why = ""
    if preset is None:
        preset, why = choose(installed, seen, cfg, len(levels) - 1, start=float(levels[0]))
    scheduled = _scheduled(installed, scheduler_saw)
    own = is_own(levels, scheduled, scheduler_saw) or is_own(levels, preset, seen)
    choice = table_for(levels, seen, preset, cfg, own_schedule=own)
    return choice if preset is not None else replace(choice, why=". Unreadable: ".join([why, *presets().problems()]))


def s4s_scheduler(sampling, steps: int) -> Tensor:
    """The host's scheduler handler: (model_sampling, steps) -> steps + 1 falling levels, float32, the last one 0."""
    seen = facts.of_schedule(sampling)
    return torch.tensor(levels_for(_scheduled(presets().presets(), seen), seen, steps), dtype=torch.float32)


def _scheduled(installed: list, seen: ModelFacts) -> Preset | None:
    """The preset a scheduler takes: it sees no family, so the shift and the lowest level are its best clues.

    No model of this host has a single channel, as the bundled digits do; and published numbers are for one family.
    """
    fitting = [preset for preset in installed if preset.recommended and not preset.unfinished
               and preset.model.channels != 1 and not unproven(preset) and suits(preset, seen) is None]

    def likeness(preset: Preset) -> tuple:
        lowest = math.isclose(preset.model.sigma_min, seen.sigma_min, rel_tol=0.02)
        return (preset.model.shift == seen.shift, lowest, len(preset.tables), str(preset.training.get("created", "")))
    return max(fitting, key=likeness, default=None)


def _check_falling(sigmas: Tensor) -> None:
    rises = (sigmas[1:] > sigmas[:-1]).nonzero()
    if len(rises):
        i = int(rises[0])
        raise ValueError(f"the levels rise from {float(sigmas[i]):g} to {float(sigmas[i + 1]):g}: s4s goes from noise "
                         "to image; for flipped sigmas (unsampling) use the sampler euler")


def _told(extra_args: dict, levels: Tensor, sigmas: Tensor) -> dict:
    """extra_args with the levels that are really visited, for patches that look them up; the host's stay untouched."""
    options = extra_args.get("model_options")
    if not options or len(levels) == len(sigmas) and torch.allclose(levels.to(sigmas), sigmas, rtol=1e-4):
        return extra_args
    transformer = {**options.get("transformer_options", {}), "sample_sigmas": levels.to(sigmas)}
    return {**extra_args, "model_options": {**options, "transformer_options": transformer}}


def _known_put_back(end: Tensor, start: Tensor, model, mask: Tensor | None, table) -> Tensor:
    """The end state with the known region, mask 0, exactly the latent that came in; softly masked parts likewise.

    The host blends the latent into every prediction, so it reaches the end with the predictions' total weight: 1 for
    a table that keeps constants; where it is not, the rest is added. Nothing to do where noise is left over.
    """
    if mask is None or table.sigmas[-1] > 0:
        return end
    known = model.latent_image.to(end)
    if not table.keeps_constants:
        of_start, of_predictions = end_response(table)
        end = end + (1 - mask) * ((1 - of_predictions) * known - of_start * start)
    return torch.where(mask == 0, known, end)
