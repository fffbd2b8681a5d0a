"""What runs in a WebUI host, on which slice, and what is said of it: in the stand-in, whose slices are the hosts'."""

import sys
from dataclasses import replace

import pytest
import torch

from s4s.s4s_nodes import __version__, metadata
from s4s.s4s_nodes.core import classical, mixture, sample, schedules
from s4s.s4s_nodes.core.preset_file import save
from tests.hosts.webui_double import Host, Interrupted, cell_of, warnings_of
from tests.hosts.webui_presets import eps_preset, flow_preset, levels_close, shelved

TOY = "S4S toy_ sd15"


@pytest.fixture
def host(monkeypatch, tmp_path):
    shelved(tmp_path)
    made = Host(monkeypatch, tmp_path)
    made.load()
    return made


def ran(host, p, x=None, noise=None, name="S4S", steps=None):
    """(result, sampler) of a txt2img, or of an img2img where x is given."""
    sampler = host.sampler(name)
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(1)) if noise is None else noise
    return (sampler.sample(p, noise, steps) if x is None else sampler.sample_img2img(p, x, noise, steps)), sampler


@pytest.mark.parametrize("steps", [4, 6, 8])
def test_the_latent_is_the_cores(host, steps):
    """Same preset, noise and denoiser: the host's result is core.sample's, but for its float32 start."""
    noise = torch.randn(5, 2, generator=torch.Generator().manual_seed(steps)).double()
    got, sampler = ran(host, host.process(steps=steps, scheduler=TOY), noise=noise)
    table = eps_preset().table(steps)
    wanted = sample(mixture, noise * float(torch.tensor(table.sigmas[0]).float()), table)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    assert sampler.used == steps


def test_the_steps_choose_the_table_and_the_infotext_says_it(host):
    p = host.process(steps=6, scheduler=TOY)
    ran(host, p)
    preset = eps_preset()
    written = p.extra_generation_params
    table = metadata.from_text(metadata.unpack(written.pop("S4S table"))).table(6)
    assert written == {"Schedule type": TOY, "S4S": f"toy sd15 {preset.long_hash} calls6 exact (S4S {__version__})"}
    assert table.same_as(preset.table(6))


@pytest.mark.parametrize("asked", ["Automatic", "S4S Auto", "s4s_auto", None])
def test_auto_takes_what_suits_the_model_and_names_it(host, asked):
    host.shared.opts.s4s_default_sd15 = "toy, sd15"
    p = host.process(scheduler=asked)
    ran(host, p)
    assert p.extra_generation_params["Schedule type"] == TOY
    assert " calls6 exact " in p.extra_generation_params["S4S"]


def test_a_flow_gets_the_flows_preset(monkeypatch, tmp_path):
    shelved(tmp_path)
    host = Host(monkeypatch, tmp_path, flow=True)
    host.load()
    p = host.process(steps=4)
    noise = torch.randn(3, 2, dtype=torch.float64)
    got, _ = ran(host, p, noise=noise)
    assert p.extra_generation_params["Schedule type"] == "S4S toy-flow"
    wanted = sample(lambda x, sigma: mixture(x, sigma, True), noise, flow_preset().table(4))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [*range(1, 31), 50, 150])
def test_txt2img_makes_exactly_the_calls_the_host_counts(host, steps):
    for scheduler in ("Automatic", TOY, "Karras"):
        got, sampler = ran(host, host.process(steps=steps, scheduler=scheduler))
        assert sampler.used == steps and bool(torch.isfinite(got).all())


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("strength", [0.0, 0.1, 0.3, 0.5, 0.75, 0.9, 0.999, 1.0])
def test_img2img_makes_exactly_the_calls_the_host_counts(host, strength, fixed):
    """Whatever runs, first and last level are the host's: it made the noise by the first."""
    x = torch.tensor([[0.4, -0.2]]).repeat(3, 1)
    for steps in (1, 4, 6, 8, 10, 20, 37):
        p = host.process(steps=steps, scheduler=TOY, denoising_strength=strength, fix_steps=fixed)
        got, sampler = ran(host, p, x)
        assert sampler.used == (steps if fixed else int(min(strength, 0.999) * steps) + 1)
        assert bool(torch.isfinite(got).all()) and "S4S" in p.extra_generation_params
        assert (got - x).abs().max() < 4


