"""The Race node in the real host: equal calls, unseen seeds, scores that reach the file."""

import dataclasses
import re

import comfy.samplers
import pytest
import torch
from s4s_tools import preset_for
from test_train_denoiser import inside
from training_kit import latent, load, ours, prompt, same_state, sampled, state_of, train, trainers

NAME = "tiny_sd3"


@pytest.fixture(scope="module")
def sd3():
    return load(NAME)


@pytest.fixture(scope="module")
def preset(sd3):
    return train(sd3, NAME, calls="3,4", budget=3000, race_seeds=2, teacher_calls=12, name="raced")[0]


@torch.inference_mode()
def race(model, preset, **settings):
    """(preset, report, sheet) of the Race node with small settings."""
    settings = {"positive": prompt(NAME), "negative": prompt(NAME, 9), "latent": latent(NAME), "cfg": 3.0, "calls": "4",
                "seeds": 4, "seed": 0, "samplers": "", "budget": 2500, "teacher_calls": 16, "write_scores": False,
                **settings}
    return ours("hosts.comfyui.nodes_training").S4SRace.execute(model=model, preset=preset, **settings).args


def test_equal_calls_unseen_seeds_and_the_model_stays_as_it_was(sd3, preset):
    before, picture = state_of(sd3), sampled(sd3, NAME)
    raced, report, sheet = race(sd3, preset)
    [scores] = [each for each in raced.scores["calls4"].values() if each["seeds"] == 4]
    assert scores["baselines_raced"] > 40 and scores["cfg"] == 3.0 and scores["where"] == "ComfyUI cpu"
    assert raced.short_hash == preset.short_hash and raced.scores["calls3"] == preset.scores["calls3"]
    assert f"of {scores['baselines_raced']} baselines that took part" in report and "4 unseen seeds" in report
    assert sheet.ndim == 4 and float(sheet.std()) > 0
    assert same_state(before, state_of(sd3)) and torch.equal(picture, sampled(sd3, NAME))


def test_a_preset_that_a_sampler_of_the_host_taught_is_judged_by_it(sd3):
    teacher = {"teacher_sampler": comfy.samplers.sampler_object("euler"),
               "teacher_sigmas": comfy.samplers.calculate_sigmas(sd3.get_model_object("model_sampling"), "simple", 8)}
    taught, told = train(sd3, NAME, budget=1500, race_seeds=2, name="taught", **teacher)[:2]
    assert "teacher euler, 8 calls" in told and len(taught.training["teacher_levels"]) == 9
    assert "teacher euler, 8 calls" in race(sd3, taught)[1]


def test_the_same_seeds_give_the_same_scores_and_others_do_not(sd3, preset):
    first, again, other = (race(sd3, preset, seed=seed)[0].score("calls4") for seed in (0, 0, 50))
    assert first == again and first["rmse"] != other["rmse"]


def test_scores_are_written_into_the_presets_file_and_nothing_else_is(sd3, preset):
    load_preset, path = ours("core.preset_file").load, ours("hosts.comfyui.folder").home() / "raced.safetensors"
    race(sd3, preset, seeds=5)
    assert load_preset(path).score("calls4")["seeds"] == 2
    _, report, _ = race(sd3, preset, seeds=5, write_scores=True)
    assert load_preset(path).score("calls4")["seeds"] == 5 and f"scores written into {path}" in report
    before = load_preset(path).scores["calls4"]
    race(sd3, preset, seeds=5, cfg=7.0, write_scores=True)              # another cfg: its score lies beside the others
    after = load_preset(path)
    assert len(before) == 2 and {**after.scores["calls4"], **before} == after.scores["calls4"]
    assert after.score("calls4", 7.0)["cfg"] == 7 and after.score("calls4", 3.0)["cfg"] == 3
    assert load_preset(path).short_hash == preset.short_hash
    assert not list(path.parent.glob("*.tmp*"))


