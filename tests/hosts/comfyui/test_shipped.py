"""What ships, in this host: each file replays its self-test, and two are their family's fallback at their calls."""

import comfy.samplers
import pytest
import s4s_host
import s4s_tools as t
import torch

FILES = sorted((s4s_host.ROOT / "solver_presets").glob("*.safetensors"))
library = s4s_host.pack("s4s_nodes.library")
sampler = s4s_host.pack("s4s_nodes.hosts.comfyui.sampler")


def ran(model, sigmas, cfg: float = 7.0):
    """The choice of the row's sampler on a model as it runs: with its object patches in place."""
    network = type("Network", (), {"model_sampling": model.get_model_object("model_sampling"),
                                   "latent_format": model.model.latent_format,
                                   "model_config": model.model.model_config,
                                   "named_parameters": model.model.named_parameters})
    guider = type("Guider", (), {"inner_model": network, "model_patcher": model, "cfg": cfg})()
    return sampler.selection_of(sampler.request_of(type("Denoiser", (), {"inner_model": guider})(), sigmas))


def shipped(model, calls: int) -> str | None:
    """The name of the schedule that runs for a family and so many calls, by the files; Optimal Steps' do not."""
    seen = t.facts(model)
    found = [t.core().preset_file.load(path) for path in FILES]
    return next((made.name for made in found if made.model.family == seen.family and calls in made.counts
                 and not made.name.startswith("oss") and made.model.prediction == seen.prediction), None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_preset_replays_its_self_test_here(path):
    assert t.core().preset_file.verify(t.core().preset_file.load(path)) < 1e-9


@pytest.mark.parametrize("calls", [4, 6, 10, 20])
@pytest.mark.parametrize("name", t.FAMILIES)
def test_the_rows_take_what_ships_for_the_family_or_a_classical_solver(models, installed, name, calls):
    model = models(name)
    wanted = shipped(model, calls)
    choice = ran(model, t.sigmas_of(model, "s4s", calls))
    assert (choice.preset and choice.preset.name) == wanted
    assert choice.fallback and choice.table.calls == calls
    assert ("not measured on this checkpoint" in choice.message()) == bool(wanted)
    if wanted is None:                          # the model's own shift and levels, as if nothing were installed
        plain = library.levels_for(None, t.facts(model), calls)
        assert choice.fallback and choice.table.sigmas == pytest.approx(plain, rel=1e-5)


def test_at_a_low_cfg_nothing_that_ships_runs(models, installed):
    """A BasicScheduler knows no cfg: its levels are the plain ones, which the sampler keeps at a low cfg."""
    levels = t.sigmas_of(models("sd15"), "s4s", 6)
    low, high = ran(models("sd15"), levels, 3.0), ran(models("sd15"), levels, 7.0)
    assert low.preset is None and low.table.sigmas == pytest.approx(levels.numpy(), rel=1e-5)
    assert high.preset.name == "gits-sd15" and high.own_levels


def test_some_of_these_families_have_a_preset_and_some_have_none(models):
    assert {shipped(models(name), calls) is None for name in ("sd15", "sd3") for calls in (4, 6, 10, 20)} == {
        True, False}
    assert all(shipped(models(name), calls) is None for name in ("v", "sd3", "wan") for calls in (4, 6, 10, 20))


def test_sdxl_is_told_from_sd15_by_the_loaders_word(models, installed, monkeypatch):
    monkeypatch.setattr(s4s_host.pack("s4s_nodes.hosts.comfyui.facts"), "family_of", lambda config: "sdxl")
    choice = ran(models("sd15"), t.sigmas_of(models("sd15"), "s4s", 6))
    assert choice.preset.model.family == "sdxl" and choice.kind == "exact"


def test_a_preset_of_the_users_own_comes_first(models, installed):
    own = installed(t.preset_at(models("sd15"), 7.0, "own", calls=(6,)))
    assert ran(models("sd15"), t.sigmas_of(models("sd15"), "s4s", 6)).preset.name == own.name


def test_a_flux_schedule_has_the_models_shift(models):
    """The host keeps mu, the logarithm of what others call the shift."""
    seen = t.facts(models("flux"))
    assert seen.shift == pytest.approx(3.158, rel=1e-3)
    levels = library.levels_for(None, seen, 10)
    sampling = models("flux").get_model_object("model_sampling")
    wanted = comfy.samplers.calculate_sigmas(sampling, "simple", 10)
    torch.testing.assert_close(torch.tensor(levels, dtype=torch.float32), wanted, rtol=2e-3, atol=2e-4)
