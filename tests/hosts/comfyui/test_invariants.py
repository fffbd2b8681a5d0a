"""The invariants in the host's own samplers, over families x changes x cfg x calls, each with random installed presets.

Learned numbers run alone only where they were learned; a preset for something else changes no image; the scheduler's
levels are those of the table that the sampler runs.
"""

import random
from dataclasses import replace
from functools import cache
from itertools import product

import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import nodes
import pytest
import s4s_host
import s4s_tools as t
import torch
from comfy_execution.utils import CurrentNodeContext

sampler, record, match, adapt = (s4s_host.pack(f"s4s_nodes.{name}") for name in (
    "hosts.comfyui.sampler", "hosts.comfyui.record", "select.match", "select.adapt"))
select, levels_for = s4s_host.pack("s4s_nodes.library").select, s4s_host.pack("s4s_nodes.select").levels_for
CHANGES, CFGS = (None, "LoRA", "guidance", "other LoRA"), (1.0, 4.2, 7.0)     # the last one's models make no image
RUNS = ((4, 4), (6, 6), (4, 8), (6, 10))            # calls, of so many steps
ROUNDS = 1                                          # of the whole product; each has other presets


@pytest.fixture(scope="module")
def changed(models):
    """(kind, change) -> MODEL; a change of guidance is FreeU in a UNet and PAG in a transformer."""
    @cache
    def get(kind: str, change: str | None):
        if change is None:
            return t.v_prediction(models("sd15"), zsnr=True) if "," in kind else models(kind)
        if change == "guidance" and t.kind(kind.split(",")[0]) == "sd15":
            scales = {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}
            return t.through(get(kind, None), "comfy_extras.nodes_freelunch", "FreeU_V2", **scales)
        if change == "guidance":
            return t.through(get(kind, None), "comfy_extras.nodes_pag", "PerturbedAttentionGuidance", scale=3.0)
        model = get(kind, None).clone()
        key = next(name for name, tensor in model.model_state_dict().items()
                   if name.startswith("diffusion_model.") and tensor.ndim == 2)
        change = torch.full(model.model_state_dict()[key].shape, 0.01 * CHANGES.index(change))
        model.add_patches({key: ("diff", (change,))})
        return model
    return get


@pytest.fixture(scope="module")
def learned(changed):
    """(kind, change, cfg, counts, (calls, steps) of windows) -> a preset as learned there."""
    @cache
    def get(kind: str, change, cfg: float, counts: tuple, windows: tuple):
        model = changed(kind, change)
        full = t.preset_at(model, cfg, "full", calls=counts)
        starts = [(calls, float(levels_for(full, t.facts(model), steps)[-calls - 1])) for calls, steps in windows]
        return t.preset_at(model, cfg, "full", calls=counts, starts=tuple(starts))
    return get


def drawn(chance, learned, kind: str, change, cfgs, sizes):
    """A preset of a model: some tables and windows; sometimes unfinished, beaten, or for another size."""
    counts = tuple(sorted(chance.sample((4, 6, 8, 10), chance.randint(2, 4))))
    windows = tuple(chance.sample(RUNS[2:], chance.randint(0, 2)))
    record = {"run": "k"} | ({"created": chance.choice("12")} if chance.random() < 0.9 else {})
    if (size := chance.choice(sizes)) is not None:
        record["resolution"] = [size, size]
    made = learned(kind, change, chance.choice(cfgs), counts, windows)
    return replace(made, name=f"p{chance.randrange(10 ** 6)}", training={**made.training, **record},
                   recommended=chance.random() < 0.9)


class Listener:
    """What the scheduler and the sampler of the last image selected."""

    def __init__(self, monkeypatch):
        self.schedule = self.table = None
        monkeypatch.setattr(sampler, "schedule", self.scheduled)
        monkeypatch.setattr(record, "tell", lambda found, _: setattr(self, "table", found))
        monkeypatch.setattr(record, "tell_schedule", lambda found, *_: setattr(self, "schedule", found))

    def scheduled(self, request):
        self.schedule = select(request)
        return self.schedule.schedule


def image(way: str, model, name: str, calls: int, steps: int, cfg: float, sampler_name: str = "s4s"):
    """A latent, by one of the host's nodes for sampling."""
    prompts, latent = (t.conditioning(name), t.conditioning(name, 1)), {"samples": t.picture(name)}
    with torch.inference_mode():
        if way == "custom":
            return by_custom_sampling(model, prompts, latent, calls, steps, cfg)
        part = {"denoise": calls / steps} if way == "ksampler" else {"start_step": steps - calls, "last_step": 10000}
        return nodes.common_ksampler(model, 1, calls if way == "ksampler" else steps, cfg, sampler_name, "s4s",
                                     *prompts, latent, force_full_denoise=True, **part)[0]["samples"]