def test_a_window_table_runs_where_the_slice_starts_near_it(host):
    p = host.process(steps=8, scheduler=TOY, denoising_strength=0.5)
    _, sampler = ran(host, p, torch.zeros(3, 2))
    start, said = float(sampler.sigmas[0]), p.extra_generation_params["S4S"]
    assert sampler.used == 5 and 1.5 < start < 2.4
    assert "calls5_from1.9 adapted" in said or "calls5_from1.9 window" in said


@pytest.mark.parametrize("scheduler", ["Automatic", "Karras"])
def test_auto_takes_the_preset_with_a_window_for_this_strength_and_calls(monkeypatch, tmp_path, scheduler):
    """Of two for one model: the other has more tables, and none that starts where this img2img does."""
    folder, windowed = shelved(tmp_path), eps_preset("windowed")
    full = {name: windowed.tables[name] for name in ("calls4", "calls6", "calls8")}
    full |= {f"calls{n}": classical.unipc(schedules.karras(n, 0.0292, 14.6146)) for n in (5, 7)}
    save(replace(windowed, name="full", tables=full), folder / "full.safetensors")
    (folder / "toy, sd15.safetensors").unlink()
    save(windowed, folder / "windowed.safetensors")
    host = Host(monkeypatch, tmp_path)
    host.load()
    for strength, fixed, steps, wanted in ((0.5, False, 8, "windowed"), (0.6, True, 5, "windowed"),
                                           (1.0, False, 8, "full")):
        p = host.process(steps=steps, scheduler=scheduler, denoising_strength=strength, fix_steps=fixed)
        _, sampler = ran(host, p, torch.zeros(3, 2))
        assert sampler.used == (5 if strength < 1 else 8)
        if scheduler == "Automatic":
            assert p.extra_generation_params["S4S"].startswith(f"{wanted} ")
            assert p.extra_generation_params["Schedule type"] == f"S4S {wanted}"


def test_a_strength_of_one_is_the_full_table(host):
    p = host.process(steps=8, scheduler=TOY, denoising_strength=1.0)
    ran(host, p, torch.zeros(3, 2))
    assert " calls8 exact " in p.extra_generation_params["S4S"]


def test_a_fallback_is_loud_once_a_generation(host, caplog):
    p = host.process(steps=20, scheduler=TOY)
    for _ in range(3):                                                          # three batches of one generation
        ran(host, p)
    said = p.extra_generation_params["S4S"]
    assert said.startswith("fallback ") and "you asked for 20" in said and not set(said) & set(",:\"\n")
    assert len(warnings_of(caplog)) == 1 and "you asked for 20" in warnings_of(caplog)[0]
    assert len(p.comments) == 1 and "you asked for 20" in next(iter(p.comments))
    ran(host, host.process(steps=20, scheduler=TOY))
    assert len(warnings_of(caplog)) == 2


def test_what_runs_as_learned_is_not_a_warning(host, caplog):
    ran(host, host.process(scheduler=TOY))
    assert warnings_of(caplog) == []


def test_a_preset_of_another_kind_of_model_is_not_run(host):
    p = host.process(scheduler="S4S toy-flow")
    got, sampler = ran(host, p)
    assert sampler.used == 6 and "it is for flow prediction" in p.extra_generation_params["S4S"]
    assert p.extra_generation_params["Schedule type"] == "S4S toy-flow"


def test_a_preset_that_is_gone_is_said_to_be(host, tmp_path):
    (tmp_path / "s4s_presets" / "toy, sd15.safetensors").unlink()
    p = host.process(scheduler=TOY)
    ran(host, p)
    assert "names a preset that does not exist" in p.extra_generation_params["S4S"]


def test_a_foreign_schedule_keeps_its_levels(host):
    p = host.process(scheduler="Karras")
    _, sampler = ran(host, p)
    assert levels_close(sampler.sigmas, host.sampler("Euler").get_sigmas(p, 6))
    assert "S4S" in p.extra_generation_params and "Schedule type" not in p.extra_generation_params


def test_levels_that_another_extension_forces_are_honoured(host):
    forced = torch.tensor([10.0, 3.0, 1.0, 0.0])
    p = host.process(steps=3, scheduler=TOY, sampler_noise_scheduler_override=lambda steps: forced)
    _, sampler = ran(host, p)
    assert torch.equal(sampler.sigmas, forced) and "fallback" in p.extra_generation_params["S4S"]


