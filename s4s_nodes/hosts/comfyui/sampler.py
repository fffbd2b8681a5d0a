"""The dropdown rows: sampler `s4s`, which finds the table for its model and levels, and scheduler `s4s`."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...core import end_response, sample_table
from ...library import Preset, Request, Selection, schedule, select
from ...select.selection import running
from . import facts, record
from .folder import presets

_PIN = "s4s_preset"


@dataclass(frozen=True)
class Pin:
    """What every sampler and scheduler `s4s` on a MODEL uses, as S4S Use Preset says."""

    preset: Preset
    strict: bool


def pin(model, preset: Preset, strict: bool):
    """A clone of the MODEL that carries the preset, as the host carries attachments; the weights are shared."""
    clone = model.clone()
    clone.set_attachments(_PIN, Pin(preset, strict))
    return clone


def pin_of(patcher) -> Pin | None:
    return getattr(patcher, "attachments", {}).get(_PIN)


def sample_s4s(model, x: Tensor, sigmas: Tensor, extra_args: dict | None = None, callback=None,
               disable: bool | None = None, preset=None, strict: bool = False) -> Tensor:
    """k-diffusion's sampler signature: run the table for this model, these levels; len(sigmas) - 1 calls.

    preset is used where it is given, else the one pinned to the model, else the model's own. Where none was learned
    for what is asked, a fallback runs and says so; with strict it is refused.
    Raises ValueError for rising levels, and in strict mode.
    """
    if len(sigmas) < 2:
        return x
    _check_falling(sigmas)
    request = request_of(model, sigmas, preset, strict, facts.size_of(x) or tuple(x.shape[-2:]))
    selection = selection_of(request)
    record.tell(selection, request.facts)
    if request.strict and selection.fallback:
        raise ValueError(f"{selection.message()} It was refused because strict is on: change what it says, or turn "
                         "strict off")
    extra_args, table = extra_args or {}, selection.table
    levels = torch.tensor(table.sigmas)
    end = sample_table(model, x, levels, _with_levels(extra_args, levels, sigmas), callback, disable, table=table)
    return _restored(end, x, model, extra_args.get("denoise_mask"), table)


def request_of(model, sigmas: Tensor, preset=None, strict: bool = False, size: tuple | None = None) -> Request:
    """The library's request for a running model, a host's levels and perhaps a given preset."""
    guider = getattr(model, "inner_model", None)
    pinned = pin_of(getattr(guider, "model_patcher", None))
    if preset is None and pinned is not None:
        preset, strict = pinned.preset, pinned.strict or strict
    return Request(facts.of_running(model), presets().candidates(), levels=sigmas.detach().double().cpu().numpy(),
                   size=size, named=preset, strict=strict, **facts.of_guider(guider))


def selection_of(request: Request) -> Selection:
    """The library's answer; a fallback also names a preset file that cannot be read: it may be the one missed."""
    selection = select(request)
    broken = presets().unreadable() if selection.fallback and request.named is None else ()
    return replace(selection, why=f"{selection.why}, and a file cannot be read ({broken[0]})") if broken else selection


def s4s_scheduler(sampling, steps: int) -> Tensor:
    """The host's scheduler handler: (model_sampling, steps) -> steps + 1 falling levels, float32, the last one 0."""
    seen = facts.of_asking(sampling, steps)
    pinned, cfg = pin_of(seen.patcher), record.cfg_behind() if seen.cfg is None else seen.cfg
    request = Request(seen.facts, presets().candidates(), steps, seen.calls, cfg=cfg, size=seen.size,
                      named=pinned and pinned.preset, strict=bool(pinned and pinned.strict), part=seen.part,
                      start=record.level_left(), guidance=seen.guidance, around=seen.around)
    others = {seen.sampler} if seen.sampler else record.samplers_behind()
    if others == {record.KEY} and cfg is not None:  # that sampler tells what it runs by itself
        return torch.tensor(schedule(request), dtype=torch.float32)
    selection = selection_of(request)
    record.tell_schedule(selection, seen.facts, running(request, selection.schedule), others, cfg, seen.size)
    return torch.tensor(selection.schedule, dtype=torch.float32)


def _check_falling(sigmas: Tensor) -> None:
    rises = (sigmas[1:] > sigmas[:-1]).nonzero()
    if len(rises):
        i = int(rises[0])
        raise ValueError(f"the levels rise from {float(sigmas[i]):g} to {float(sigmas[i + 1]):g}: s4s goes from noise "
                         "to image; for flipped sigmas (unsampling) use the sampler euler")


def _with_levels(extra_args: dict, levels: Tensor, sigmas: Tensor) -> dict:
    """extra_args with the levels that are really visited, for patches that look them up; the host's stay untouched."""
    options = extra_args.get("model_options")
    if not options or len(levels) == len(sigmas) and torch.allclose(levels.to(sigmas), sigmas, rtol=1e-4):
        return extra_args
    transformer = {**options.get("transformer_options", {}), "sample_sigmas": levels.to(sigmas)}
    return {**extra_args, "model_options": {**options, "transformer_options": transformer}}


def _restored(end: Tensor, start: Tensor, model, mask: Tensor | None, table) -> Tensor:
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
