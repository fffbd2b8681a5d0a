"""A stand-in for a WebUI host: the parts of its `modules` that S4S meets, on the mixture denoiser.

Written from what the hosts do (which slice of a schedule img2img takes, what is shared between the cells of a plot,
which look-ups are remembered), so that the rules can be tested without one; tests/hosts/webui runs the real hosts.
"""

import importlib.util
import logging
import sys
from collections import namedtuple
from copy import copy
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch

from s4s.s4s_nodes.core import mixture
from s4s.s4s_nodes.core.schedules import flow_levels, karras, sd_levels

CHECKPOINT = "0123456789"           # the hash of the loaded file: the presets on the shelf are its own
ROOT = Path(__file__).parents[2]
Row = namedtuple("Row", "name label function default_rho need_inner_model aliases", defaults=(-1, False, None))


class SamplerData(namedtuple("SamplerData", "name constructor aliases options")):
    pass


class Interrupted(BaseException):
    """What a host raises when its button is pressed."""


class Wrap:
    """A model_wrap: levels, and a denoiser that counts its calls and can be interrupted."""

    def __init__(self, levels, flow, predictor=None):
        self.sigmas, self.flow, self.calls, self.stop_at = torch.tensor(levels).float(), flow, 0, None
        if predictor is not None:
            self.predictor = predictor

    def __call__(self, x, sigma, **extra):
        if self.calls == self.stop_at:
            raise Interrupted
        self.calls += 1
        return mixture(x, sigma, self.flow)


class KDiffusionSampler:
    """The host's own sampler: what it asks for, slices and passes on."""

    def __init__(self, function, model, options=None):
        self.func, self.model_wrap, self.config, self.last = function, model.wrap, None, None

    def get_sigmas(self, p, steps):
        if p.sampler_noise_scheduler_override:
            return p.sampler_noise_scheduler_override(steps)
        return torch.tensor(karras(steps, *map(float, self.model_wrap.sigmas[[0, -1]]))).float()

    def initialize(self, p):
        return {}

    def sample(self, p, noise, steps=None):
        sigmas = self.get_sigmas(p, steps or p.steps)
        return self._run(p, noise * sigmas[0], sigmas)

    def sample_img2img(self, p, x, noise, steps=None):
        whole, t_enc = setup_img2img_steps(p, steps)
        sigmas = self.get_sigmas(p, whole)[whole - t_enc - 1:]
        start = (1 - sigmas[0]) * x + sigmas[0] * noise if self.model_wrap.flow else x + sigmas[0] * noise
        assert len(sigmas) == t_enc + 2, "the host counts other calls than it gets levels for"
        return self._run(p, start, sigmas)

    def _run(self, p, x, sigmas):
        before, self.sigmas = self.model_wrap.calls, sigmas
        try:
            return self.func(self.model_wrap, x, sigmas=sigmas, extra_args={}, callback=lambda d: None, disable=True,
                             **self.initialize(p))
        finally:
            self.used = self.model_wrap.calls - before


def setup_img2img_steps(p, steps=None):
    """(steps, the last one's index): int(strength * steps) + 1 calls; fixed, all of them, on a longer schedule."""
    asked, strength = steps or p.steps, p.denoising_strength
    fixed = getattr(p, "fix_steps", False) or steps is not None
    whole = int(asked / min(strength, 0.999)) if fixed and strength > 0 else asked
    return whole, asked - 1 if fixed else int(min(strength, 0.999) * asked)


class Script:
    pass


class Options(SimpleNamespace):
    def add_option(self, name, info):
        self.data_labels[name] = info
        if not hasattr(self, name):
            setattr(self, name, info.default)


class OptionInfo:
    def __init__(self, default, label, component, arguments, section):
        self.default, self.label, self.arguments, self.section = default, label, arguments, section

    def info(self, text):
        self.about = text
        return self


