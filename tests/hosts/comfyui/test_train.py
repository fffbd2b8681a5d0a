"""The Train node in the real host, on tiny random models: what it learns, what it leaves, how it is stopped."""

import logging
import re
from pathlib import Path

import comfy.model_management
import comfy.samplers
import folder_paths
import pytest
import s4s_tools
import torch
from training_kit import latent, load, ours, prompt, same_state, sampled, state_of, train

SMALL = {"calls": "3", "budget": 3000, "race_seeds": 2, "teacher_calls": 12}
RACED_ALONE = "this was trained before with the same settings: taken from"


@pytest.fixture(scope="module")
def sd3():
    return load("tiny_sd3")


@pytest.fixture(scope="module")
def learned(sd3):
    """(state before, picture before, what the node put out) of the file's one training of some size."""
    before, picture = state_of(sd3), sampled(sd3, "tiny_sd3")
    return before, picture, train(sd3, "tiny_sd3", calls="5", budget=8000, name="learned")


def presets() -> Path:
    return ours("hosts.comfyui.folder").home()


def counting(model, on_call):
    """A MODEL that tells on_call(number of the call, images) before every call of its network."""
    model, made = model.clone(), [0]

    def wrapper(apply_model, arguments):
        made[0] += 1
        on_call(made[0], len(arguments["input"]))
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])
    model.set_model_unet_function_wrapper(wrapper)
    return model


def host_teacher(model, sampler: str, steps: int = 12) -> dict:
    sampling = model.get_model_object("model_sampling")
    return {"teacher_sampler": comfy.samplers.sampler_object(sampler),
            "teacher_sigmas": comfy.samplers.calculate_sigmas(sampling, "normal", steps)}


# --- what it learns -------------------------------------------------------------------------------------------------

def test_it_beats_euler_and_the_best_classical_pair_on_unseen_seeds(sd3, learned):
    preset, report, tables, sheet, before_after = learned[2]
    scores = preset.score("calls5")
    assert scores["ratio"] > 1.1 and scores["seeds"] == 4, report
    assert preset.training["model_calls"] <= 8000
    assert tables.shape[0] == 1 and tables.shape[3] == sheet.shape[3] == 3 and len(before_after) == 8
    assert 0 <= float(sheet.min()) < float(sheet.max()) <= 1


def test_it_is_closer_in_the_hosts_own_sampler_than_the_hosts_euler_and_dpmpp_2m(sd3, learned):
    """Rows s4s of the dropdowns against core's samplers, all by the host's own KSampler, on seeds of its own."""
    def apart(sampler, scheduler):
        return sum(float((sampled(sd3, "tiny_sd3", sampler, scheduler, 5, seed=seed) - target).square().mean().sqrt())
                   for seed, target in targets.items())
    targets = {seed: sampled(sd3, "tiny_sd3", "ipndm", "simple", 50, seed=seed) for seed in (41, 42, 43)}
    mine = apart("s4s", "s4s")
    assert all(mine < apart(sampler, scheduler) for sampler in ("euler", "dpmpp_2m", "ipndm")
               for scheduler in ("simple", "normal", "beta"))


def test_the_preset_is_in_the_dropdown_at_once_and_fits_the_model(sd3, learned, caplog):
    with caplog.at_level(logging.INFO):
        sampled(sd3, "tiny_sd3", "s4s", "s4s", steps=5)
    assert f"S4S learned ({learned[2][0].short_hash}), calls5, exact" in caplog.text
    assert (presets() / "learned.safetensors").exists()


def test_the_host_runs_the_node_again_once_its_preset_was_deleted(sd3, learned):
    node, path = ours("hosts.comfyui.nodes_training").S4STrainPreset, presets() / "learned.safetensors"
    before = node.fingerprint_inputs(name="learned", calls="5")
    assert node.fingerprint_inputs(name="learned") == before and node.fingerprint_inputs(name=None) == 0
    content = path.read_bytes()
    path.unlink()
    assert node.fingerprint_inputs(name="learned") == before + 1
    path.write_bytes(content)
    assert node.fingerprint_inputs(name="learned") == before + 1


def test_the_model_is_bit_for_bit_what_it_was(sd3, learned):
    before, picture, _ = learned
    assert same_state(before, state_of(sd3))
    assert torch.equal(picture, sampled(sd3, "tiny_sd3"))


