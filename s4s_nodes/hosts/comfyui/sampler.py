"""The dropdown rows: sampler `s4s`, which finds the table for its model and levels, and scheduler `s4s`."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...core import end_response, sample_table
from ...library import Preset, Request, Selection, schedule, select
from ...select.selection import running
from . import facts, graph, record
from .folder import presets

_PIN = "s4s_preset"
CLASSICAL, ERROR = UNMATCHED = ("classical solver", "error")       # what to do if no learned table runs


@dataclass(frozen=True)
class Pin:
    """What a sampler `s4s` uses, and every one on a MODEL behind S4S Use Preset; preset: None for the model's own.

    strict: not where it was learned on another model. unmatched: of UNMATCHED; None is an error where strict is on.
    """

    preset: Preset | None = None
    strict: bool = False
    unmatched: str | None = None

    def check(self, selection: Selection) -> None:
        """Raise ValueError for a fallback that the user does not want."""
        if selection.fallback and (self.unmatched == ERROR or self.strict and self.unmatched is None):
            raise ValueError(selection.refusal(*("strict is on", "turn strict off") if self.unmatched is None else (
                "unmatched is error", f"set that to {CLASSICAL}")))


def pin(model, preset: Preset, strict: bool, unmatched: str | None = None):
    """A clone of the MODEL that carries a Pin, as the host carries attachments; the weights are shared."""
    clone = model.clone()
    clone.set_attachments(_PIN, Pin(preset, strict, unmatched))
    return clone


def pin_of(patcher) -> Pin | None:
    return getattr(patcher, "attachments", {}).get(_PIN)


def sample_s4s(model, x: Tensor, sigmas: Tensor, extra_args: dict | None = None, callback=None,
               disable: bool | None = None, preset=None, strict: bool = False, unmatched=None) -> Tensor:
    """k-diffusion's sampler signature: run the table for this model, these levels; len(sigmas) - 1 calls.

    preset is used where it is given, else the one pinned to the model, else the model's own. Where none was learned
    for what is asked, a fallback runs and says so, or is refused, see Pin.
    Raises ValueError for rising levels, and for a fallback that is refused.
    """
    if len(sigmas) < 2:
        return x
    pinned = pinned_to(model, Pin(preset, strict, unmatched))
    request = request_of(model, sigmas, pinned, facts.size_of(x) or tuple(x.shape[-2:]))
    selection = selection_of(request)
    pinned.check(selection)
    record.tell(selection, request.facts)
    extra_args, table = extra_args or {}, selection.table
    levels = torch.tensor(table.sigmas)
    end = sample_table(model, x, levels, _with_levels(extra_args, levels, sigmas), callback, disable, table=table)
    return _restored(end, x, model, extra_args.get("denoise_mask"), table)


def pinned_to(model, asked: Pin) -> Pin:
    """What a sampler was asked for, else what the running model carries."""
    carried = pin_of(getattr(getattr(model, "inner_model", None), "model_patcher", None))
    if asked.preset is not None or carried is None:
        return asked
    return replace(asked, preset=carried.preset) if asked.strict else carried


def request_of(model, sigmas: Tensor, pinned: Pin = Pin(), size: tuple | None = None) -> Request:
    """The library's request for a running model and a host's levels."""
    return Request(facts.of_running(model), presets().candidates(), levels=sigmas.detach().cpu().double().numpy(),
                   size=size, named=pinned.preset, strict=pinned.strict, **facts.of_sampling(model))


def selection_of(request: Request) -> Selection:
    """The library's answer; a fallback also names a preset file that cannot be read, as it may be the missing one."""
    selection = select(request)
    broken = presets().unreadable() if selection.fallback and request.named is None else ()
    return replace(selection, why=f"{selection.why}, and a file cannot be read ({broken[0]})") if broken else selection


def s4s_scheduler(sampling, steps: int) -> Tensor:
    """The host's scheduler handler: (model_sampling, steps) -> steps + 1 falling levels, float32, the last one 0."""
    asked, patcher, sampler = facts.of_asking(sampling, steps)
    pinned, (notes, node) = pin_of(patcher) or Pin(), record.running()
    cfg = graph.cfg_behind(notes.prompt, node) if asked.cfg is None else asked.cfg
    request = replace(asked, installed=presets().candidates(), cfg=cfg, start=notes.level_left(node),
                      named=pinned.preset, strict=pinned.strict)
    others = {sampler} if sampler else graph.samplers_behind(notes.prompt, node)
    if others == {record.KEY} and cfg is not None:  # that sampler reports what it runs
        return torch.tensor(schedule(request), dtype=torch.float32)
    selection = selection_of(request)
    if others - {record.KEY}:                       # ours sees more, and checks for itself
        pinned.check(selection)
    record.tell_schedule(selection, asked.facts, running(request, selection.schedule), others, cfg, asked.size)
    return torch.tensor(selection.schedule, dtype=torch.float32)


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
