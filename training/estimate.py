"""What a training will cost on this device, told before it starts: network calls, seconds and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from . import memory
from .budget import plan_for
from .checks import check
from .config import BUDGETS, Config
from .modes import Way, choose_mode
from .nodes import nodes_of, run_calls
from .parametrization.parameters import Parameters
from .source import Source


class Pace(NamedTuple):
    """Measured seconds of one image through the network, and what its backward pass takes beyond a second call."""

    call: float
    backward: float = 0.0


class Price(NamedTuple):
    """What a budget costs, all tables together: its name, network calls at most, seconds on this device."""

    budget: str
    calls: int
    seconds: float

    @property
    def summary(self) -> str:
        return f"{self.budget}: about {_rounded(self.calls):,} network calls, about {duration(self.seconds)} on this " \
               "device"


@dataclass(frozen=True)
class Estimate:
    """What a run will cost, all tables together; memory in bytes on top of what is held now, for `images` at once.

    price: of the run's own budget; prices: of quick, normal and thorough in its place, as far as they suffice; call:
    seconds of one image through the network.
    """

    rows: int
    free: int
    price: Price
    prices: tuple
    memory: int
    images: int
    way: Way
    call: float

    @property
    def summary(self) -> str:
        """One line for people."""
        rows = f"{self.rows} row{'s' * (self.rows > 1)}"
        return (f"{self.price.summary}; {rows}, {self.free} free numbers, {memory.size_text(self.memory)} on top of "
                f"the model with {self.images} image{'s' * (self.images > 1)} at once; {self.way.mode} mode: "
                f"{self.way.why}")

    def then(self, what: str, calls: int) -> str:
        """What else is planned after it, of so many network calls."""
        return Price(what, calls, calls * self.call).summary

    @property
    def others(self) -> str:
        """The other budgets that have a name, a line each."""
        return "\n".join(price.summary for price in self.prices if price.budget != self.price.budget)


def estimate(source: Source, config: Config) -> Estimate:
    """What `distil` will cost, from a few network calls (uncounted), timed and weighed. Raises ValueError as `distil`
    does."""
    config = own(config, source)
    with torch.inference_mode(False), torch.no_grad():
        tried = replace(source, on_model_calls=None)
        check(config, tried)
        way = choose_mode(tried, config)
        plan, behind = plan_for(config, tried, way.mode), way.mode == "gradient"
        once = _seconds(tried, backward=False)
        pace = Pace(once, max(0.0, _seconds(tried, backward=True) - 2 * once) if behind else 0.0)
        images = min(plan.gradient.batch, tried.chunk) if behind else tried.chunk
        weight = memory.of_a_call(tried, backward=behind)
    sizes = [Parameters.of(plan, source, torch.linspace(1, 0, calls + 1).numpy()) for calls in plan.calls]
    windows = len(plan.windows) * len(config.cfg)
    return Estimate(sum(plan.calls) * windows, windows * sum(int(size.moving().sum()) for size in sizes),
                    price_of(source, config, way.mode, pace), prices(source, config, way.mode, pace), weight * images,
                    images, way, pace.call)


def own(config: Config, source: Source) -> Config:
    """The configuration with the source's name, and its cfg where no range is asked for."""
    return config.replace(model=source.name, cfg=config.cfg if len(config.cfg) > 1 else source.cfg)


def prices(source: Source, config: Config, mode: str, pace: Pace) -> tuple[Price, ...]:
    """What the tables of a configuration cost with each budget that has a name, smallest first.

    pace: as measured on this device. A budget that is too small for the tables is left out.
    """
    known = []
    for budget in BUDGETS:
        try:
            known.append(price_of(source, config.replace(budget=budget), mode, pace))
        except ValueError:
            continue
    return tuple(known)


def price_of(source: Source, config: Config, mode: str, pace: Pace) -> Price:
    """What a configuration costs. Raises ValueError for too small a budget."""
    nodes = nodes_of(config)
    calls, seconds = run_calls(nodes, source, mode), 0.0
    if mode == "gradient":                                          # its second runs are among the calls already
        plans = [node.plan(source, mode) for node in nodes]
        behind = sum(plan.iterations * plan.gradient.batch * each * len(plan.windows)
                     for plan in plans for each in plan.calls)
        seconds = behind * pace.backward
    names = {calls: name for name, calls in BUDGETS.items()}
    name = names.get(config.budget, f"a budget of {config.budget:,}" if config.budget else "no budget")
    return Price(name, calls, seconds + calls * pace.call)


def _seconds(source: Source, backward: bool) -> float:
    """Of one image through the network, and back if wanted: the fastest call after one that warms up.

    A slow network is timed once, a fast one three times: there other work on the machine disturbs.
    """
    shown, times = memory.first_call(source, min(4, source.chunk)), []
    memory.call(source, shown, backward)
    while len(times) < 3 and sum(times) < 1.0:
        began = time.perf_counter()
        memory.call(source, shown, backward)
        times.append(time.perf_counter() - began)
    return min(times) / len(shown[0])


def duration(seconds: float) -> str:
    """Seconds for people."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"


def _rounded(calls: int) -> int:
    """To two digits: it is a forecast."""
    unit = 10 ** max(0, len(str(calls)) - 2)
    return round(calls / unit) * unit