def test_an_eps_model_learns_too():
    model = load("tiny_sd15")
    before = state_of(model)
    with torch.inference_mode():
        small = {"samples": torch.zeros(1, 4, 4, 4)}
    preset, report, *_ = train(model, "tiny_sd15", **SMALL | {"latent": small, "name": "eps", "calls": "2",
                                                              "budget": 2500, "teacher_calls": 6})
    began, ended = preset.training["held_out_rmse"]["calls2"]
    assert preset.model.prediction == "eps" and ended < began, report
    assert same_state(before, state_of(model))


def test_one_table_is_learned_for_several_sizes_and_runs_near_each(sd3, caplog):
    with torch.inference_mode():
        wide, same = {"samples": torch.zeros(1, 16, 16, 16)}, latent("tiny_sd3")
    preset, report, _, sheet, pairs = train(sd3, "tiny_sd3", **SMALL, name="sizes", latent_2=wide, latent_3=same)
    assert preset.training["resolution"] == [[16, 16], [8, 8]] and "latent 16 x 16 x 16 and 16 x 8 x 8" in report
    assert sheet.shape[3] == 3 and len(pairs) % 2 == 0
    for size, runs in ((8, True), (16, True), (32, False)):
        caplog.clear()
        with caplog.at_level(logging.INFO), torch.inference_mode():
            import nodes
            nodes.common_ksampler(sd3, 1, 3, 3.0, "s4s", "s4s", prompt("tiny_sd3"), prompt("tiny_sd3", 9),
                                  {"samples": torch.zeros(1, 16, size, size)})
        assert (f"S4S sizes ({preset.short_hash}), calls3, exact" in caplog.text) == runs, caplog.text
    assert "sizes was learned on latents of 16 x 16 and 8 x 8, this one is 32 x 32" in caplog.text


def test_several_sizes_need_the_trainers_own_teacher(sd3):
    with pytest.raises(ValueError, match="a training for several sizes uses its own teacher: leave teacher_sampler"):
        train(sd3, "tiny_sd3", latent_2=latent("tiny_sd3"), **host_teacher(sd3, "euler"))


@pytest.fixture(scope="module")
def undistilled():
    """A MODEL of other weights than the file's, as a patch makes them, and how many images its network is shown."""
    model, shown = load("tiny_sd3").clone(), []
    key = "diffusion_model.final_layer.linear.weight"
    model.add_patches({key: ("diff", (0.5 * model.model_state_dict()[key].clone().float(),))}, 1.0)
    return counting(model, lambda number, images: shown.append(images)), shown


def test_another_model_is_the_teacher_of_a_distilled_one(sd3, undistilled):
    (teacher, shown), before = undistilled, state_of(sd3)
    given = {"cfg": 1.0, "teacher_model": teacher, "teacher_cfg": 4.0}
    preset, report, *_ = train(sd3, "tiny_sd3", **SMALL, **given, name="taught")
    assert preset.training["teacher"].startswith("teacher_model at cfg 4: unipc_bh2_3") and "cfg 1, " in report
    assert preset.training["cfg"] == [1.0, 1.0] and sum(shown) > 2 * 12 * 16       # both halves of its guidance
    assert same_state(before, state_of(sd3)) and "teacher teacher_model at cfg 4" in report
    assert preset.training["taught_by"] == "teacher_model"
    race = ours("hosts.comfyui.nodes_training").S4SRace
    terms = {"positive": prompt("tiny_sd3"), "negative": prompt("tiny_sd3", 9), "latent": latent("tiny_sd3"),
             "cfg": 1.0, "calls": "", "seeds": 2, "seed": 0, "samplers": "", "budget": 4000, "teacher_calls": 12,
             "write_scores": False}
    words = race.execute(model=sd3, preset=preset, **terms).args[1]
    assert "it learned from teacher_model, which is not the teacher here" in words
    words = race.execute(model=sd3, preset=preset, **terms, teacher_model=teacher, teacher_cfg=4.0).args[1]
    assert "teacher teacher_model at cfg 4" in words and "is not the teacher here" not in words


@pytest.mark.parametrize("more, words", [
    ({"latent_2": {"samples": torch.zeros(1, 16, 16, 16)}}, "teacher_model is for one model at one size"),
    ({"sampler": "euler"}, "leave out a solver"), ({"teacher": "tiny_sd15"}, "their noise levels or latents")])
def test_a_teacher_that_does_not_fit_is_refused(sd3, undistilled, more, words):
    more = {**more, **(host_teacher(sd3, more.pop("sampler")) if "sampler" in more else {})}
    teacher = load(more.pop("teacher")) if "teacher" in more else undistilled[0]
    with pytest.raises(ValueError, match=words):
        train(sd3, "tiny_sd3", **SMALL, teacher_model=teacher, name="refused", **more)