def test_a_joined_preset_keeps_the_score_of_each_cfg_it_was_raced_at(sd3, preset):
    both = [dataclasses.replace(preset, name=f"at {cfg}", training={"cfg": cfg}, scores={}) for cfg in (3, 5)]
    joined = ours("select.cfg").join_presets(both, "joined race")
    path = ours("hosts.comfyui.folder").home() / "joined race.safetensors"
    between, report, _ = race(sd3, joined, cfg=4.0, write_scores=True)
    assert list(between.scores["calls4"]) == ["cfg 4, 8 x 8, ComfyUI cpu, 4 seeds"]
    assert list(between.scores) == ["calls4"]
    at_three, report, _ = race(sd3, joined, cfg=3.0, write_scores=True)
    assert list(at_three.scores) == ["calls4_cfg3"]
    assert sorted(ours("core.preset_file").load(path).scores) == ["calls4", "calls4_cfg3"]


def test_a_losing_preset_is_marked(sd3, preset):
    bad = preset.tables["calls4"]
    worse = dataclasses.replace(bad, query=bad.query * [1.0, 0.5, 0.5, 0.5])
    lame = dataclasses.replace(preset, name="worse", tables={"calls4": worse}, scores={})
    raced, report, _ = race(sd3, lame, seeds=8)
    assert not raced.recommended and "Not recommended" in report


def test_samplers_of_the_host_take_part_by_name(sd3, preset):
    raced, report, _ = race(sd3, preset, samplers="heunpp2, res_multistep, euler_ancestral", budget=4000, seeds=6)
    assert raced.score("calls4")["seeds"] == 6 and "euler_ancestral of ComfyUI, simple" in report
    assert "only the Fréchet distance can judge them. It needs more seeds" in report       # 32 features
    with pytest.raises(ValueError, match="unknown sampler 'dpmpp_9m' here: use some of all, euler, "):
        race(sd3, preset, samplers="dpmpp_9m")
    with pytest.raises(ValueError, match="dpm_adaptive chooses its own number of calls: leave it out"):
        race(sd3, preset, samplers="dpm_adaptive")


def test_all_samplers_of_the_host_take_part_and_the_report_says_what_does_not(sd3):
    made = preset_for(sd3, calls=(2,))
    with pytest.raises(ValueError, match="too small for this race: at least [0-9,]+ are needed") as refused:
        race(sd3, made, calls="2", samplers="all", budget=1500, seeds=2)
    needed = int(re.search("at least ([0-9,]+)", str(refused.value))[1].replace(",", ""))
    _, report, _ = race(sd3, made, calls="2", samplers="all", budget=needed, seeds=2)
    assert "dpm_adaptive does not take part" in report and "CFG++ samplers ran at the teacher's cfg 3" in report
    assert "dpmpp_2m_sde of ComfyUI, simple" in report


def test_stochastic_samplers_are_compared_by_the_frechet_distance():
    name = "tiny_sd15"                                                                      # 8 features
    sd15 = load(name)
    preset = train(sd15, name, calls="2", budget=600, race_seeds=2, teacher_calls=8, name="crowd")[0]
    scene = {"positive": prompt(name), "negative": prompt(name, 9), "latent": latent(name)}
    raced, report, _ = race(sd15, preset, calls="2", seeds=10, samplers="euler_ancestral", **scene)
    crowd = report[report.index("by the Fréchet distance"):]
    assert "means and deviations of the latent's channels" in crowd and "euler_ancestral of ComfyUI, karras" in crowd
    assert "euler_ancestral" not in report[:report.index("by the Fréchet distance")]
    assert "frechet" in raced.score("calls2")


def test_the_hosts_euler_is_ours_and_stochastic_samplers_are_told_apart():
    """On the same levels, at equal calls: what the host's function makes is what the table makes."""
    found, pairs = {}, trainers("teacher.pairs")

    def work(source):
        for name in ("euler", "heun", "dpmpp_2m", "uni_pc", "euler_ancestral", "dpmpp_sde", "euler_cfg_pp"):
            found[name] = ours("hosts.comfyui.nodes_training").entries((name,), source, [5])[0][5]
        some = pairs.known_pairs(source, range(3), None)
        [theirs] = [entry.table for entry in found["euler"] if entry.schedule_name == "simple"]
        return pairs.ends(source, theirs, some), pairs.ends(source, ours("core").classical.euler(theirs.sigmas), some)
    theirs, mine = inside(load("tiny_sd15"), "tiny_sd15", work)
    torch.testing.assert_close(theirs, mine, rtol=0, atol=1e-4 * float(mine.abs().max()))
    assert {name: {entry.frechet_only for entry in entries} for name, entries in found.items()} == {
        **dict.fromkeys(("euler", "heun", "dpmpp_2m", "uni_pc"), {False}),
        **dict.fromkeys(("euler_ancestral", "dpmpp_sde", "euler_cfg_pp"), {True})}
    assert {(entry.table.calls, len(entry.table.sigmas)) for entry in found["heun"]} == {(5, 4)}     # two calls a step


