"""The tab's trainings and races, to the session: the host's txt2img of a scene, the tab's report, its folders."""

from collections.abc import Callable, Iterable
from dataclasses import astuple, fields
from functools import partial
from inspect import signature

import torch
from modules import sd_samplers, sd_schedulers, shared

from ....training.baselines.measure import Entry
from ....training.benchmark import html_report
from ....training.benchmark.host_race import SHEET_NOTE, RaceResult, Terms, sheet_rows
from ....training.config import Config
from ....training.distil import HOST_BUDGET
from ....training.source import Source
from ...library import tables_of
from .. import samplers as host_samplers, session
from ..session import Outcome
from . import collection, rows, shelf
from .inside import Scene, Show, inside, sheet

AUTOENCODER = 0             # the hosts' number for it


class Tab:
    """A session's Host: one work in the host's txt2img of a scene, seen in the tab."""

    kind = "WebUI"

    def __init__(self, scene: Scene, steps: int, show: Show):
        self.scene, self.steps, self.seen, self.say, self.show = scene, steps, show, show.say, show.show
        self.library, self.presets, self.runs = shelf.library(), shelf.folder(), shelf.runs()
        self.changed = rows.register            # a new preset is a schedule type at once

    def inside(self, work: Callable) -> None:
        inside(self.scene, self.steps, self.seen, work)

    def draw(self, source: Source, held: RaceResult) -> list:
        """The same seeds in equal steps before and after, as a picture; and the page of it all, which is linked."""
        drawn = sheet(sheet_rows(source, held), AUTOENCODER, held.preset.name, SHEET_NOTE)
        folder = shelf.report_page(held.preset).parent
        folder.mkdir(parents=True, exist_ok=True)
        drawn.save(folder / "sheet.png")
        self.seen.page = html_report.write(folder, held.preset, held.raced)
        return [drawn]


def training(race_seeds: int = 8, **asked) -> Callable[[Show], Outcome | None]:
    """What trains for the loaded checkpoint; it gives None if the host's interrupt ended it.

    Raises ValueError as the session, at once for what can be seen before the host samples: name, folder, settings.
    """
    tab, order = _order(race_seeds, **asked)
    collection.check_ships(order.config.name)
    session.Training(tab(Show()), order)
    return lambda show: session.train(tab(show), order)


def forecast(race_seeds: int = 8, **asked) -> Callable[[Show], None]:
    """What says what a training would cost. Raises ValueError as `training`."""
    tab, order = _order(race_seeds, **asked)
    return lambda show: session.forecast(tab(show), order)


def _order(race_seeds: int, **asked) -> tuple[Callable[[Show], Tab], session.TrainingOrder]:
    """(the Tab of a Show, the session's order) of the fields of a Scene, and of the trainer's Config.

    scales: the guidance scales to learn at; one or none: the scene's.
    """
    scene = Scene(**{field.name: asked.pop(field.name) for field in fields(Scene) if field.name in asked})
    scales = asked.pop("scales", ())
    several = {"cfg": scales} if len(scales) > 1 else {}          # one: the scene's
    config = Config.of(**{"budget": HOST_BUDGET, **several, **asked})
    order = session.TrainingOrder(config, astuple(scene), len(scene.prompts), race_seeds=race_seeds)
    return partial(Tab, scene, max(config.calls)), order


def race(label: str, calls: tuple = (), seeds: int = 16, budget: int = 0, write: bool = False, samplers: tuple = (),
         **scene) -> Callable[[Show], Outcome | None]:
    """What races the preset of a schedule type, its tables of these numbers of calls (none: all), on the loaded
    checkpoint; it gives None if the host's interrupt ended it. Raises ValueError as the session, and where scores
    would change a preset of a server that is open to others.

    samplers: the host's own that take part, by name, or "all".
    """
    if write:
        collection.check_access()
    preset, scene = shelf.preset_of(label), Scene(**scene)
    if preset is None:
        raise ValueError(f"there is no preset {label!r}: choose one, or Reload UI if it is new" if label else
                         "no preset is chosen: choose one")
    terms = Terms(tuple(tables_of(preset, calls, "steps")), range(seeds), budget,
                  samplers=partial(entries, samplers) if samplers else None)
    steps = max(preset.tables[name].calls for name in terms.tables)
    return lambda show: session.race(Tab(scene, steps, show), preset, terms, write)


def entries(names: tuple, source: Source, counts: Iterable[int]) -> tuple[dict[int, list[Entry]], list[str]]:
    """The WebUI's own samplers by name, on its own schedule types; as `host_samplers.entries`."""
    known = [data.name for data in sd_samplers.all_samplers if not data.name.startswith("S4S")]
    types = [kind.name for kind in sd_schedulers.schedulers if kind.function is not None]
    return host_samplers.entries(names, known, partial(_sampler, source=source), "WebUI", source, counts, types)


def _sampler(name: str, source: Source) -> host_samplers.Sampler:
    sampler = sd_samplers.create_sampler(name, shared.sd_model)
    function, options = getattr(sampler, "func", None), sampler.config.options
    arguments = signature(function).parameters if callable(function) else {}
    if "sigmas" not in arguments:
        raise ValueError(f"{name} runs its own loop and cannot be raced: leave it out")
    types = {kind.name: kind for kind in sd_schedulers.schedulers}

    def levels(schedule: str, steps: int):
        kind = types[schedule]
        asked = {"inner_model": source.network.denoiser.inner_model} if kind.need_inner_model else {}
        return kind.function(n=steps, sigma_min=float(source.levels[0]), sigma_max=source.sigma_max, device="cpu",
                             **asked)

    def run(denoiser, x, sigmas, extra_args, disable):
        more = {"solver_type": options["solver_type"]} if "solver_type" in options else {}
        if "noise_sampler" in arguments and not options.get("brownian_noise"):
            more["noise_sampler"] = lambda *levels: torch.randn_like(x)     # the host's is for its txt2img's images
        model = partial(denoiser)
        model.inner_model = source.network.denoiser.inner_model             # which some samplers read
        return function(model, x, sigmas, extra_args=extra_args, disable=disable, **more)
    return host_samplers.Sampler(run, levels, bool(options.get("discard_next_to_last_sigma")))
