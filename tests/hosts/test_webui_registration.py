"""Rows and settings in a stand-in for the host: by name, in place, as often as the host likes."""

import ast
import json
import re
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.hosts.webui_double import ROOT, Host, warnings_of
from tests.hosts.webui_presets import shelved


@pytest.fixture
def host(monkeypatch, tmp_path):
    shelved(tmp_path)
    return Host(monkeypatch, tmp_path)


def labels_of(host):
    return [row.label for row in host.schedules.schedulers]


def test_one_sampler_and_a_schedule_type_for_each_preset(host):
    host.load()
    assert [data.name for data in host.samplers.all_samplers] == ["Euler", "S4S"]
    shipped = [f"S4S {path.stem}" for path in sorted((ROOT / "solver_presets").glob("*.safetensors"))
               if not path.stem.startswith("digits-")]                          # of the trainer's own models
    assert labels_of(host) == ["Automatic", "Karras", "S4S Auto", "S4S toy_ sd15", "S4S toy-flow", *shipped]
    assert host.schedules.schedulers_map["s4s_auto"] is host.schedules.schedulers_map["S4S Auto"]
    assert host.samplers.samplers_map["k_s4s"] == host.samplers.samplers_map["s4s"] == "S4S"


def test_a_second_start_replaces_the_rows_in_the_hosts_own_lists(host):
    listed, rows, known = host.samplers.all_samplers, host.schedules.schedulers, host.schedules.schedulers_map
    host.load()
    first = host.sampler(), labels_of(host), len(known)
    host.load()
    assert host.samplers.all_samplers is listed and host.schedules.schedulers is rows
    assert host.schedules.schedulers_map is known and (labels_of(host), len(known)) == first[1:]
    assert [data.name for data in listed] == ["Euler", "S4S"]
    assert type(host.sampler()) is not type(first[0]), "the row still makes samplers of the old version"