def by_custom_sampling(model, prompts, latent, calls, steps, cfg):
    """BasicScheduler's levels, which know the cfg from the prompt alone, through SamplerCustom."""
    prompt = {"levels": {"class_type": "BasicScheduler", "inputs": {"scheduler": "s4s"}},
              "samples": {"class_type": "SamplerCustom", "inputs": {"cfg": cfg, "sigmas": ["levels", 0]}}}
    queued = record.on_prompt({"prompt": prompt, "prompt_id": "drawn"})         # known while somebody holds it
    with CurrentNodeContext(queued["prompt_id"], "levels"):
        levels = method(custom.BasicScheduler, "get_sigmas")(model, "s4s", calls, calls / steps)[0]
    return method(custom.SamplerCustom, "sample")(
        model, True, 1, cfg, *prompts, comfy.samplers.sampler_object("s4s"), levels, latent)[0]["samples"]


def method(node, older: str):
    """What a node of this host runs."""
    return node.execute if hasattr(node, "execute") else getattr(node(), older)


def belongs(found, facts, cfg: float, mine: list) -> bool:
    """Learned numbers are of these weights, finished, recommended, near in cfg, size and start."""
    if found.fallback:
        return found.warns and (found.preset is None or found.preset.short_hash in match.FAMILY_SCHEDULES.values())
    made = next((each for each in mine if each.name == found.preset.name), None)
    return (made is not None and made.recommended and not made.unfinished
            and made.training.get("resolution", [8, 8]) == [8, 8]
            and abs(cfg / made.training["cfg"][0] - 1) <= match.scores.CFG_TOLERANCE + 1e-9
            and adapt.starts_near(made.tables[found.table_name].sigmas[0], found.table.sigmas[0], facts.flow))


def cases(base, changed, learned):
    """(the image's settings, presets of its model, others that are installed), every one of the product."""
    kinds = [*(each for each in t.FAMILIES if (base / "models" / f"{t.KINDS[t.kind(each)].file}.safetensors").exists()),
             "v, zero terminal SNR"]
    for number, (kind, change, cfg) in enumerate(list(product(kinds, CHANGES[:3], CFGS)) * ROUNDS):
        chance = random.Random(number)
        way, (calls, steps) = chance.choice(("ksampler", "advanced", "custom")), chance.choice(RUNS)
        sizes = (None, 8) if way == "custom" else (None, 8, 32)         # BasicScheduler cannot know the size
        mine = [drawn(chance, learned, kind, change, (*CFGS, *[cfg] * 4), sizes) for _ in range(chance.randint(0, 3))]
        strangers = [*((kind, other) for other in CHANGES if other != change), (chance.choice(kinds), CHANGES[-1])]
        others = [drawn(chance, learned, *whose, (cfg,), sizes) for whose in chance.sample(strangers, 2)]
        yield (way, changed(kind, change), t.kind(kind.split(",")[0]), calls, steps, cfg), mine, others


def test_no_image_violates_an_invariant(changed, learned, base, monkeypatch, installed, figure):
    heard, counted, ran, wrong = Listener(monkeypatch), 0, 0, []

    def made_with(presets, *asked):
        for path in (base / "models" / "s4s_presets").iterdir():
            path.unlink()
        for preset in presets:
            installed(preset)
        heard.schedule = heard.table = None
        return image(*asked), heard.schedule, heard.table
    for asked, mine, others in cases(base, changed, learned):
        way, model, *_, cfg = asked
        end, scheduled, found = made_with([*mine, *others], *asked)
        with_euler = scheduled if way == "custom" else made_with([*mine, *others], *asked, "euler")[1]
        of_one = scheduled.preset and found.preset and scheduled.preset.name == found.preset.name
        broken = [what for what, holds in (
            ("belonging", belongs(found, t.facts(model), cfg, mine)),
            ("independence", torch.equal(end, made_with(mine, *asked)[0])),
            ("agreement", of_one or found.fallback and torch.equal(end, made_with([], *asked)[0])),
            ("agreement with euler", (with_euler.schedule == scheduled.schedule).all())) if not holds]
        counted, ran = counted + 1, ran + (not found.fallback)
        wrong += [f"{what}: {t.facts(model).family}, {asked[3]} of {asked[4]} steps at cfg {cfg} by {way}: "
                  f"{scheduled.message()} / {found.message()}" for what in broken]
    figure("images", counted), figure("with learned numbers", ran), figure("violations", len(wrong))
    assert ran > counted / 4 and not wrong, "\n".join(wrong[:10])