def test_the_hires_pass_speaks_for_itself(host):
    p = host.process(steps=6, scheduler=TOY)
    ran(host, p)
    p.is_hr_pass, p.hr_scheduler, p.denoising_strength = True, TOY, 0.5
    ran(host, p, torch.zeros(3, 2), steps=6)
    written = p.extra_generation_params
    assert " calls6 exact " in written["S4S"] and written["Hires S4S"] != written["S4S"]
    assert "Hires schedule type" not in written                                 # it is the same
    p.hr_scheduler = "S4S toy-flow"
    ran(host, p, torch.zeros(3, 2), steps=6)
    assert written["Hires schedule type"] == "S4S toy-flow" and written["Schedule type"] == TOY


def test_the_hires_schedule_stands_under_the_hosts_own_key(host):
    """ersatzForge spells it so, and puts it there beforehand."""
    p = host.process(steps=6, scheduler=TOY, is_hr_pass=True, hr_scheduler="S4S toy-flow", denoising_strength=0.5)
    p.extra_generation_params.update({"HiRes schedule type": None, "Schedule type": TOY})
    ran(host, p, torch.zeros(3, 2), steps=6)
    assert p.extra_generation_params["HiRes schedule type"] == "S4S toy-flow"
    assert "Hires schedule type" not in p.extra_generation_params
    host.part("panel").S4SScript().before_process(p)
    assert "HiRes schedule type" not in p.extra_generation_params


def test_nothing_leaks_between_the_cells_of_a_plot(host):
    """The cells share one dictionary of infotext parameters."""
    script = host.part("panel").S4SScript()
    plot, texts = host.process(), []
    for name, scheduler in (("S4S", TOY), ("Euler", "Automatic"), ("S4S", "Automatic")):
        cell = cell_of(plot)
        cell.sampler_name, cell.scheduler = name, scheduler
        script.before_process(cell)
        if name == "S4S":
            ran(host, cell)
        texts.append(dict(cell.extra_generation_params))
    assert texts[0]["Schedule type"] == TOY and texts[1] == {} and "S4S" in texts[2]


def test_an_interrupt_passes_through(host):
    host.wrap.stop_at = 3
    with pytest.raises(Interrupted):
        ran(host, host.process(scheduler=TOY))


def test_a_preset_of_another_model_runs_by_name_with_a_warning_and_not_where_matching_is_strict(host, caplog):
    host.shared.sd_model.sd_checkpoint_info.shorthash = "another"
    p = host.process(cfg_scale=7.0)
    ran(host, p)
    assert p.extra_generation_params["S4S"].startswith("fallback gits-sd15 ")   # by itself: never
    p = host.process(scheduler=TOY)
    ran(host, p)
    said = p.extra_generation_params["S4S"]
    assert said.startswith("toy sd15 ") and "not learned on this model" in said
    assert "not learned on this model" in warnings_of(caplog)[-1] and len(p.comments) == 1
    host.shared.opts.s4s_matching = "strict"
    p = host.process(scheduler=TOY)
    ran(host, p)
    said = p.extra_generation_params["S4S"]
    assert said.startswith("fallback UniPC") and "strict" in said


def test_what_ships_runs_for_its_family_at_its_numbers_of_calls(host):
    host.shared.sd_model.is_sd1, host.shared.sd_model.is_sdxl = False, True
    for matching in ("loose", "strict"):
        host.shared.opts.s4s_matching = matching
        p = host.process(steps=7, cfg_scale=7.0)
        _, sampler = ran(host, p)
        assert sampler.used == 7 and p.extra_generation_params["Schedule type"] == "S4S ays-sdxl"
        assert p.extra_generation_params["S4S"].startswith("fallback ays-sdxl ")
        assert " calls7 exact " in p.extra_generation_params["S4S"]
    for more in ({"steps": 20, "cfg_scale": 7.0}, {"steps": 7, "cfg_scale": 3.0}):
        p = host.process(**more)
        ran(host, p)
        assert p.extra_generation_params["S4S"].startswith("fallback UniPC")


def test_where_a_stop_is_wished_nothing_is_sampled(host):
    host.shared.opts.s4s_fallback = "stop"
    with pytest.raises(RuntimeError, match="S4S: toy, sd15 has .* steps, you asked for 20. It was refused because the "
                                           "setting S4S, When no preset fits, is stop: set the steps to one of these"):
        ran(host, host.process(steps=20, scheduler=TOY))
    assert host.wrap.calls == 0
    ran(host, host.process(steps=6, scheduler=TOY))


