"""The sampler: the host's own, but for the levels it asks for and the table that runs on them."""

import logging
from dataclasses import dataclass, replace

import torch
from modules import sd_samplers_kdiffusion, shared

from ... import metadata
from ...core import sample_table
from ...library import Preset, Request, Selection, select
from ...select.match import is_solver
from . import facts, labels, pasted, settings, shelf

log = logging.getLogger("S4S")


class S4SSampler(sd_samplers_kdiffusion.KDiffusionSampler):
    """What runs, on which slice of the schedule and how it is shown stay the host's: its levels and table are ours."""

    def get_sigmas(self, p, steps):
        """steps + 1 levels, whatever steps is: hosts cut what they get by indices made from it."""
        hires = facts.is_hires(p)
        label = shelf.meant(getattr(p, "s4s_preset", None), getattr(p, "hr_scheduler" if hires else "scheduler", None))
        seen = facts.of(self.model_wrap, shared.sd_model)
        asked, _ = facts.of_asking()
        named, missing = pasted.named(label, getattr(p, "s4s_pasted", ""), hires)
        request = shelf.request(named, missing, seen, getattr(p, "s4s_strict", False), steps=steps, **asked)
        self.s4s_run = Run(p, hires, request, missing)
        if getattr(p, "sampler_noise_scheduler_override", None) is not None or not shelf.is_ours(label):
            return super().get_sigmas(p, steps)
        selection = select(request)
        if label == pasted.CHOICE and named is not None:
            name_schedule(p, labels.AUTO if is_solver(named) else labels.label_for(named.name), None)
        else:
            name_schedule(p, label, selection.preset)
        return as_tensor(selection.schedule)

    def initialize(self, p):
        """The host's keyword arguments for the sampling function, and ours."""
        return {**super().initialize(p), "s4s_run": self.s4s_run}


@dataclass
class Run:
    """One sampling: what it asked for, and what is said about what came of it."""

    p: object                               # the host's processing
    hires: bool
    request: Request                        # for the schedule; for the table the same with the levels
    missing: str = ""                       # why the schedule type's preset is not there

    def table(self, x, sigmas):
        """The table for the levels the host came with; infotext and log say which, and the infotext carries the
        table itself, of a fallback too. Raises where a stop is wished."""
        size = tuple(x.shape[2:]) or None
        selection = select(replace(self.request, steps=None, calls=None, levels=sigmas, size=size))
        if self.missing:
            selection = replace(selection, why=self.missing, advice="choose another one", fallback=True, warns=True)
        _stop_if_wished(selection)
        written = self.p.extra_generation_params
        written[labels.HIRES_KEY if self.hires else labels.KEY] = labels.infotext(selection)
        text = metadata.to_text(selection, self.request.facts) if settings.chosen(settings.TABLE) else None
        if text is not None:
            written[labels.HIRES_TABLE_KEY if self.hires else labels.TABLE_KEY] = metadata.pack(text)
        _tell(self.p, selection, selection.message())
        return selection.table


def _stop_if_wished(selection: Selection) -> None:
    if selection.fallback and settings.chosen(settings.FALLBACK) == "stop":
        raise RuntimeError(selection.refusal("the setting S4S, When no preset fits, is stop", "change that setting"))


def name_schedule(p, label: str, preset: Preset | None) -> None:
    """Put the preset's own schedule type into the infotext: replayed, it comes back whatever Auto takes then."""
    label = label if preset is None else shelf.label_of(preset, label)
    written = p.extra_generation_params
    if not facts.is_hires(p):
        written["Schedule type"] = label
    elif label != written.get("Schedule type"):
        written[labels.hires_schedule(written)] = label


def tell_schedule(p, label: str, selection: Selection, request: Request) -> None:
    """Write into the infotext and the log whose levels another sampler runs on."""
    _stop_if_wished(selection)
    key = labels.HIRES_SCHEDULE_KEY if facts.is_hires(p) else labels.SCHEDULE_KEY
    p.extra_generation_params[key] = labels.of_schedule(selection)
    name_schedule(p, label, selection.preset)
    _tell(p, selection, selection.schedule_message(request.cfg, request.size))


def _tell(p, selection: Selection, text: str) -> None:
    """Log once per generation, however many batches it has; a warning goes to the console and under the picture."""
    said = getattr(p, "s4s_said", ())
    if text in said:
        return
    p.s4s_said = (*said, text)
    log.log(logging.WARNING if selection.warns else logging.INFO, "%s", text)
    if selection.details:
        log.debug("did not run: %s", selection.details)
    if selection.warns and hasattr(p, "comment"):
        p.comment(text)


def sample_s4s(model, x, sigmas, extra_args=None, callback=None, disable=None, s4s_run=None):
    """k-diffusion's signature, which hosts inspect. Interrupts of the model or the callback pass through."""
    if (work := getattr(s4s_run.p, "s4s_work", None)) is not None:          # a training, see inside.py
        return work(model, x, extra_args, s4s_run)
    return sample_table(model, x, sigmas, extra_args, callback, disable, table=lambda _: s4s_run.table(x, sigmas))


def for_model(model):
    """The host's constructor call."""
    return S4SSampler(sample_s4s, model)


def as_tensor(levels) -> torch.Tensor:
    """float32 on the CPU, as the hosts' own schedules."""
    return torch.tensor(levels, dtype=torch.float32)
