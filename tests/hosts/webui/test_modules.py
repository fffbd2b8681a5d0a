"""S4S in a host's own modules: the same numbers as the core, the same calls as the host counts."""

import importlib
import shutil
import sys
from dataclasses import replace

import in_process
import invariants
import pytest
import s4s_webui_host as hosts
import torch
from webui_presets import HASHES, eps_preset, flow_preset

from s4s.s4s_nodes.core import Model, Preset, classical, preset_file, sample, schedules
from s4s.s4s_nodes.select.cfg import between, join_presets
from s4s.training.source import host_source

PREDICTIONS = {"forge": ("eps", "v", "sd3", "flux"), "a1111": ("eps", "v", "sd3"), "reforge": ("eps", "v")}
TOY = "S4S toy_ sd15"
ON_SHELF = {"eps": "toy, sd15", "v": "toy-v", "sd3": "toy-flow", "flux": "toy-flux"}
SHIPPED = sorted((hosts.ROOT / "solver_presets").glob("*.safetensors"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    made = hosts.make_data(tmp_path_factory.mktemp("data"), checkpoint=False)
    v = eps_preset("toy-v")
    v = Preset(v.name, v.tables, Model("sd20", "v", 0.0292, 14.6146, channels=v.model.channels, hashes=HASHES))
    flux = Preset("toy-flux", flow_preset().tables, Model("flux", "flow", 0.0003, 1.0, channels=16, hashes=HASHES))
    for extra in (v, flux):
        preset_file.save(extra, made / "models" / "s4s_presets" / f"{extra.name}.safetensors")
    in_process.start(made)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(params=PREDICTIONS[hosts.kind()])
def model(request, data, monkeypatch):
    return in_process.Model(monkeypatch, request.param)


@pytest.fixture
def eps(data, monkeypatch):
    return in_process.Model(monkeypatch, "eps")


def label(model) -> str:
    return f"S4S {ON_SHELF[model.prediction].replace(',', '_')}"


def made(model, name="S4S"):
    from modules import sd_samplers
    return sd_samplers.create_sampler(name, model.shown)


def noise(seed=0):
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def condition():
    return torch.zeros(2, 77, 8)


def sampled(model, p, x=None, name="S4S"):
    """(latent, calls of the network for one image's conditional half, what the host counts as its steps)."""
    from modules import shared
    sampler, before, p.sd_model = made(model, name), model.calls, model.shown
    image_cond = torch.zeros(2, 5, 1, 1)
    if x is None:
        latent = sampler.sample(p, noise(), condition(), condition(), image_conditioning=image_cond)
    else:
        latent = sampler.sample_img2img(p, x, noise(), condition(), condition(), image_conditioning=image_cond)
    return latent, model.calls - before, shared.state.sampling_steps


def known(model):
    return flow_preset() if model.flow else eps_preset()


@pytest.mark.parametrize("steps", [4, 6])
def test_the_latent_is_the_cores(model, steps):
    """Same preset, noise and denoiser: float32 rounding apart, ComfyUI's test has the other half."""
    p = in_process.process(steps=steps, scheduler=label(model))
    latent, calls, counted = sampled(model, p)
    table = known(model).table(steps)
    start = noise().double() * float(table.sigmas[0])
    wanted = sample(lambda x, sigma: in_process.gaussian(x, sigma, model.flow), start, table)
    torch.testing.assert_close(latent.double(), wanted, rtol=0, atol=2e-4)      # A1111 also rounds sigma to its clock
    assert calls == counted == steps
    assert f"calls{steps} exact" in p.extra_generation_params["S4S"]
    assert p.extra_generation_params["Schedule type"] == label(model)


@pytest.mark.parametrize("cfg, share, said", [(3.0, 0.25, "between those learned at cfg 2 and 6"),
                                              (6.0, 1.0, "as learned at cfg 6"), (9.0, 1.0, "not at 9")])
def test_between_two_cfgs_a_joined_preset_runs_the_table_between_theirs(model, data, cfg, share, said):
    """The host knows the cfg when it samples; the schedule it has cut from was made without."""
    shelf, flow = data / "models" / "s4s_presets", model.flow
    one = preset_file.load(shelf / f"{ON_SHELF[model.prediction]}.safetensors")
    levels = schedules.linear_flow(6, 2.0) if flow else schedules.karras(6, 0.0292, 14.6146, rho=5)
    low = replace(one, name="low", tables={"calls6": one.table(6)}, training={"cfg": 2})
    high = replace(low, name="high", tables={"calls6": classical.dpmpp_2m(levels, flow)}, training={"cfg": 6})
    saved = preset_file.save(join_presets([low, high], "both"), shelf / "both.safetensors")
    try:
        part("rows").refresh()
        p = in_process.process(steps=6, scheduler="S4S both", cfg_scale=cfg)
        latent, calls, _ = sampled(model, p)
    finally:
        saved.unlink()
        part("rows").refresh()
    table = between(low.table(6), high.table(6), share, flow)
    wanted, other = (sample(lambda x, sigma: in_process.gaussian(x, sigma, flow),
                            noise().double() * float(levels[0]), solver) for solver in (table, low.table(6)))
    torch.testing.assert_close(latent.double(), wanted, rtol=0, atol=2e-4)
    assert calls == 6 and (wanted - other).abs().max() > 1e-3
    assert " calls6 exact" in p.extra_generation_params["S4S"] and said in p.extra_generation_params["S4S"]


def test_what_the_host_shows_of_a_model(model):
    facts = part("facts").of(made(model).model_wrap, model.shown)
    assert facts.flow == model.flow and facts.prediction == ("flow" if model.flow else model.prediction)
    assert facts.sigma_max == pytest.approx(1.0 if model.flow else 14.6146, rel=1e-3)
    assert facts.shift == ({"sd3": 3.0, "flux": pytest.approx(3.158, rel=1e-3)}.get(model.prediction))
    if model.prediction in ("eps", "sd3"):
        assert facts.family == {"eps": "sd15", "sd3": "sd3"}[model.prediction]


def test_every_schedule_type_answers_any_number_of_steps_through_the_host(model):
    from modules import sd_schedulers
    sampler = made(model, "Euler")
    for row in (row for row in sd_schedulers.schedulers if row.label.startswith("S4S")):
        for n in range(1, 151):
            sigmas = sampler.get_sigmas(in_process.process(scheduler=row.label), n)
            assert sigmas.shape == (n + 1,) and sigmas[-1] == 0 and bool((sigmas.diff() < 0).all()), (row.label, n)


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.5, 0.75, 0.999, 1.0])
@pytest.mark.parametrize("fixed", [False, True])
def test_img2img_makes_the_calls_the_host_counts(model, strength, fixed, monkeypatch):
    from modules import shared
    monkeypatch.setitem(shared.opts.data, "img2img_fix_steps", fixed)
    for steps in (1, 4, 6, 8, 13):
        p = in_process.process(steps=steps, scheduler=label(model), denoising_strength=strength)
        x = torch.full((2, 4, 8, 8), in_process.MEAN)
        latent, calls, counted = sampled(model, p, x)
        all_of_them = fixed or "img2img_fix_steps" not in shared.opts.data_labels       # ersatzForge: always
        assert calls == counted == (steps if all_of_them else int(min(strength, 0.999) * steps) + 1)
        assert bool(torch.isfinite(latent).all()) and (latent - x).abs().max() < 6 * in_process.DEVIATION
        assert p.extra_generation_params["S4S"]