def test_every_preset_replays_its_self_test_as_the_host_imported_it(host):
    library = host.part("shelf").library()
    for preset in library.named().values():
        assert host.part("collection").preset_file.verify(preset) < 1e-9


def test_the_function_has_the_parameters_hosts_look_for(host):
    import inspect
    parameters = inspect.signature(host.sampler().func).parameters
    assert list(parameters)[:3] == ["model", "x", "sigmas"] and "eta" not in parameters
    assert " " in str(host.sampler().func)                                      # ersatzForge reads its name from it


@pytest.mark.parametrize("steps, scheduler, written, type_", [
    (6, TOY, "toy sd15 {hash}", TOY), (6, "S4S Auto", "toy sd15 {hash}", TOY),
    (13, "S4S Auto", "fallback the model's own levels - toy sd15 has 4 6 and 8 steps you asked for 13", "S4S Auto")])
def test_levels_for_another_sampler_are_written_and_told(host, caplog, steps, scheduler, written, type_):
    p = host.process(steps=steps, scheduler=scheduler, sampler_name="Euler")
    with caplog.at_level("INFO"):
        levels = euler_levels(host, p, steps)
    preset = eps_preset()
    assert p.extra_generation_params == {"Schedule type": type_, "S4S schedule": written.format(hash=preset.long_hash)}
    assert len(levels) == steps + 1 and "S4S schedule" in caplog.text
    assert bool(warnings_of(caplog)) == bool(p.comments) == (steps == 13)


def test_the_panels_strict_and_the_setting_stop_count_for_another_sampler_on_the_schedule(host):
    host.shared.sd_model.sd_checkpoint_info.shorthash, taken = "another", []
    for strict in (False, True):
        p = host.process(steps=6, scheduler=TOY, sampler_name="Euler")
        p.s4s_strict = strict
        taken.append(euler_levels(host, p, 6))
        assert p.extra_generation_params["S4S schedule"].startswith("fallback ") == strict
    assert not torch.equal(*taken)
    host.shared.opts.s4s_fallback = "stop"
    with pytest.raises(RuntimeError, match="matching is strict. It was refused because the setting S4S"):
        euler_levels(host, p, 6)


def euler_levels(host, p, steps):
    """The host's own sampler asks for the levels of its schedule type."""
    class Sampler(sys.modules["modules.sd_samplers_common"].Sampler):
        def get_sigmas(self, p):
            [row] = [row for row in host.schedules.schedulers if row.label == p.scheduler]
            return row.function(steps, 0.03, 14.6, inner_model=host.wrap, device="cpu")
    return Sampler().get_sigmas(p)


@pytest.mark.parametrize("settings, options, what", [
    ({"refiner_checkpoint_info": "another", "refiner_switch_at": 0.8}, {}, "a refiner"),
    ({"refiner_checkpoint_info": "another", "refiner_switch_at": 1.0}, {}, ""),
    ({"refiner_checkpoint_info": "another", "enable_hr": True}, {"hires_fix_refiner_pass": "second pass"}, ""),
    ({"refiner_checkpoint_info": "another", "enable_hr": True, "is_hr_pass": True}, {}, "a refiner"),
    ({"s_min_uncond": 1.0}, {"skip_early_cond": 0.1}, "NGMS and Skip Early CFG"), ({"s_min_uncond": 0.0}, {}, "")])
def test_what_takes_turns_with_the_network_is_a_fallback(host, settings, options, what):
    vars(host.shared.opts).update(options)
    p = host.process(**settings)
    ran(host, p)
    written = p.extra_generation_params["Hires S4S" if p.is_hr_pass else "S4S"]
    assert written.startswith("fallback ") == bool(what), written
    assert any(f"was learned with cfg alone, this sampling has {what}." in text for text in p.comments) == bool(what)


def test_another_distilled_guidance_than_the_learned_one_is_a_fallback(monkeypatch, tmp_path):
    host, made = Host(monkeypatch, tmp_path, flow=True), flow_preset()
    host.load()
    save(replace(made, training={"guidance": 3.5}), tmp_path / "s4s_presets" / "toy.safetensors")
    for distilled, told, runs in ((True, 3.5, True), (True, 30.0, False), (False, 30.0, True)):
        host.shared.sd_model.use_distilled_cfg_scale = distilled
        p = host.process(steps=4, distilled_cfg_scale=told)
        ran(host, p)
        assert p.extra_generation_params["S4S"].startswith("fallback ") is not runs
