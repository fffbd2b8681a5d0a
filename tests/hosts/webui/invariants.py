"""Images for the invariants: the product of LoRAs, cfg and ways to sample, each with random installed presets.

The kind of model is the test's. Learned numbers run alone only where they were learned, a preset for something else
changes no image, and the schedule is that of the table which runs.
"""

import random
import sys
from importlib import import_module
from itertools import product
from types import SimpleNamespace

import in_process
import s4s_webui_host as hosts
import torch
from webui_presets import HASHES

from s4s.s4s_nodes.core import Model, Preset, classical, preset_file, schedules, scores
from s4s.s4s_nodes.select import adapt, match

LORAS, CFGS, RUNS = (None, "style"), (1.0, 4.2, 7.0), ((4, 4), (6, 6), (4, 8), (6, 10))      # calls, of so many steps
WAYS = ("txt2img", "img2img", "hires")
STRENGTHS = {(4, 8): (0.4, 0.5), (6, 10): (0.55, 0.6)}      # that cut these: of an img2img, of a second pass
FAMILIES = {"eps": "sd15", "v": "sd20", "sd3": "sd3", "flux": "flux"}


def part(name: str):
    return import_module(f"s4s_webui_clone.s4s_nodes.hosts.webui.{name}")


class Unet(SimpleNamespace):
    """A host's patched network, which can be a key."""

    __hash__ = object.__hash__


def load_lora(model, lora: str | None, monkeypatch) -> dict:
    """Put a LoRA on the model as its host does; the hashes that it has then."""
    patches = {} if lora is None else {"weight": [[1.0, ("diff", (torch.ones(4, 4),)), 1.0, None, None]]}
    if hosts.kind() == "a1111":
        active = [SimpleNamespace(network_on_disk=SimpleNamespace(hash=lora), name=lora, dyn_dim=None,
                                  unet_multiplier=1.0)] if lora else []
        monkeypatch.setitem(sys.modules, "networks", SimpleNamespace(loaded_networks=active))
    else:
        named = {"lora_patches": {("file", 1.0): patches}} if hosts.kind() == "forge" else {"patches": patches}
        model.shown.forge_objects.unet = Unet(**{**vars(model.shown.forge_objects.unet), **named})
    found = part("facts")._changes(model.shown)
    return {**HASHES, **({"patches": found} if found else {})}


def drawn(chance, seen, hashes: dict, cfgs) -> Preset:
    """A preset of a model: some tables and windows; sometimes unfinished, beaten, or for another size."""
    curve = schedules.linear_flow(10, chance.choice((1.5, 2.0, 4.0))) if seen.flow else schedules.karras(
        10, max(seen.sigma_min, 0.03), seen.sigma_max, rho=chance.choice((4.0, 5.0, 8.0)))
    solve = classical.SOLVERS[chance.choice(("dpmpp_2m", "lms_2"))]
    tables = {f"calls{n}": solve(schedules.stretched(curve, n, seen.flow), seen.flow)
              for n in sorted(chance.sample((4, 6, 8, 10), chance.randint(2, 4)))}
    longest = tables[max(tables, key=lambda name: tables[name].calls)].sigmas
    for calls, steps in chance.sample(RUNS[2:], chance.randint(1, 2)):
        cut = schedules.stretched(longest, steps, seen.flow)[-calls - 1:]
        tables[f"calls{calls}_from{cut[0]:.4g}"] = solve(cut, seen.flow)
    cfg, size = chance.choice(cfgs), chance.choice((None, 8, 8, 32))
    record = {"run": "k", "cfg": [cfg, cfg]} | ({"created": chance.choice("12")} if chance.random() < 0.9 else {})
    record |= {} if size is None else {"resolution": [size, size]}
    about = Model(seen.family or "sd20", seen.prediction, seen.sigma_min, seen.sigma_max, shift=seen.shift,
                  channels=16 if seen.flow else 4, hashes=hashes)
    return Preset(f"p{chance.randrange(10 ** 6)}", tables, about, record, recommended=chance.random() < 0.9)