class Host:
    """One fake host in sys.modules."""

    def __init__(self, monkeypatch, models: Path, flow: bool = False):
        self.monkeypatch, self.callbacks = monkeypatch, {
            "on_ui_settings": [], "on_before_ui": [], "on_ui_tabs": [], "on_after_component": []}
        levels = flow_levels(3.0) if flow else sd_levels()
        self.wrap = Wrap(levels, flow, SimpleNamespace(prediction_type="const", shift=3.0) if flow else None)
        model = SimpleNamespace(wrap=self.wrap, is_sd1=not flow, is_sd3=flow, latent_channels=16 if flow else 4,
                                sd_checkpoint_info=SimpleNamespace(shorthash=CHECKPOINT, name_for_extra="toy"))
        self.shared = module("modules.shared", sd_model=model, OptionInfo=OptionInfo,
                             opts=Options(data_labels={}, localization="None", hide_samplers=[]))
        euler = SamplerData("Euler", lambda m: KDiffusionSampler(None, m), ["k_euler"], {})
        self.samplers = module("modules.sd_samplers", all_samplers=[euler], set_samplers=self._set_samplers)
        self.scripts = module("modules.scripts", Script=Script, AlwaysVisible=object())
        parts = [self.shared, self.samplers, self.scripts, module("modules.images"),
                 module("modules.paths", models_path=str(models), data_path=str(models)),
                 module("modules.sd_models", model_data=SimpleNamespace(sd_model=model)),
                 module("modules.script_callbacks", **{n: f.append for n, f in self.callbacks.items()}),
                 module("modules.sd_samplers_common", SamplerData=SamplerData, Sampler=object,
                        setup_img2img_steps=setup_img2img_steps),
                 module("modules.sd_samplers_kdiffusion", KDiffusionSampler=KDiffusionSampler)]
        rows = [Row("automatic", "Automatic", None), Row("karras", "Karras", None)]
        self.schedules = module("modules.sd_schedulers", Scheduler=Row, schedulers=rows,
                                schedulers_map={n: row for row in rows for n in (row.name, row.label)})
        self._install([*parts, self.schedules])
        self._set_samplers()

    def _install(self, parts):
        package = module("modules", __path__=[])
        for part in parts:
            setattr(package, part.__name__.partition(".")[2], part)
        gradio = module("gradio", Dropdown="Dropdown", Radio="Radio", Checkbox="Checkbox", __version__="3.41.2",
                        update=lambda **changes: changes)
        for part in (package, gradio, *parts):
            self.monkeypatch.setitem(sys.modules, part.__name__, part)

    def _set_samplers(self):
        host = self.samplers
        host.all_samplers_map = {data.name: data for data in host.all_samplers}
        host.samplers_map = {n.lower(): data.name for data in host.all_samplers for n in (data.name, *data.aliases)}
        if not hasattr(host, "get_sampler_and_scheduler"):
            host.get_sampler_and_scheduler = cache(lambda name, label: host.all_samplers_map.get(name, "default"))

    def load(self, script: Path = ROOT / "scripts" / "s4s_webui.py"):
        """Execute the script as a host does, and return the classes it would find in it."""
        spec = importlib.util.spec_from_file_location(script.name, script)
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        for name in [name for name in sys.modules if name.startswith(loaded.NAME)]:
            self.monkeypatch.setitem(sys.modules, name, sys.modules[name])
        return [c for c in vars(loaded).values() if isinstance(c, type) and issubclass(c, Script)]

    def process(self, **changes):
        """The host's processing object, for txt2img as it is."""
        p = SimpleNamespace(steps=6, scheduler="Automatic", hr_scheduler=None, is_hr_pass=False, cfg_scale=3.0,
                            denoising_strength=0.75, fix_steps=False, sampler_noise_scheduler_override=None,
                            extra_generation_params={}, sampler_name="S4S", comments={})
        p.comment = lambda text: p.comments.update({text: 1})
        for name, value in changes.items():
            setattr(p, name, value)
        return p

    def sampler(self, name="S4S"):
        data = self.samplers.all_samplers_map[name]
        made = data.constructor(self.shared.sd_model)
        made.config = data
        return made

    def part(self, name: str):
        """A module of the clone as the script imported it."""
        return sys.modules[f"s4s_webui_clone.s4s_nodes.hosts.webui.{name}"]


def module(name: str, **contents) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = importlib.util.spec_from_loader(name, loader=None)
    vars(made).update(contents)
    return made


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def cell_of(p):
    """A cell of an XYZ plot: a shallow copy, whose infotext parameters are the plot's own dictionary."""
    return copy(p)