def test_auto_takes_for_an_img2img_the_preset_with_a_window(eps, data):
    """Of two for one model: the other has more tables, and none for the calls and the start of this strength."""
    windowed = eps_preset("full")
    full = {name: table for name, table in windowed.tables.items() if "from" not in name}
    full |= {f"calls{n}": classical.unipc(schedules.karras(n, 0.0292, 14.6146)) for n in (5, 7)}
    saved = preset_file.save(replace(windowed, tables=full), data / "models" / "s4s_presets" / "full.safetensors")
    try:
        taken = {}
        for strength in (0.5, 1.0):
            p = in_process.process(steps=8, scheduler="S4S Auto", denoising_strength=strength)
            sampled(eps, p, torch.full((2, 4, 8, 8), in_process.MEAN))
            taken[strength] = p.extra_generation_params["S4S"]
    finally:
        saved.unlink()
    assert taken[0.5].startswith("toy sd15 ") and "calls5_from1.9" in taken[0.5]
    assert taken[1.0].startswith("full ") and "calls8" in taken[1.0]


def test_a_host_setting_does_not_take_a_level_away(eps, monkeypatch):
    from modules import shared
    monkeypatch.setitem(shared.opts.data, "always_discard_next_to_last_sigma", True)
    p = in_process.process(steps=6, scheduler=TOY)
    assert sampled(eps, p)[1] == 6 and "calls6 exact" in p.extra_generation_params["S4S"]


def test_an_interrupt_returns_what_there_is(eps, monkeypatch):
    from modules import shared
    monkeypatch.setattr(shared.state, "interrupted", False)

    def press():
        shared.state.interrupted = True
    eps.press = (3, press)
    latent, calls, _ = sampled(eps, in_process.process(steps=8, scheduler=TOY))
    assert calls == 4 and latent.shape == (2, 4, 8, 8)          # the host looks before each call, and gives its preview


def test_no_sampler_of_the_host_ends_in_one_of_our_schedule_types(eps):
    from modules import sd_samplers, sd_schedulers
    tails = [f" {n}".lower() for row in sd_schedulers.schedulers if row.name.startswith("s4s_")
             for n in (row.name, row.label)]
    assert not [data.name for data in sd_samplers.all_samplers for tail in tails if data.name.lower().endswith(tail)]
    if hasattr(sd_samplers, "get_sampler_and_scheduler"):
        assert sd_samplers.get_sampler_and_scheduler("S4S", TOY) == ("S4S", TOY)


