"""What a training will cost on this device, told before it starts: network calls and seconds."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from .baselines.schedules import schedules_for
from .budget import nodes_of, plan_for, run_calls
from .checks import check
from .config import BUDGETS, Config
from .parametrization.parameters import Parameters
from .source import Source


class Price(NamedTuple):
    """What a budget costs, all tables together: its name, network calls at most, seconds on this device."""

    budget: str
    calls: int
    seconds: float

    @property
    def summary(self) -> str:
        return f"{self.budget}: about {float(f'{self.calls:.2g}'):,.0f} network calls, about " \
               f"{duration(self.seconds)} on this device"


@dataclass(frozen=True)
class Estimate:
    """What a run will cost, all tables together.

    price: of its own budget; prices: of those of quick, normal and thorough that suffice; call: seconds of one image.
    """

    rows: int
    free: int
    price: Price
    prices: tuple
    call: float

    @property
    def summary(self) -> str:
        """One line for people."""
        return f"{self.price.summary}; {self.rows} row{'s' * (self.rows > 1)}, {self.free} free numbers"

    def then(self, what: str, calls: int) -> str:
        """What else is planned after it, of so many network calls."""
        return Price(what, calls, calls * self.call).summary

    @property
    def others(self) -> str:
        """The other budgets that have a name, a line each."""
        return "\n".join(price.summary for price in self.prices if price.budget != self.price.budget)


def estimate(source: Source, config: Config) -> Estimate:
    """What `distil` will cost, from a few timed network calls (not counted). Raises ValueError as `distil` does.

    Args:
        source: what to learn on.
        config: every setting.
    """
    config = own(config, source)
    with torch.inference_mode(False), torch.no_grad():
        tried = replace(source, on_model_calls=None)
        check(config, tried)
        plan, pace = plan_for(nodes_of(config)[0], tried), _seconds(tried)
    free = [len(Parameters.of(source, schedules_for(source)["time_uniform"](calls)).initial()) for calls in plan.calls]
    windows = len(plan.windows) * len(config.cfg)
    return Estimate(sum(plan.calls) * windows, windows * sum(free),
                    price_of(source, config, pace), prices(source, config, pace), pace)


def own(config: Config, source: Source) -> Config:
    """The configuration with the source's name, and its cfg where no range is asked for."""
    return config.replace(model=source.name, cfg=config.cfg if len(config.cfg) > 1 else source.cfg)


def prices(source: Source, config: Config, pace: float) -> tuple[Price, ...]:
    """What the tables of a configuration cost with each budget that has a name, smallest first.

    pace: seconds of one image through the network. A budget that is too small for the tables is left out.
    """
    known = []
    for budget in BUDGETS:
        with suppress(ValueError):
            known.append(price_of(source, config.replace(budget=budget), pace))
    return tuple(known)


def price_of(source: Source, config: Config, pace: float) -> Price:
    """What a configuration costs. Raises ValueError for too small a budget."""
    calls, names = run_calls(nodes_of(config), source), {calls: name for name, calls in BUDGETS.items()}
    name = names.get(config.budget, f"a budget of {config.budget:,}" if config.budget else "no budget")
    return Price(name, calls, calls * pace)


def _seconds(source: Source) -> float:
    """Seconds of one image through the network: the fastest call after a warm-up.

    A slow network is timed once, a fast one three times: there other work on the machine disturbs.
    """
    seeds, times = range(min(4, source.chunk)), []
    x, extra = source.noise(seeds) * source.sigma_max, source.extra(seeds)
    sigma = torch.full((len(x),), source.sigma_max, device=source.device)

    def call() -> float:
        began = time.perf_counter()
        float(source.denoiser(x, sigma, **extra).sum())             # returns once the device is done
        return time.perf_counter() - began
    call()
    while len(times) < 3 and sum(times) < 1.0:
        times.append(call())
    return min(times) / len(x)


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"