def test_every_sampler_that_is_stochastic_or_cfg_pp_is_told_apart_at_two_calls_too():
    """Most stochastic samplers add no noise in their last step, and with two calls a step that is all they make."""
    stochastic = {name for name in comfy.samplers.SAMPLER_NAMES if "ancestral" in name or "sde" in name or
                  name.startswith(("sa_solver", "seeds_"))} | {"ddpm", "lcm"}
    found = inside(load("tiny_sd15"), "tiny_sd15",
                   lambda source: ours("hosts.comfyui.nodes_training").entries(("all",), source, [2, 5]))
    by_calls, notes = found
    names = {calls: {entry.solver_name.removesuffix(" of ComfyUI"): entry.frechet_only for entry in entries}
             for calls, entries in by_calls.items()}
    for judged in names.values():
        assert {name for name, frechet_only in judged.items() if frechet_only} == {
            name for name in judged if name in stochastic or "cfg_pp" in name}
    known = {name for name in comfy.samplers.SAMPLER_NAMES if not name.startswith("s4s") and not name.endswith("_gpu")}
    assert set(names[5]) == known - {"dpm_adaptive"} and {"dpmpp_sde", "seeds_2", "dpm_2_ancestral"} <= set(names[2])
    assert all(len(entry.table.sigmas) - 1 <= entry.table.calls <= calls
               for calls, entries in by_calls.items() for entry in entries)
    assert "dpm_adaptive does not take part: dpm_adaptive chooses its own number of calls: leave it out" in notes
    assert "seeds_3 does not take part at 2 calls: not even one of its steps fits" in notes or "seeds_3" in names[2]
    assert any("without the schedules ddim_uniform, which" in note for note in notes)
    assert any(note.startswith("CFG++ samplers ran at the teacher's cfg ") for note in notes)


def test_a_sampler_of_a_pack_is_recognised_as_cfg_pp_however_it_is_spelled():
    is_cfg_pp = ours("hosts.samplers")._is_cfg_pp
    assert all(map(is_cfg_pp, ("euler_cfg_pp", "cfgpp_ud10_ab", "Euler CFG++", "DPM++ 2M CFG++")))
    assert not any(map(is_cfg_pp, ("dpmpp_2m", "DPM++ 2M", "euler")))


def test_a_small_budget_searches_less_and_too_small_a_one_says_what_would_do(sd3, preset):
    raced, *_ = race(sd3, preset, budget=1400)
    assert 3 <= raced.score("calls4")["baselines_raced"] < 200
    with pytest.raises(ValueError, match="too small for this race: at least"):
        race(sd3, preset, budget=100)


def test_what_cannot_be_raced_is_refused_in_words(sd3, preset):
    with pytest.raises(ValueError, match="it is for flow prediction, the model's is eps"):
        race(load("tiny_sd15"), preset)
    with pytest.raises(ValueError, match="has tables for 3, 4 calls, none for 7"):
        race(sd3, preset, calls="7")


def test_an_interruption_ends_the_race_and_writes_nothing(sd3, preset):
    import comfy.model_management as host
    path = ours("hosts.comfyui.folder").home() / "raced.safetensors"
    before = path.read_bytes()
    host.interrupt_current_processing(True)
    with pytest.raises(host.InterruptProcessingException):
        race(sd3, preset, write_scores=True)
    assert path.read_bytes() == before


def test_a_vae_decodes_the_sheet(sd3, preset):
    class HalfSize:
        """Stands in for a VAE: takes latents as the host's VAE does, gives pictures of half of 0..1."""
        def decode(self, latents):
            assert latents.shape[1:] == (16, 8, 8)
            return torch.full((len(latents), 64, 64, 3), 0.5)
    _, _, sheet = race(sd3, preset, vae=HalfSize())
    assert float((sheet - 0.5).abs().lt(0.01).float().mean()) > 0.5