def test_executing_the_script_again_doubles_nothing(eps, data):
    from modules import sd_samplers, sd_schedulers
    before = [data.name for data in sd_samplers.all_samplers], [row.label for row in sd_schedulers.schedulers]
    path = list(sys.path)
    in_process.load_script(data)
    assert before == ([d.name for d in sd_samplers.all_samplers], [row.label for row in sd_schedulers.schedulers])
    assert sys.path == path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_preset_replays_its_self_test_here(data, path):
    """In the host's process, by the clone's own code."""
    made = part("shelf").library().get(path.stem)
    assert importlib.import_module("s4s_webui_clone.s4s_nodes.core.preset_file").verify(made) < 1e-9


def test_what_ships_is_the_familys_fallback_where_nothing_of_the_users_is(model, monkeypatch):
    shelf, select = part("shelf"), importlib.import_module("s4s_webui_clone.s4s_nodes.library").select
    monkeypatch.setattr(shelf, "library", lambda: shelf.Library([]))
    facts = part("facts").of(made(model).model_wrap, model.shown)
    for calls, cfg in ((6, 7.0), (10, 7.0), (25, 7.0), (6, 3.0)):
        found = select(shelf.request(None, "", facts, steps=calls, cfg=cfg))
        wanted = "gits-sd15" if facts.family == "sd15" and calls < 25 and cfg == 7 else None
        assert found.fallback and (found.preset and found.preset.name) == wanted, found.message()


def test_the_fallback_is_worth_its_calls(eps):
    """On a foreign schedule with more steps than any table it is a classical multistep: nearer the end than Euler."""
    exact = in_process.MEAN + (noise() * schedules.sd_levels()[-1] - in_process.MEAN) * in_process.DEVIATION / (
        in_process.DEVIATION ** 2 + schedules.sd_levels()[-1] ** 2) ** 0.5
    ours, euler = (sampled(eps, in_process.process(steps=20, scheduler="Karras"), name=name)[0]
                   for name in ("S4S", "Euler"))
    assert (ours - exact).abs().mean() < 0.3 * (euler - exact).abs().mean()


def test_the_hosts_samplers_take_part_in_a_race_with_any_number_of_images_or_are_refused(eps):
    """The host itself draws noise for the images of its txt2img alone: two here."""
    from modules import sd_samplers
    work, inside, ends, refused = part("work"), part("inside"), {}, {}
    every = {}

    class Network(inside.Network):
        def _for(self, which):
            return {**self.extra_args, **{key: self.extra_args[key][which] for key in ("cond", "uncond", "image_cond")}}

    def entries(denoiser, x, extra_args, run):
        source = host_source(Network(denoiser, extra_args), run.request.facts.model, denoiser.inner_model.sigmas, x,
                             2, 3.0, 4)
        for name in (data.name for data in sd_samplers.all_samplers if data.name != "S4S"):
            try:
                ends[name] = [entry.table(source.denoiser, source.noise([0]) * source.sigma_max, source.extra([0]))
                              for entry in work.entries((name,), source, [4])[0][4][:1]]
            except ValueError as error:
                refused[name] = str(error)
        every.update(work.entries(("all",), source, [2, 4])[0])
        return x
    sampled(eps, in_process.process(steps=4, scheduler=TOY, s4s_work=entries))
    assert {"Euler", "Euler a", "Heun", "DPM++ 2M", "DPM++ SDE"} <= set(ends) and "DPM fast" in refused
    why = (": leave it out", "the state shown was already not finite")          # the second: samplers for flows alone
    assert all(any(words in error for words in why) for error in refused.values()), refused
    assert all(end.shape == (1, 4, 8, 8) for made in ends.values() for end in made)
    raced, ran = {entry.solver_name for entry in every[4]}, {f"{name} of WebUI" for name, made in ends.items() if made}
    assert raced <= ran and len(raced) >= len(ran) - 1          # reForge's RES Solver fails at 2 calls
    judged = {entry.solver_name: entry.frechet_only for entry in every[2]}
    assert not judged["Heun of WebUI"] and judged["DPM++ SDE of WebUI"] and judged["DPM2 a of WebUI"]


def test_no_image_violates_an_invariant(model, data, monkeypatch, figure):
    shelf, aside = data / "models" / "s4s_presets", data / "aside"
    shelf.rename(aside)
    shelf.mkdir()
    try:
        counted, ran, wrong = invariants.violations(invariants.Images(model, shelf, monkeypatch))
    finally:
        shutil.rmtree(shelf)
        aside.rename(shelf)
    figure("images", counted), figure("with learned numbers", ran), figure("violations", len(wrong))
    assert ran > counted / 4 and not wrong, "\n".join(wrong[:10])


def part(name: str):
    """A module of the clone as the host's loader imported it."""
    return importlib.import_module(f"s4s_webui_clone.s4s_nodes.hosts.webui.{name}")