def test_a_window_gets_its_own_table_which_an_image_to_image_run_uses(sd3, caplog):
    preset, *_ = train(sd3, "tiny_sd3", **SMALL, windows="1.0,0.5", name="windows")
    name, table = next((name, table) for name, table in preset.tables.items() if "_from" in name)
    assert set(preset.tables) == set(preset.scores) == {"calls3", name}
    with caplog.at_level(logging.INFO), torch.inference_mode():
        sampler = comfy.samplers.sampler_object("s4s")
        guider = comfy.samplers.CFGGuider(sd3)
        guider.set_conds(prompt("tiny_sd3"), prompt("tiny_sd3", 9))
        guider.set_cfg(3.0)
        image = torch.randn(1, 16, 8, 8)
        guider.sample(torch.randn(1, 16, 8, 8), image, sampler, torch.tensor(table.sigmas, dtype=torch.float32), seed=0)
    assert name in caplog.text


def test_one_preset_serves_a_range_of_cfg(sd3):
    before = state_of(sd3)
    preset, report, *_ = train(sd3, "tiny_sd3", **SMALL, cfg="2-4", name="range")
    assert set(preset.tables) == {"calls3_cfg2", "calls3_cfg4"} and set(preset.scores) == {"calls3_cfg4"}
    assert "cfg 2 to 4" in report and same_state(before, state_of(sd3))
    assert not (preset.tables["calls3_cfg2"].weights == preset.tables["calls3_cfg4"].weights).all()
    assert "between those learned at cfg 2 and 4" in ours("select.cfg").at_cfg(preset, 3.0)[1]


def test_the_hosts_own_sampler_may_teach(sd3):
    preset, report, *_ = train(sd3, "tiny_sd3", **SMALL, **host_teacher(sd3, "euler_cfg_pp"), name="taught")
    assert preset.training["teacher"] == "euler_cfg_pp, 12 calls", report


# --- what it refuses ------------------------------------------------------------------------------------------------

def test_a_stochastic_teacher_is_refused_with_the_reason(sd3):
    for sampler in ("euler_ancestral", "dpmpp_2m_sde", "lcm"):
        with pytest.raises(ValueError, match="stochastic: two runs from the same noise differ by"):
            train(sd3, "tiny_sd3", **SMALL, **host_teacher(sd3, sampler, 4), name="by chance")


@pytest.mark.parametrize("settings, words", [
    ({"negative": None}, "no negative conditioning is connected"),
    ({"negative": None, "cfg": "1-3"}, "cfg is 3 but no negative conditioning is connected"),
    ({"cfg": "3 to 7"}, "a range such as 3-7"),
    ({"teacher_sampler": "any"}, "needs both teacher_sampler and teacher_sigmas"),
    ({"name": "a/b"}, "letters, digits"),
    ({"budget": 500, "calls": "12"}, "too small for a table of 12 calls"),
])
def test_settings_that_cannot_work_are_refused_in_words(sd3, settings, words):
    with pytest.raises(ValueError, match=words):
        train(sd3, "tiny_sd3", **SMALL | settings)


def test_teacher_levels_that_make_no_whole_picture_are_refused(sd3):
    half = host_teacher(sd3, "euler")
    half["teacher_sigmas"] = half["teacher_sigmas"][6:]
    with pytest.raises(ValueError, match="the model's pictures begin at 1"):
        train(sd3, "tiny_sd3", **SMALL, **half, name="half")


def checked(monkeypatch, **values):
    """What the node says of its values before a prompt is taken; the host shows one input to it."""
    values = {"calls": "4", "windows": "1.0", "name": "x", **values}
    monkeypatch.setattr(ours("hosts.comfyui.record"), "_checked", {"": {"inputs": {**values, "model": ["1", 0]}}})
    return ours("hosts.comfyui.nodes_training").S4STrainPreset.validate_inputs(calls=values["calls"])


@pytest.mark.parametrize("values, words", [
    ({"calls": "four"}, "is not a list of whole numbers"), ({"calls": ""}, "calls is empty: write one number"),
    ({"windows": "0.5"}, "including 1"), ({"budget": "long"}, "use quick, normal, thorough"),
    ({"cfg": "7-3"}, "a range such as 3-7"), ({"cfg_range": "3-7"}, "write the range into cfg"),
    ({"name": "a/b"}, "letters, digits"),
    *(({"name": name}, "Choose another name") for name in ("../x", "a\nb", "x" * 101, "state", ""))])