class Images:
    """A host's model that images are made with, and what its last image selected."""

    def __init__(self, model, folder, monkeypatch):
        self.model, self.folder, self.monkeypatch = model, folder, monkeypatch
        self.schedule = self.table = self.levels = None
        whole, under_another = part("sampler").select, part("rows").select

        def select(request):
            found = whole(request)
            setattr(self, "schedule" if request.levels is None else "table", found)
            return found

        def select_for_another(request):
            found = under_another(request)
            self.levels = found.schedule
            return found
        monkeypatch.setattr(part("sampler"), "select", select)
        monkeypatch.setattr(part("rows"), "select", select_for_another)

    def install(self, presets) -> None:
        for path in self.folder.glob("*.safetensors"):
            path.unlink()
        for preset in presets:
            preset_file.save(preset, self.folder / f"{preset.name}.safetensors")

    def made(self, way: str, calls: int, steps: int, cfg: float, name: str = "S4S"):
        """A latent, by the host's own sampler of this name on the schedule S4S Auto."""
        from modules import sd_samplers
        strength = STRENGTHS.get((calls, steps), (1.0, 1.0))[way == "hires"]
        p = in_process.process(
            steps=steps, scheduler="S4S Auto", hr_scheduler="S4S Auto", cfg_scale=cfg, hr_cfg=cfg,
            denoising_strength=strength, is_hr_pass=way == "hires", enable_hr=way == "hires", sd_model=self.model.shown)
        noise, no_text = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 77, 8)
        sampler, image_cond = sd_samplers.create_sampler(name, self.model.shown), torch.zeros(2, 5, 1, 1)
        if way == "txt2img":
            return sampler.sample(p, noise, no_text, no_text, image_conditioning=image_cond)
        before = torch.full((2, 4, 8, 8), in_process.MEAN)
        return sampler.sample_img2img(p, before, noise, no_text, no_text, image_conditioning=image_cond,
                                      **({"steps": calls} if way == "hires" else {}))

    def belongs(self, cfg: float, mine: list[Preset], flow: bool) -> bool:
        """Learned numbers are of these weights, finished, recommended, near in cfg, size and start."""
        found = self.table
        if found.fallback:
            return found.warns and (found.preset is None or
                                    found.preset.short_hash in match.FAMILY_SCHEDULES.values())
        made = next((each for each in mine if each.name == found.preset.name), None)
        return (made is not None and made.recommended and not made.unfinished
                and made.training.get("resolution", [8, 8]) == [8, 8]
                and abs(cfg / made.training["cfg"][0] - 1) <= scores.CFG_TOLERANCE + 1e-9
                and adapt.starts_near(made.tables[found.table_name].sigmas[0], found.table.sigmas[0], flow))


def violations(images: Images, rounds: int = 1) -> tuple[int, int, list[str]]:
    """(images, of which with learned numbers, what was violated) over the product."""
    counted, ran, wrong = 0, 0, []
    for number, (lora, cfg, way) in enumerate(list(product(LORAS, CFGS, WAYS)) * rounds):
        chance, hashes = random.Random(number), load_lora(images.model, lora, images.monkeypatch)
        calls, steps = chance.choice([run for run in RUNS if (run[0] == run[1]) == (way == "txt2img")])
        seen = part("facts").of(part("sampler").for_model(images.model.shown).model_wrap, images.model.shown)
        mine = [drawn(chance, seen, hashes, (*CFGS, *[cfg] * 4)) for _ in range(chance.choice((0, 1, 3, 3)))]
        base = {kind: value for kind, value in hashes.items() if kind != "patches"}
        strangers = {**base, "patches": "0" * 16}, {**hashes, "sha256_10": "9" * 10}, *([base] if lora else [])
        others = [drawn(chance, seen, those, (cfg,)) for those in strangers]
        images.install([*mine, *others])
        end = images.made(way, calls, steps, cfg)
        scheduled, found = images.schedule, images.table
        belongs = images.belongs(cfg, mine, seen.flow)
        images.made(way, calls, steps, cfg, "Euler")
        with_euler = images.levels
        images.install(mine)
        independent = torch.equal(end, images.made(way, calls, steps, cfg))
        images.install([])
        plain = torch.equal(end, images.made(way, calls, steps, cfg))
        of_one = scheduled.preset and found.preset and scheduled.preset.name == found.preset.name
        broken = [what for what, holds in (
            ("belonging", belongs), ("independence", independent), ("agreement", of_one or found.fallback and plain),
            ("agreement with Euler", (with_euler == scheduled.schedule).all())) if not holds]
        counted, ran = counted + 1, ran + (not found.fallback)
        wrong += [f"{what}: {images.model.prediction}, LoRA {lora}, {calls} of {steps} steps at cfg {cfg}, {way}: "
                  f"{scheduled.message()} / {found.message()}" for what in broken]
    return counted, ran, wrong
