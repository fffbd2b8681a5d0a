"""The invariants over a whole product: families, predictions, shifts, cfg, calls, windows and LoRAs.

Every case has a random set of installed presets, for itself, for near relatives and for strangers.
"""

import random
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from s4s.s4s_nodes.core import Preset, classical, schedules
from s4s.s4s_nodes.library import Library
from s4s.s4s_nodes.select import ModelFacts, Request, match, select
from s4s.s4s_nodes.select.adapt import starts_near
from s4s.s4s_nodes.select.selection import schedule

ETA = {"eps": (14.6146, False), "v": (14.6146, False), "v, zero terminal SNR": (4518.0, True)}
KINDS = [*(("sd15", kind, None) for kind in ETA), *(("sdxl", kind, None) for kind in ETA),
         *(("sd3", "flow", shift) for shift in (1.0, 3.0)), *(("flux", "flow", shift) for shift in (1.0, 3.158)),
         *(("wan21", "flow", shift) for shift in (5.0, 8.0))]
LORAS, CFGS, CALLS, WINDOWS = (None, "style"), (1.0, 4.2, 7.0), (4, 6), (1.0, 0.6, 0.3)
SHIPPED = list(Library([]).named().values())


def facts_of(kind: tuple, lora: str | None) -> ModelFacts:
    family, prediction, shift = kind
    top, endless = ETA.get(prediction, (1.0, False))
    known = {"weights_1d": f"{kind}"} | ({"patches": lora} if lora else {})
    return ModelFacts(family, prediction.split(",")[0], 0.0292 if top > 1 else 0.003, top, endless, shift,
                      4 if top > 1 else 16, fingerprint=lambda: known)


@cache
def tables(kind: tuple, counts: tuple, windows: tuple, bend: float) -> dict:
    facts = facts_of(kind, None)
    curve = schedules.linear_flow(9, bend) if facts.flow else np.append(
        schedules.karras(9, 0.03, facts.sigma_max, rho=4 + bend)[:9], 0.0)
    made = {f"calls{n}": classical.dpmpp_2m(schedules.stretched(curve, n, facts.flow), facts.flow) for n in counts}
    longest = max(made.values(), key=lambda table: table.calls).sigmas
    for n, share in windows:
        cut = schedules.stretched(longest, round(n / share), facts.flow)[-n - 1:]
        made[f"calls{n}_from{cut[0]:.4g}"] = classical.dpmpp_2m(cut, facts.flow)
    return made


def preset(chance: random.Random, kind: tuple, lora: str | None, *usual: float) -> Preset:
    """Of a model: some tables and windows; sometimes unfinished, or beaten in its race. usual: cfgs to prefer."""
    counts = tuple(sorted(chance.sample((4, 6, 9), chance.randint(1, 3))))
    windows = tuple(chance.sample([(4, 0.6), (6, 0.6), (6, 0.3)], chance.randint(0, 2)))
    cfg, record = chance.choice(CFGS + usual), {"run": "k", "created": chance.choice("12")}
    if chance.random() < 0.2:
        del record["created"]
    if chance.random() < 0.5:
        record["resolution"] = [64, 64]
    return Preset(f"p{chance.randrange(10 ** 6)}", tables(kind, counts, windows, chance.choice([1.0, 2.0, 3.0])),
                  facts_of(kind, lora).model, {"cfg": [cfg, cfg], **record}, recommended=chance.random() < 0.8)


def cases():
    """(request, those installed that are not its model's), every one of the product."""
    for number, case in enumerate(product(KINDS, LORAS, CFGS, CALLS, WINDOWS)):
        kind, lora, cfg, calls, window = case
        chance = random.Random(number)
        mine = [preset(chance, kind, lora, *[cfg] * 4) for _ in range(chance.randint(0, 3))]
        others = [preset(chance, kind, "other", *[cfg] * 4), preset(chance, kind, *set(LORAS) - {lora}, cfg)]
        others += [preset(chance, chance.choice([each for each in KINDS if each != kind]), chance.choice(LORAS))
                   for _ in range(chance.randint(0, 2))]
        installed = [*mine, *others, *SHIPPED]
        chance.shuffle(installed)
        size = chance.choice([None, (64, 64), (160, 160)])
        yield Request(facts_of(kind, lora), installed, int(calls / window), calls, cfg=cfg, size=size), others


def on_levels(request: Request, whole) -> Request:
    """The sampler's request, on what the host cut from the scheduler's levels."""
    return replace(request, steps=None, calls=None, levels=np.float32(whole[-request.calls - 1:]))


def belongs(found, request: Request) -> bool:
    """Learned numbers are of these weights with these LoRAs, finished, recommended, near in cfg, size and start."""
    made, facts = found.preset, request.facts
    if found.fallback:
        return found.warns and (made is None or made.short_hash == match.FAMILY_SCHEDULES.get(facts.family))
    sized = request.size in (None, made.training.get("resolution") and (64, 64)) or "resolution" not in made.training
    return (made.model.hashes == facts.fingerprint() and made.recommended and "created" in made.training and sized
            and abs(request.cfg / made.training["cfg"][0] - 1) <= 0.1 + 1e-9
            and starts_near(made.tables[found.table_name].sigmas[0], found.table.sigmas[0], facts.flow))


def agree(scheduled, sampled) -> bool:
    """Whether the sampler, on float32 levels, runs the table that the scheduler gave its levels for."""
    return sampled.preset is scheduled.preset and sampled.fallback == scheduled.fallback and np.allclose(
        sampled.table.weights, scheduled.table.weights, rtol=1e-4, atol=1e-5)


def violations() -> tuple[int, int, list[str]]:
    """(cases, of which learned numbers ran, what was violated)."""
    counted, learned, wrong = 0, 0, []
    for request, others in cases():
        scheduled = select(request)
        sampled = select(on_levels(request, scheduled.schedule))
        alone = replace(request, installed=[each for each in request.installed if each not in others])
        without = select(alone)
        plain = schedule(replace(request, installed=SHIPPED))
        broken = [name for name, holds in (
            ("belonging", belongs(scheduled, request) and belongs(sampled, request)),
            ("agreement", np.array_equal(scheduled.schedule, plain) or agree(scheduled, sampled)),
            ("independence", without.table.same_as(scheduled.table) and np.array_equal(
                without.schedule, scheduled.schedule))) if not holds]
        counted, learned = counted + 1, learned + (not sampled.fallback)
        facts = request.facts
        wrong += [f"{name}: {facts.fingerprint()} at {request.calls} of {request.steps} steps, cfg {request.cfg}: "
                  f"{scheduled.message()} / {sampled.message()} / {without.message()}" for name in broken]
    return counted, learned, wrong


def test_no_case_of_the_product_violates_an_invariant(figure):
    counted, learned, wrong = violations()
    figure("cases", counted), figure("with learned numbers", learned), figure("violations", len(wrong))
    assert counted == len(KINDS) * len(LORAS) * len(CFGS) * len(CALLS) * len(WINDOWS)
    assert learned > counted / 10 and not wrong, "\n".join(wrong[:10])


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_makes_another_model_of_every_kind(kind):
    chance = random.Random(1)
    made = {lora: replace(preset(chance, kind, lora), recommended=True, training={"created": "1"}) for lora in LORAS}
    for lora, facts in ((lora, facts_of(kind, lora)) for lora in LORAS):
        steps = next(iter(made[lora].counts))
        assert select(Request(facts, list(made.values()), steps)).preset is made[lora]
        others = [each for other, each in made.items() if other != lora]
        assert "LoRAs and patches" in select(Request(facts, others, steps)).why