def test_settings_are_checked_before_anything_runs(monkeypatch, values, words):
    assert words in checked(monkeypatch, **values)


@pytest.mark.parametrize("values", [{"calls": "4,5", "windows": "1.0,0.5"}, {"calls": "4; 5 6", "windows": "1 0.5"},
                                    {"budget": "quick"}, {"budget": "only estimate"}, {"budget": 10000},
                                    {"cfg": "5"}, {"cfg": "3-7"}, {"cfg": 4.0, "cfg_range": ""}])
def test_settings_that_can_work_are_taken(monkeypatch, values):
    assert checked(monkeypatch, **values) is True


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(ours("hosts.comfyui.nodes_training"), "home", lambda: tmp_path / "file")
    assert "cannot be saved in" in checked(monkeypatch)


def test_an_estimate_names_every_budget_and_trains_nothing(sd3):
    preset, report, *rest = train(sd3, "tiny_sd3", **SMALL | {"budget": "only estimate", "name": "estimated"})
    assert all(f"{name}: about" in report for name in ("quick", "normal", "thorough")) and "on this device" in report
    assert {type(each).__name__ for each in (preset, *rest)} == {"ExecutionBlocker"}
    assert not list(presets().glob("estimated*")) and not list(ours("hosts.comfyui.work").runs().glob("estimated*"))


def test_before_and_after_are_pairs_of_one_seed_and_the_report_is_a_page(learned, sd3):
    *_, sheet, pairs = learned[2]
    assert len(pairs) % 2 == 0 and pairs.shape[-1] == 3 and not torch.equal(pairs[0::2], pairs[1::2])
    folder, digits = Path(folder_paths.get_output_directory()) / "s4s_reports", learned[2][0].short_hash
    text = (folder / f"learned-{digits}.html").read_text()
    assert "5 network calls" in text and "data:image/png" in text and "<script" not in text


def test_another_models_preset_is_not_overwritten(sd3, learned):
    with pytest.raises(ValueError, match="preset for another model .sd3.: give this one another name"):
        train(load("tiny_wan"), "tiny_wan", **SMALL, name="learned")


def test_a_finished_preset_of_another_run_stays(sd3):
    """Other settings under one name: the second is saved beside the first, and the report says so."""
    first, *_ = train(sd3, "tiny_sd3", **SMALL, name="twice")
    second, report, *_ = train(sd3, "tiny_sd3", **SMALL | {"calls": "2"}, name="twice")
    assert (second.name, "another preset is already called twice" in report) == ("twice-2", True)
    for name, made in (("twice", first), ("twice-2", second)):
        assert ours("core.preset_file").load(presets() / f"{name}.safetensors").short_hash == made.short_hash


def test_a_finished_training_is_not_that_of_a_model_with_something_hung_into_it(sd3):
    """Under the same name and settings: it learns anew, and is saved beside the other."""
    first, *_ = train(sd3, "tiny_sd3", **SMALL, name="hung")
    model = s4s_tools.through(sd3, "comfy_extras.nodes_model_advanced", "RescaleCFG", multiplier=0.7)
    second, report, *_ = train(model, "tiny_sd3", **SMALL, name="hung")
    assert "trained before" not in report and second.short_hash != first.short_hash and second.name == "hung-2"
    assert second.model.hashes == {**first.model.hashes, "patches": second.model.hashes["patches"]}


def test_a_training_behind_a_patch_that_counts_is_known_again_and_its_preset_runs(sd3, caplog):
    calls = []
    model = counting(sd3, lambda number, images: calls.append(number))
    first, *_ = train(model, "tiny_sd3", **SMALL, name="counted")
    made = len(calls)
    again, *_ = train(model, "tiny_sd3", **SMALL, name="counted", resume=True)      # only its race is run again
    assert (again.name, again.short_hash) == ("counted", first.short_hash) and len(calls) - made < made / 2
    for each, runs in ((model, True), (sd3, False)):
        caplog.clear()
        with caplog.at_level("INFO"):
            sampled(each, "tiny_sd3", "s4s", "s4s", 3)
        assert any(line.startswith("S4S counted (") for line in caplog.messages) is runs, caplog.text


# --- how it is stopped and goes on ----------------------------------------------------------------------------------

