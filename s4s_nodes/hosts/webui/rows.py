"""Our rows in the host's dropdowns: one sampler, and a schedule type for each preset. By name, in place, idempotent."""

from functools import partial

from modules import sd_samplers, sd_samplers_common, sd_schedulers, shared

from ...library import schedule, select
from . import facts, labels, pasted, sampler, shelf


def refresh() -> None:
    """Put our rows in again if there are other presets than the host shows: its lists are rebuilt for that."""
    shown = [row.label for row in sd_schedulers.schedulers]
    if [label for label in shown if shelf.is_ours(label) and label != labels.AUTO] != list(shelf.names()):
        register()


def register() -> None:
    """Put our rows in, or put them in again: what was there under our names is replaced, what is gone is removed."""
    _register_sampler()
    _register_schedules()
    # the hosts cache look-ups, even for a row that was not there yet
    forget = getattr(getattr(sd_samplers, "get_sampler_and_scheduler", None), "cache_clear", None)
    if forget is not None:
        forget()


def _register_sampler() -> None:
    """One sampler, its schedule chosen in the other dropdown.

    Option values are scalars, or the whole API answer about samplers fails. The default schedule is Auto, never a
    preset's: hosts rewrite a sampler's default to "Automatic".
    """
    ours = sd_samplers_common.SamplerData(labels.SAMPLER, sampler.for_model, ["k_s4s"],
                                          {"scheduler": labels.key(labels.AUTO)})
    listed = sd_samplers.all_samplers
    listed[:] = [ours if data.name == ours.name else data for data in listed]
    if ours not in listed:
        listed.append(ours)
    sd_samplers.all_samplers_map = {data.name: data for data in listed}
    sd_samplers.set_samplers()


def _register_schedules() -> None:
    hidden = set(getattr(shared.opts, "hide_schedulers", None) or ())
    host = sd_schedulers
    ours = [host.Scheduler(labels.key(label), label, partial(levels, label), need_inner_model=True)
            for label in (labels.AUTO, *shelf.names())]
    visible = [row for row in ours if row.label not in hidden]
    _replace(host.schedulers, visible)
    if hasattr(host, "all_schedulers") and host.all_schedulers is not host.schedulers:
        _replace(host.all_schedulers, ours)                 # Forge Neo hides some of these
    known = host.schedulers_map
    for name in [name for name, row in known.items() if shelf.is_ours(row.label)]:
        del known[name]
    known.update({name: row for row in visible for name in (row.name, row.label)})
    if hasattr(host, "set_schedulers_aliases"):             # ersatzForge
        host.set_schedulers_aliases()


def _replace(rows: list, ours: list) -> None:
    rows[:] = [row for row in rows if not shelf.is_ours(row.label)] + ours


def levels(label: str, n: int, sigma_min: float, sigma_max: float, inner_model, device):
    """A schedule function for any sampler: n + 1 levels of the preset for the loaded model, n from 1."""
    asked, p = facts.of_asking()
    seen, strict = facts.of(inner_model, shared.sd_model), getattr(p, "s4s_strict", False)
    request = shelf.request(*pasted.named(label), seen, strict, steps=n, **asked)
    if p is None or hasattr(p, "s4s_work"):
        return sampler.as_tensor(schedule(request)).to(device)
    selection = select(request)
    sampler.tell_schedule(p, label, selection, request)
    return sampler.as_tensor(selection.schedule).to(device)