def test_reload_ui_runs_what_is_on_disk_now(host, tmp_path):
    clone = tmp_path / "a folder with.dots"
    for name in ("scripts", "s4s_nodes", "solver_presets"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    host.load(clone / "scripts" / "s4s_webui.py")
    source = clone / "s4s_nodes" / "hosts" / "webui" / "labels.py"
    source.write_text(source.read_text(encoding="utf-8").replace('"S4S Auto"', '"S4S Automatic choice"'))
    host.load(clone / "scripts" / "s4s_webui.py")
    assert "S4S Automatic choice" in labels_of(host) and "S4S Auto" not in labels_of(host)


def test_nothing_of_ours_is_left_on_the_path_or_under_a_name_that_others_use(host):
    path = list(sys.path)
    before = {name.partition(".")[0] for name in sys.modules}
    host.load()
    assert sys.path == path
    the_hosts = {*before, *sys.stdlib_module_names, "PIL"}
    assert {name.partition(".")[0] for name in sys.modules} - the_hosts <= {"s4s_webui_clone"}


def test_new_presets_appear_and_gone_ones_go(host, tmp_path):
    host.load()
    shutil.copy(ROOT / "solver_presets" / "digits-eps-cfg3.safetensors", tmp_path / "s4s_presets" / "mine.safetensors")
    (tmp_path / "s4s_presets" / "toy-flow.safetensors").unlink()
    host.load()
    assert "S4S mine" in labels_of(host) and "S4S toy-flow" not in labels_of(host)
    assert "S4S toy-flow" not in host.schedules.schedulers_map and "s4s_toy_flow" not in host.schedules.schedulers_map


def test_a_look_up_before_registration_is_forgotten(host):
    assert host.samplers.get_sampler_and_scheduler("S4S", "S4S Auto") == "default"
    host.load()
    assert host.samplers.get_sampler_and_scheduler("S4S", "S4S Auto").name == "S4S"


def test_option_values_are_scalars_and_the_default_is_no_preset(host):
    """A list or None among them breaks the host's whole answer about samplers."""
    host.load()
    data = host.samplers.all_samplers_map["S4S"]
    assert data.options == {"scheduler": "s4s_auto"} and all(isinstance(v, str) for v in data.options.values())
    json.dumps(data.options)


def test_a_broken_preset_is_left_out_with_a_word_and_the_host_starts(host, tmp_path, caplog):
    (tmp_path / "s4s_presets" / "broken.safetensors").write_bytes(b"\x00" * 100)
    (tmp_path / "s4s_presets" / "a folder.safetensors").mkdir()
    host.load()
    assert "S4S toy_ sd15" in labels_of(host) and not any("broken" in label for label in labels_of(host))
    assert any("broken.safetensors" in line for line in warnings_of(caplog))


def test_sd_next_gets_one_line(host, monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, "modules.sd_samplers_kdiffusion")
    assert host.load() == []
    assert len(warnings_of(caplog)) == 1 and "not loaded" in warnings_of(caplog)[0]
    assert [data.name for data in host.samplers.all_samplers] == ["Euler"]


def test_a_host_of_before_1_9_gets_one_line(host, monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, "modules.sd_schedulers")
    assert host.load() == [] and len(warnings_of(caplog)) == 1 and "1.9" in warnings_of(caplog)[0]


def test_hidden_schedule_types_stay_hidden(host):
    host.schedules.all_schedulers = list(host.schedules.schedulers)
    host.shared.opts.hide_schedulers = ["S4S toy-flow"]
    host.load()
    assert "S4S toy-flow" not in labels_of(host)
    assert "S4S toy-flow" in [row.label for row in host.schedules.all_schedulers]


def test_no_sampler_name_ends_in_a_schedule_type(host):
    """Hosts cut a schedule's label or name off the end of a sampler's name."""
    host.load()
    tails = {f" {n}".lower() for row in host.schedules.schedulers for n in (row.name, row.label) if "s4s" in n.lower()}
    names = ["S4S", "DPM++ 2M", "DPM++ 2M SDE Karras", "Euler a", "LMS", "UniPC", "DDIM CFG++", "Restart", "LCM"]
    assert not [name for name in names for tail in tails if name.lower().endswith(tail)]
    assert not [label for label in labels_of(host) if not label.startswith(("S4S ", "Automatic", "Karras"))]


@pytest.mark.parametrize("flow", [False, True])
def test_every_schedule_type_answers_n_plus_one_falling_levels_for_any_n(monkeypatch, tmp_path, flow):
    shelved(tmp_path)
    host = Host(monkeypatch, tmp_path, flow=flow)
    host.load()
    for row in host.schedules.schedulers[2:]:
        for n in range(1, 151):
            sigmas = row.function(n=n, sigma_min=0.0, sigma_max=1.0, inner_model=host.wrap, device="cpu")
            assert sigmas.shape == (n + 1,) and sigmas.dtype == torch.float32 and sigmas[-1] == 0, (row.label, n)
            assert (sigmas.diff() < 0).all(), (row.label, n)
            assert sigmas[0] == pytest.approx(float(host.wrap.sigmas[-1]), rel=0.02), (row.label, n)


def test_labels_are_different_and_fit_infotexts_and_plots(host):
    host.load()
    labelled = host.part("labels").labelled
    got = labelled(["a, b", "a_ b", "Auto", "c:d", "portraits/x", "日本", 'q"'])
    assert list(got.values()) == ["a, b", "a_ b", "Auto", "c:d", "portraits/x", "日本", 'q"']
    assert len(got) == 7 and "S4S Auto" not in got
    assert not any(set(label) & set(',:"\n') for label in got)


def test_the_settings_are_known_at_once_and_again_when_the_page_is_built(host):
    host.load()
    known = host.shared.opts.data_labels
    assert {"s4s_default_sd15", "s4s_default_sd3", "s4s_matching", "s4s_fallback"} <= set(known)
    assert known["s4s_default_sd15"].arguments()["choices"][:2] == ["Auto", "toy, sd15"]
    first = dict(known)
    for callback in host.callbacks["on_ui_settings"]:
        callback()
    assert set(known) == set(first)


class Dropdown:
    """A host's component: what it lets a user choose."""

    def __init__(self, choices):
        self.choices = choices


@pytest.mark.parametrize("pairs", [False, True])
def test_a_new_preset_is_put_into_the_dropdowns_of_the_open_page(host, tmp_path, pairs):
    host.load()
    theirs = ["Use same scheduler", *labels_of(host)]
    made = {"hr_scheduler": Dropdown([(c, c) for c in theirs] if pairs else list(theirs)),
            "s4s_race_preset": Dropdown([]), "txt2img_sampling": Dropdown(["Euler", "S4S"]), "seed": Dropdown([])}
    for name, component in made.items():
        for callback in host.callbacks["on_after_component"]:
            callback(component, elem_id=name)
    shutil.copy(ROOT / "solver_presets" / "digits-eps-cfg3.safetensors", tmp_path / "s4s_presets" / "mine.safetensors")
    found = host.part("dropdowns").on_this_page()
    assert set(found) == {"hr_scheduler", "s4s_race_preset"}
    hires, ours = host.part("dropdowns").refreshed(found)
    assert hires["choices"] == ["Use same scheduler", *labels_of(host)] and "S4S mine" in hires["choices"]
    assert "S4S mine" in ours["choices"] and "S4S Auto" not in ours["choices"]
    assert len(made["hr_scheduler"].choices) == len(theirs) + 1
    assert isinstance(made["hr_scheduler"].choices[0], tuple) == pairs
    (tmp_path / "s4s_presets" / "mine.safetensors").unlink()
    assert host.part("dropdowns").refreshed(found)[0]["choices"] == theirs


def test_the_tab_asks_for_what_its_controls_say(host, monkeypatch):
    host.load()
    tab, asked = host.part("tab"), []
    work = SimpleNamespace(**{name: lambda **wish: asked.append(wish) for name in ("training", "race")})
    monkeypatch.setattr(tab.jobs.JOBS, "add", lambda title, prepare: prepare(work))
    scene = {"prompts": ("a cat", "a house"), "negative": "bad", "cfg": 2.0, "width": 64, "height": 96}
    shown = ("a cat\n\n  a house ", "bad", 2, 64.0, 96.0)
    assert tab.start_training(*shown, " mine ", "4; 6", "1 0.5", "Custom number", 3000.0, 8.0,
                              "128x96, 64×64") == ""
    assert tab.start_race(*shown, "S4S mine", "", 8.0, 20000.0, True, "Heun,  DPM++ SDE") == ""
    assert asked == [{**scene, "scales": (2.0,), "name": "mine", "calls": (4, 6), "windows": (1.0, 0.5),
                      "budget": 3000, "race_seeds": 8, "more_sizes": ((128, 96), (64, 64))},
                     {**scene, "label": "S4S mine", "calls": (), "seeds": 8, "budget": 20000, "write": True,
                      "samplers": ("Heun", "DPM++ SDE")}]
    tab.start_training(*shown, "mine", "4", "1", "Quick", None, 8)
    assert asked[-1]["budget"] == "quick"
    assert "teacher" not in asked[-1]
    for given, teacher in (("euler, sgm_uniform, 8", "euler, sgm_uniform"), (" DPM++ 2M,SGM Uniform,8 ",
                                                                              "dpmpp_2m, sgm_uniform")):
        tab.start_training(*shown, "mine", "4", "1", "Quick", None, 8, "", given)
        assert (asked[-1]["teacher"], asked[-1]["teacher_calls"]) == (teacher, 8)
    for given, scales, sampled in (("3-7", (3, 4.6, 7), 4.6), ("0.5-2", (0.5, 1, 2), 2), ("1", (1,), 1)):
        tab.start_training(*shown[:2], given, *shown[3:], "mine", "4", "1", "Quick", None, 8)
        assert (asked[-1]["scales"], asked[-1]["cfg"]) == (scales, sampled)
    good = (*shown, "mine", "4", "1", "Custom number", 3000, 8, "", "")
    for place, value, words in ((6, "four", "is not a list of whole numbers"), (6, "", "Steps is empty"),
                                (3, None, "Width: use at least 8, not nothing"), (2, None, "write a guidance scale"),
                                (2, "7-3", "a range such as 3-7"), (2, "many", "a range such as 3-7"),
                                (3, -64, "Width: use at least 8, not -64"), (9, 0, "table: use at least 1, not 0"),
                                (10, None, "race: use at least 2, not nothing"), (10, 1, "race: use at least 2, not 1"),
                                (11, "768", "More sizes: &#x27;768&#x27; is not a list of widths and heights"),
                                (12, "euler, 8", "Teacher: &#x27;euler, 8&#x27; is not a teacher. Write a")):
        refused = tab.start_training(*good[:place], value, *good[place + 1:])
        assert words in refused and "Error" not in refused
    assert len(asked) == 8


def test_every_word_is_translated_and_the_files_are_whole():
    texts = set()
    for path in (ROOT / "s4s_nodes" / "hosts" / "webui").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "say":
                texts.add(node.args[0].value)
    words = json.loads((ROOT / "s4s_nodes" / "hosts" / "webui" / "words.json").read_text(encoding="utf-8"))
    assert set(words) == {"zh", "ja"}
    for language, known in words.items():
        assert set(known) == texts, (language, texts ^ set(known))


@pytest.mark.parametrize("name, language", [("None", "en"), ("zh_CN", "zh"), ("zh-Hans (Stable)", "zh"),
                                            ("ja_JP", "ja"), ("日本語", "ja"), ("fr_FR", "en")])
def test_the_language_is_the_hosts(host, name, language):
    host.shared.opts.localization = name
    host.load()
    assert host.part("words").language() == language
    label = host.shared.opts.data_labels["s4s_fallback"].label
    assert (label == "When no preset fits") == (language == "en")


def test_facts_of_the_hosts_models(host):
    host.load()
    of = host.part("facts").of
    eps = of(host.wrap, host.shared.sd_model)
    assert (eps.prediction, eps.family, eps.shift, eps.zero_terminal_snr) == ("eps", "sd15", None, False)
    assert eps.sigma_max == pytest.approx(14.6146, rel=1e-4)
    v = of(host.wrap, SimpleNamespace(is_sd2=True, parameterization="v", latent_channels=4))
    assert (v.prediction, v.family, v.channels) == ("v", "sd20", 4)
    assert of(host.wrap, SimpleNamespace(model_config=_config("WAN21_I2V"))).family == "wan21"
    wide = _config("WAN21_T2V", unet_config={"dim": 5120})
    assert of(host.wrap, SimpleNamespace(model_config=wide)).family == "wan21, 14b"
    chroma = _config("FluxSchnell", huggingface_repo="Chroma")              # as Forge's loader leaves it
    assert of(host.wrap, SimpleNamespace(model_config=chroma)).family == "chroma"
    schnell = _config("FluxSchnell", huggingface_repo="black-forest-labs/FLUX.1-schnell")
    assert of(host.wrap, SimpleNamespace(model_config=schnell)).family == "fluxschnell"
    flux = SimpleNamespace(prediction_type="const", mu=1.15)
    wrap = SimpleNamespace(sigmas=np.linspace(0.0003, 1, 10000), predictor=flux)
    seen = of(wrap, SimpleNamespace(model_config=_config("Flux")))
    assert (seen.prediction, seen.family) == ("flow", "flux") and seen.shift == pytest.approx(3.158, rel=1e-3)
    endless = SimpleNamespace(sigmas=np.geomspace(0.03, 4518.0, 1000), predictor=SimpleNamespace(
        prediction_type="v_prediction"))
    assert of(endless, SimpleNamespace()).zero_terminal_snr
    assert of(SimpleNamespace(sigmas=np.linspace(0.003, 1, 1000)), SimpleNamespace(is_sd3=True, shift=3)).shift == 3.0


def test_another_checkpoint_in_the_same_network_is_hashed_anew(host, tmp_path):
    """A1111 loads a checkpoint of the same kind into the network it has; the file's size and time tell."""
    host.load()
    network, path = torch.nn.LayerNorm(64), tmp_path / "model.safetensors"
    path.write_bytes(b"one")
    model = SimpleNamespace(model=SimpleNamespace(diffusion_model=network),
                            sd_checkpoint_info=SimpleNamespace(filename=str(path), shorthash=None,
                                                               name_for_extra="model"))
    hashes = host.part("facts").of(host.wrap, model).fingerprint
    first = hashes()
    with torch.no_grad():
        network.bias.normal_(generator=torch.Generator().manual_seed(0))
    assert hashes() == first                                    # read once, whatever is patched while it is loaded
    path.write_bytes(b"another")
    assert hashes()["weights_1d"] != first["weights_1d"] and hashes()["file"] == first["file"]


def _config(name: str, **more):
    config = type(name, (), {"__module__": "huggingface_guess.model_list"})()
    vars(config).update(more)
    return config


def test_the_script_room_holds_one_file_and_no_package():
    assert [path.name for path in (ROOT / "scripts").iterdir() if path.name != "__pycache__"] == ["s4s_webui.py"]


def test_the_pages_script_finds_its_control():
    [name] = re.findall(r"#(s4s_\w+)", (ROOT / "javascript" / "s4s.js").read_text(encoding="utf-8"))
    assert f'elem_id="{name}"' in (ROOT / "s4s_nodes" / "hosts" / "webui" / "tab.py").read_text(encoding="utf-8")