@pytest.fixture
def interrupted_in(monkeypatch):
    """interrupted_in(phase): the host's button is pressed when the node shows this phase, once; shown lines."""
    def press(phase: str) -> list:
        lines, errors, show = [], set(), ours("hosts.comfyui.work").Node.show

        def watched(node, done, total, line, preview=None):
            errors.update(re.findall("so far ([^ ]+) times closer", line))
            if line.startswith(phase) and (phase != "learning" or len(errors) > 1):     # better than at the start
                monkeypatch.undo()
                comfy.model_management.interrupt_current_processing(True)
            lines.append(line)
            show(node, done, total, line, preview)
        monkeypatch.setattr(ours("hosts.comfyui.work").Node, "show", watched)
        return lines
    return press


def test_an_interruption_stops_within_a_call_keeps_the_best_and_goes_on_bit_for_bit(sd3, interrupted_in, monkeypatch):
    settings = {**SMALL, "name": "stopped"}
    whole, *_ = train(sd3, "tiny_sd3", **settings)
    (presets() / "stopped.safetensors").unlink()
    seen, lines, apply_model = [], interrupted_in("learning"), sd3.model.apply_model

    def counted(*args, **more):                             # in the model itself: a wrapper makes another model of it
        seen.append(len(lines))
        return apply_model(*args, **more)
    with monkeypatch.context() as patch, pytest.raises(comfy.model_management.InterruptProcessingException):
        patch.setattr(sd3.model, "apply_model", counted)
        train(sd3, "tiny_sd3", **settings)
    assert seen[-1] < len(lines), "the network was asked after the interruption"
    kept = ours("core.preset_file").load(presets() / "stopped.safetensors")
    assert kept.training["model_calls"] < whole.training["model_calls"] and kept.unfinished
    resumed, *_ = train(sd3, "tiny_sd3", **settings, resume=True, seed=99)      # as a fresh node draws one
    assert resumed.short_hash == whole.short_hash
    assert not ours("core.preset_file").load(presets() / "stopped.safetensors").unfinished


@pytest.mark.parametrize("phase, kept", [("teacher", None), ("race of", "unfinished"), ("reporting", "finished")])
def test_an_interruption_in_any_phase_loses_nothing(sd3, interrupted_in, monkeypatch, caplog, phase, kept):
    settings, path = {**SMALL, "name": f"in {phase}"}, presets() / f"in {phase}.safetensors"
    if phase == "reporting":
        work = ours("hosts.comfyui.work")
        rows = work.sheet_rows

        def press(source, held):
            comfy.model_management.interrupt_current_processing(True)
            return rows(source, held)
        monkeypatch.setattr(work, "sheet_rows", press)
    else:
        interrupted_in(phase)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(sd3, "tiny_sd3", **settings)
    assert path.exists() == (kept is not None)
    if kept is not None:
        assert ours("core.preset_file").load(path).unfinished == (kept == "unfinished")
    monkeypatch.undo()
    with caplog.at_level(logging.INFO):
        made, *_ = train(sd3, "tiny_sd3", **settings, resume=True)
    assert not made.unfinished and made.name == path.stem and ours("core.preset_file").load(path).scores
    assert (RACED_ALONE in caplog.text) == (phase != "teacher")


@pytest.mark.parametrize("name, words", [("x" * 101, "Choose another name"), ("shut", "cannot be saved in")])
def test_what_cannot_be_saved_is_refused_before_the_first_network_call(sd3, monkeypatch, name, words):
    def refuse(path, content):
        raise OSError(30, "Read-only file system")
    monkeypatch.setattr(ours("hosts.runs"), "write_atomically", refuse)
    unasked = counting(sd3, lambda number, images: pytest.fail("the network was asked"))
    with pytest.raises(ValueError, match=words):
        train(unasked, "tiny_sd3", **SMALL, name=name)


def test_a_finished_run_of_the_same_settings_is_not_trained_again(sd3, learned, caplog):
    with caplog.at_level(logging.INFO):
        again, *_ = train(sd3, "tiny_sd3", calls="5", budget=8000, name="learned", resume=True)
    assert again.short_hash == learned[2][0].short_hash
    assert RACED_ALONE in caplog.text
    runs = list((Path(folder_paths.get_output_directory()) / "s4s_runs").glob("learned-*"))
    assert len(runs) == 1 and not (runs[0] / "pairs").exists()


def test_another_prompt_size_or_lora_is_another_run(sd3):
    key, settings = ours("hosts.runs").run_key, ours("hosts.comfyui.work").settings_of
    scene, config = ours("hosts.comfyui.denoiser").Scene, ours("hosts.runs").Config.of(name="x")
    about = ours("hosts.comfyui.facts").of_model
    wide = {"samples": torch.zeros(1, 16, 8, 16)}
    scenes = [scene(sd3, [prompt("tiny_sd3")], None, 1.0, latent("tiny_sd3")),
              scene(sd3, [prompt("tiny_sd3", 1)], None, 1.0, latent("tiny_sd3")),
              scene(sd3, [prompt("tiny_sd3")], None, 1.0, wide),
              scene(with_lora(sd3), [prompt("tiny_sd3")], None, 1.0, latent("tiny_sd3")),
              scene(with_lora(sd3, 0.5), [prompt("tiny_sd3")], None, 1.0, latent("tiny_sd3"))]
    keys = [key(config, about(each.patcher).model, settings(each, None)) for each in scenes]
    assert len(set(keys)) == len(keys)
    assert keys[0] == key(config.replace(seed=7), about(sd3).model, settings(scenes[0], None))


def with_lora(model, strength: float = 1.0):
    """A MODEL with a weight patched the way a LoRA loader does it."""
    model, name = model.clone(), "diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight"
    shape = model.model.state_dict()[name].shape
    change = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert model.add_patches({name: ("diff", (change,))}, strength)
    return model


def test_the_bar_counts_calls_and_shows_the_student_above_its_teacher(sd3, monkeypatch):
    import comfy.utils
    from PIL import Image
    monkeypatch.setattr(ours("hosts.comfyui.work"), "EVERY", 0.0)
    seen = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, **more: seen.append((value, total, preview)))
    try:
        train(sd3, "tiny_sd3", **SMALL, name="shown")
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    pictures = [preview for _, _, preview in seen if preview is not None]
    assert all(kind == "JPEG" and isinstance(picture, Image.Image) for kind, picture, _ in pictures)
    assert len(pictures) > 5 and all(0 <= value <= total for value, total, _ in seen)
    assert max(value for value, *_ in seen) > 1000


# --- whatever samples -----------------------------------------------------------------------------------------------

def test_a_patched_model_is_learned_as_patched(sd3):
    patched = with_lora(sd3)
    before, picture = state_of(patched), sampled(patched, "tiny_sd3")
    assert not torch.equal(picture, sampled(sd3, "tiny_sd3"))
    plain, *_ = train(sd3, "tiny_sd3", **SMALL, name="plain")
    preset, *_ = train(patched, "tiny_sd3", **SMALL, name="patched")
    assert preset.short_hash != plain.short_hash
    select, request, about = ours("library").select, ours("library").Request, ours("hosts.comfyui.facts").of_model
    for model, mine in ((sd3, plain), (patched, preset)):       # each is chosen for its own model, and for no other
        found = select(request(about(model), [plain, preset], 3, cfg=3.0))
        assert not found.fallback and found.preset is mine
        found = select(request(about(model), [preset if mine is plain else plain], 3, cfg=3.0))
        assert found.fallback and "LoRAs and patches" in found.message()
    assert torch.equal(picture, sampled(patched, "tiny_sd3"))
    assert before[1:] == state_of(patched)[1:]


def test_when_memory_runs_out_it_goes_on_with_smaller_batches(sd3, caplog, monkeypatch):
    biggest = []

    def on_call(number, images):
        if images > 8:                      # four images with and without prompt
            raise torch.cuda.OutOfMemoryError("CUDA out of memory, says the test")
        biggest.append(images)
    with caplog.at_level(logging.INFO):
        preset, *_ = train(counting(sd3, on_call), "tiny_sd3", **SMALL, name="cramped")
    assert max(biggest) == 8 and "memory ran out" in caplog.text
    # bit for bit as with four from the start; sixteen at once round otherwise, which learning enlarges (3e-5 here)
    monkeypatch.setattr(ours("hosts.comfyui.denoiser"), "MOST_IMAGES", 4)
    four, *_ = train(sd3, "tiny_sd3", **SMALL, name="four at once")
    assert preset.short_hash == four.short_hash and preset.training["model_calls"] == four.training["model_calls"]


@pytest.mark.parametrize("settings, positives", [({}, 1), ({"positive_2": 5, "positive_3": 6, "positive_4": 7}, 4)])
def test_it_says_how_many_prompts_it_learned_with(sd3, settings, positives):
    more = {name: prompt("tiny_sd3", seed) for name, seed in settings.items()}
    preset, report, *_ = train(sd3, "tiny_sd3", **SMALL, **more, name=f"{positives} prompts")
    assert preset.training["conditionings"] == positives
    assert f"{positives} conditioning" in report
