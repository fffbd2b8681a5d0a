"""A training and a race in both hosts' adapters: stopped in every phase, nothing of the user's is lost."""

import contextlib
import re
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from s4s.s4s_nodes.core.lists import numbers
from tests.hosts import comfyui_double
from tests.hosts.webui_double import Host, module

PHASES = ("checking", "teacher", "learning", "saving", "racing", "reporting")
SMALL = {"name": "mine", "calls": (3,), "teacher_calls": 12, "pairs": 16, "validation": 8,
         "budget": 2000}


class Interrupted(BaseException):
    """A host's own."""


class Network:
    """The mixture's denoiser with what the adapters look for on a network."""

    def __init__(self, mixture):
        self.mixture, self.calls, self.on_call = mixture, 0, lambda: None

    def __call__(self, x, sigma, label, cfg=None):
        self.on_call()
        self.calls += len(x)
        return self.mixture(x, sigma, False) * (1 if cfg is None else 1 + 0.02 * cfg[:, None])


class Place:
    """An adapter in the stand-in of its host, whose sampling is the mixture's."""

    def __init__(self, package: str, work, host):
        self.package, self.work, self.host = package, work, host
        self.session = import_module(f"{package}.s4s_nodes.hosts.session")
        self.preset_file = import_module(f"{package}.s4s_nodes.core.preset_file")
        self.network = Network(import_module(f"{package}.s4s_nodes.core").mixture)
        self.said, self.shown, self.bar = [], [], []
        say, show = host.say, host.show
        host.say = lambda text, warning=False: (self.said.append(text), say(text, warning))
        host.show = lambda done, total, line, preview=None: (self.shown.append(line), self.bar.append(done / total),
                                                             show(done, total, line))

    any_cfg, weights, hashes = False, "", {}

    def source(self):
        levels = import_module(f"{self.package}.s4s_nodes.core.schedules").sd_levels()
        model = import_module(f"{self.package}.s4s_nodes.core").Model("toy", "eps", float(levels[0]),
                                                                       float(levels[-1]), hashes=self.hashes)
        return import_module(f"{self.package}.training.source").Source(
            "toy", model, levels, (2,), self.network,
            lambda seeds: {"label": torch.tensor([int(seed) % 3 for seed in seeds])}, 1.0, torch.device("cpu"),
            any_cfg=self.any_cfg, weights=self.weights)

    def order(self, **changes):
        config = self.session.Config.of(**{**SMALL, **{k: v for k, v in changes.items() if k != "resume"}})
        return self.session.TrainingOrder(config, race_seeds=2, resume=changes.get("resume", True))

    def train(self, **changes):
        return self.session.train(self.host, self.order(**changes))

    def files(self):
        return sorted(path.name for path in self.host.presets.iterdir()) if self.host.presets.exists() else []

    def load(self, name: str = "mine"):
        return self.preset_file.load(self.host.presets / f"{name}.safetensors")

    def stop_at(self, phase: str, error: BaseException) -> None:
        """Raise the error in this phase, once."""
        def stop(*_):
            self.undo()
            raise error
        patch = pytest.MonkeyPatch()
        self.undo = patch.undo
        self.shown.clear()
        if phase == "checking":
            patch.setattr(self.network, "on_call", stop)
        elif phase == "saving":
            patch.setattr(self.session, "save_version", stop)
        elif phase == "reporting":
            patch.setattr(self.host, "draw", stop)
        else:
            begins = {"racing": "race of"}.get(phase, phase)
            before = self.host.show

            def show(done, total, line, preview=None):
                learns = phase != "learning" or self.learned()
                if line.startswith(begins) and learns:
                    stop()
                before(done, total, line, preview)
            patch.setattr(self.host, "show", show)

    def learned(self) -> bool:
        """Whether the line shown last says that the table is better than at its start."""
        ratios = [line.split("so far ")[1].split()[0] for line in self.shown if "so far" in line]
        return len(set(ratios)) > 1


@pytest.fixture(params=["comfyui", "webui"])
def place(request, monkeypatch, tmp_path):
    if request.param == "comfyui":
        comfyui_double.install(monkeypatch, tmp_path / "models", tmp_path / "output")
        work = import_module("s4s.s4s_nodes.hosts.comfyui.work")
        monkeypatch.setattr(work.facts, "of_model", lambda patcher: SimpleNamespace(model=None, unfit=""))
        monkeypatch.setattr(work, "painter", lambda *_: lambda latents: latents)
        patcher = SimpleNamespace(model=SimpleNamespace(process_latent_out=lambda latents: latents))
        made = Place("s4s", work, work.Node(SimpleNamespace(patcher=patcher, low_noise=None)))
        monkeypatch.setattr(work, "inside", lambda scene, model, do, loaded=None: do(made.source()))
        yield made
        for name in [name for name in sys.modules if name.startswith("s4s.s4s_nodes.hosts.comfyui")]:
            del sys.modules[name]
        return
    work = webui_work(monkeypatch, tmp_path)
    made = Place("s4s_webui_clone", work, work.Tab(work.Scene(("a cat",)), 4, work.Show()))
    monkeypatch.setattr(work, "inside", lambda scene, steps, seen, do: [do(made.source())])
    monkeypatch.setattr(work, "sheet", lambda *_: Image.new("RGB", (8, 8)))       # the host paints
    yield made


def webui_work(monkeypatch, tmp_path):
    """The module that trains and races in the stand-in for a WebUI."""
    host, package = Host(monkeypatch, tmp_path / "models"), sys.modules["modules"]
    package.paths.data_path = str(tmp_path)
    for name in ("call_queue", "processing"):
        monkeypatch.setitem(sys.modules, f"modules.{name}", module(f"modules.{name}"))
        setattr(package, name, sys.modules[f"modules.{name}"])
    host.shared.state = SimpleNamespace()
    host.load()
    return import_module("s4s_webui_clone.s4s_nodes.hosts.webui.work")


def test_the_webui_reads_the_prompts_for_every_size_and_is_asked_at_each_with_its_own(monkeypatch, tmp_path):
    webui_work(monkeypatch, tmp_path)
    inside = import_module("s4s_webui_clone.s4s_nodes.hosts.webui.inside")
    scene = inside.Scene(("a cat", "a dog"), width=64, height=64, more_sizes=((32, 64), (64, 96), (64, 64)))
    assert scene.sizes == [(64, 96), (64, 64), (32, 64)]
    asked, seen = [], []

    class Processing:
        width, height = scene.sizes[0]

        def setup_conds(self):
            self.c = SimpleNamespace(batch=[f"{text} {self.width}x{self.height}" for text in scene.prompts])
            self.uc = None

        def txt2img_image_conditioning(self, x, width, height):
            return torch.zeros(len(x), 5, 1, 1)

    def answer(x, sigma, cond, uncond, image_cond, cond_scale):
        asked.extend((text, tuple(x.shape[1:])) for text in cond.batch)
        return x
    denoiser = type("Denoiser", (), {"__call__": staticmethod(answer)})()
    denoiser.inner_model = SimpleNamespace(sigmas=torch.linspace(0.1, 14, 5))

    def work(source):
        seen.extend(source.shapes)
        x = source.noise(range(12))
        assert torch.equal(source.denoiser(x, torch.ones(12), **source.extra(range(12))), x)
    stage, p = inside.Stage(scene, work), Processing()
    stage.prepare(p, p.setup_conds)
    assert (p.width, p.height) == scene.sizes[0]
    facts = SimpleNamespace(facts=SimpleNamespace(model=SimpleNamespace(family="toy")))
    with pytest.raises(inside.Finished):
        stage(denoiser, torch.zeros(4, 4, 12, 8), {"cond": p.c, "uncond": None, "image_cond": torch.zeros(4, 5, 1, 1)},
              SimpleNamespace(p=p, request=facts))
    assert seen == [(4, 12, 8), (4, 8, 8), (4, 8, 4)]
    assert set(asked) == {(f"{text} {8 * shape[2]}x{8 * shape[1]}", shape) for text in scene.prompts for shape in seen}


@pytest.mark.parametrize("name", ["../x", "/x", "CON", "a:b", "a\nb", "a" * 101, "state", ""])
def test_a_name_is_checked_before_anything_is_sampled(monkeypatch, tmp_path, name):
    work = webui_work(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match="Choose another name"):
        work.training(prompts=("a cat",), name=name)


def test_the_tabs_messages_name_no_folder_of_the_server(monkeypatch, tmp_path):
    show = webui_work(monkeypatch, tmp_path).Show()
    show.say(f"saved as {tmp_path / 'models' / 's4s_presets' / 'mine.safetensors'}")
    assert show.messages == ["saved as s4s_presets/mine.safetensors"]


@pytest.mark.parametrize("phase", PHASES)
def test_a_stop_in_any_phase_passes_on_and_keeps_what_was_learned(place, phase):
    error = Interrupted()
    place.stop_at(phase, error)
    with pytest.raises(Interrupted) as caught:
        place.train()
    assert caught.value is error
    if phase in ("checking", "teacher"):
        assert place.files() == [] and place.said[-1].startswith("stopped before anything was learned")
    elif phase == "reporting":
        assert not place.load().unfinished and "created" in place.load().training
    else:
        kept = place.load()
        assert kept.unfinished and not kept.recommended and place.files() == ["mine.safetensors"]
        assert "mine.safetensors, marked as unfinished" in place.said[-1]
    made = place.train(seed=7 if phase != "checking" else 0)            # a seed the user never chose
    assert place.files() == (["mine.safetensors"] if phase != "reporting" else ["mine-2.safetensors",
                                                                                "mine.safetensors"])
    assert not made.preset.unfinished and made.preset.training["seed"] == (7 if phase == "reporting" else 0)
    assert made.report.startswith(f"{made.preset.name} ({made.preset.short_hash})")
    if phase in ("saving", "racing"):
        assert any("trained before" in text for text in place.said)


def test_a_resumed_training_ends_as_one_that_was_never_stopped(place):
    whole = place.train(name="whole").preset
    place.stop_at("learning", Interrupted())
    with pytest.raises(Interrupted):
        place.train()
    assert place.train(seed=5).preset.short_hash == whole.short_hash


def test_what_the_race_takes_at_most_is_said_before_the_training(place):
    counted, show = [], place.host.show
    place.host.show = lambda done, total, line, preview=None: (counted.append((line, place.network.calls)),
                                                               show(done, total, line, preview))
    place.train()
    most = re.search(r"its race, at most: about ([\d,]+) network calls, about .+ on this device", place.said[0])[1]
    before = next(calls for line, calls in counted if line.startswith("race"))
    assert 500 < place.network.calls - before < 1.1 * int(most.replace(",", ""))


def test_a_range_of_cfg_is_raced_at_the_node_nearest_to_the_hosts(place):
    place.any_cfg = True
    made = place.train(cfg="2-4")
    assert set(made.preset.tables) == {"calls3_cfg2", "calls3_cfg4"} and set(made.preset.scores) == {"calls3_cfg2"}
    assert "cfg 2 to 4" in made.report and [each["cfg"] for each in made.preset.scores["calls3_cfg2"].values()] == [2]


def test_a_teacher_named_by_solver_and_schedule_teaches_and_judges_or_is_refused(place):
    outcome = place.train(teacher="euler, sgm_uniform", teacher_calls=8)
    assert outcome.preset.training["teacher"] == "euler, sgm_uniform, 8 calls"
    assert "teacher euler, sgm_uniform, 8 calls, off by" in next(line for line in outcome.report.splitlines()
                                                                 if line.startswith("race: "))
    before, files = place.network.calls, place.files()
    with pytest.raises(ValueError, match="unknown teacher 'euler, nowhere': use a solver and a schedule"):
        place.train(teacher="euler, nowhere", teacher_calls=8, name="other")
    assert (place.network.calls, place.files()) == (before, files)


def test_the_tab_trains_for_the_scales_of_its_field(monkeypatch, tmp_path):
    work, orders = webui_work(monkeypatch, tmp_path), []
    monkeypatch.setattr(work.session, "train", lambda tab, order: orders.append((tab.scene.cfg, order.config.cfg)))
    for scales in ((3.0, 4.6, 7.0), (4.6,), ()):
        work.training(prompts=("a cat",), cfg=4.6, scales=scales)(work.Show())
    usual = work.Config().cfg           # of one scale the trainer is told by the source
    assert orders == [(4.6, (3.0, 4.6, 7.0)), (4.6, usual), (4.6, usual)]


@pytest.mark.parametrize("phase", PHASES[2:5])
@pytest.mark.parametrize("trouble", ["a full disk", "a damaged file", "an error nobody thought of"])
def test_nothing_that_fails_afterwards_replaces_the_stop(place, phase, trouble, monkeypatch):
    def failing(error):
        def fail(*_):
            raise error
        return fail
    error, patch = Interrupted(), pytest.MonkeyPatch()
    place.stop_at(phase, error)
    keep = place.session.Training._keep

    def in_trouble(training, stopped):
        if trouble == "a damaged file":
            training.learned = None
            patch.setattr(place.session.preset_file, "load", failing(ValueError("it is damaged")))
        elif trouble == "a full disk":
            patch.setattr(place.session, "save_version", failing(OSError(28, "No space left on device")))
        else:
            patch.setattr(place.session, "save_version", failing(RuntimeError("who knows")))
        keep(training, stopped)
    patch.setattr(place.session.Training, "_keep", in_trouble)
    with pytest.raises(Interrupted) as caught:
        place.train()
    patch.undo()
    assert caught.value is error and place.files() == []
    if trouble != "an error nobody thought of":
        assert "could not be saved as a preset" in place.said[-1]
    assert not place.train().preset.unfinished


def test_a_stopped_race_of_a_finished_training_leaves_its_preset(place):
    place.train()
    before = (place.host.presets / "mine.safetensors").read_bytes()
    place.stop_at("racing", Interrupted())
    with pytest.raises(Interrupted):
        place.train()
    assert place.files() == ["mine.safetensors"]
    assert (place.host.presets / "mine.safetensors").read_bytes() == before


def test_another_runs_preset_of_the_name_stays(place):
    first, second = place.train(), place.train(budget=2100)
    assert (first.preset.name, second.preset.name) == ("mine", "mine-2")
    assert "another preset is already called mine" in second.report
    place.stop_at("learning", Interrupted())
    with pytest.raises(Interrupted):
        place.train(budget=2200)
    assert place.load().short_hash == first.preset.short_hash and place.load("mine-3").unfinished


def test_another_runs_preset_in_the_runs_folder_is_not_taken_for_its_own(place):
    first = place.train()
    place.train(budget=2100)
    one, other = sorted(place.host.runs.glob("*/mine.safetensors"), key=lambda path: path.stat().st_mtime)
    one.write_bytes(other.read_bytes())
    assert place.train().preset.hash == first.preset.hash
    assert not any("trained before" in text for text in place.said)


def test_a_training_that_runs_is_not_deleted_by_another_that_starts_over(place):
    place.train()
    folder, = [each for each in place.host.runs.iterdir() if (each / "state.safetensors").exists()]
    locked = import_module(f"{place.package}.training.lock").locked
    with locked(folder, print), pytest.raises(ValueError, match="another training is running in"):
        place.train(resume=False)
    assert (folder / "state.safetensors").exists()


def test_the_last_words_on_the_hosts_face_are_that_it_stopped(place, monkeypatch):
    """Not "about 48 s left" for good."""
    face = []
    if place.host.kind == "ComfyUI":
        monkeypatch.setattr(place.work.record, "face", lambda text, node: face.append(text))
    place.stop_at("learning", Interrupted())
    with pytest.raises(Interrupted):
        place.train()
    last = (face or place.host.seen.messages)[-1]
    assert last.startswith("stopped; the same settings resume it. The best tables so far are saved as ")


def test_resume_off_starts_over(place):
    place.stop_at("learning", Interrupted())
    with pytest.raises(Interrupted):
        place.train()
    assert place.train(seed=3, resume=False).preset.training["seed"] == 3


@pytest.mark.parametrize("refused", ["read-only", "full", "name", "another model's"])
def test_what_cannot_be_saved_is_refused_before_the_first_network_call(place, refused, monkeypatch):
    errors = {"read-only": OSError(30, "Read-only file system"), "full": OSError(28, "No space left on device"),
              "name": OSError(36, "File name too long")}
    if refused == "another model's":
        made = place.train().preset
        other = place.session.replace(made, model=place.session.replace(made.model, family="another"))
        place.preset_file.save(other, place.host.presets / "mine.safetensors")
        place.network.calls = 0
    else:
        def fail(path, content):
            raise errors[refused]
        runs = import_module(f"{place.package}.s4s_nodes.hosts.runs")
        monkeypatch.setattr(runs, "write_atomically", fail)
    with pytest.raises(ValueError, match="cannot be saved in .*or choose another name|for another model"):
        place.train(seed=1)
    assert place.network.calls == 0


@pytest.mark.parametrize("apart, refused", [(2, False), (40, True)])
def test_a_model_in_another_precision_is_the_same_and_a_fine_tune_of_it_another(place, apart, refused):
    """As hosts match it. The second training is of another run, and is saved beside the first."""
    place.hashes = {"weights_1d": 16 * "0010", "patches": "ab"}
    place.train()
    place.hashes = {"weights_1d": 16 * f"{0x10 + apart:04x}"}
    if refused:
        with pytest.raises(ValueError, match="a preset for another model"):
            place.train()
    else:
        assert place.train().preset.name == "mine-2"


def test_a_race_that_is_stopped_writes_nothing(place):
    made = place.train().preset
    before = (place.host.presets / "mine.safetensors").read_bytes()
    terms = place.session.Terms(tuple(made.tables), range(4), budget=2000, teacher_calls=20)
    error = Interrupted()
    place.stop_at("racing", error)
    with pytest.raises(Interrupted) as caught:
        place.session.race(place.host, made, terms, write=True)
    assert caught.value is error and "nothing was written" in place.said[-1]
    assert (place.host.presets / "mine.safetensors").read_bytes() == before
    raced = place.session.race(place.host, made, terms, write=True)
    assert "scores written into" in raced.report and place.load().scores == raced.preset.scores
    timed = r"race of .*: [\d,]+ of about [\d,]+ network calls, about [^,]+ left"
    assert any(re.fullmatch(timed, line) for line in place.shown), place.shown


def test_a_race_has_one_bar_from_its_first_part_to_its_last(place):
    made = place.train(calls=(3, 4)).preset
    place.shown.clear()
    place.bar.clear()
    place.session.race(place.host, made, place.session.Terms(tuple(made.tables), range(4), 20_000, teacher_calls=8))
    parts = {re.match(r"race( of \w+)?", line)[0] for line in place.shown}
    assert parts == {"race", "race of calls3", "race of calls4"}
    assert place.bar[0] == 0 and place.bar == sorted(place.bar) and place.bar[-1] == 1


@pytest.mark.parametrize("place", ["comfyui"], indirect=True)
def test_comfyui_shows_the_race_after_a_training_too(place):
    comfyui_double.ProgressBar.sent.clear()
    place.train()
    sent = comfyui_double.ProgressBar.sent
    began = sent.index(0, 1)
    assert sent[began - 1] > 0.9 and len(sent) - began > 20 and sent[-1] == 1


def test_a_bar_stays_where_it_is_while_the_forecast_grows():
    shown = []
    session = import_module("s4s.s4s_nodes.hosts.session")
    progress = session._race_progress(SimpleNamespace(show=lambda done, total, line: shown.append((done, total, line))))
    for made, expected in ((0, 90), (30, 90), (31, 200), (70, 200), (210, 200)):
        progress.count(made, expected)
    assert [place[:2] for place in shown] == [(0, 90), (30, 90), (67, 200), (70, 200), (210, 210)]
    assert "left" not in shown[0][2] and shown[2][2].startswith(": 31 of about 200 network calls, about ")


def test_a_preset_of_another_kind_of_model_is_not_raced(place):
    made = place.train().preset
    flow = place.session.replace(made, model=place.session.replace(made.model, prediction="v"))
    place.network.calls = 0
    with pytest.raises(ValueError, match="cannot be raced on this model: it is for v prediction"):
        place.session.race(place.host, flow, place.session.Terms(tuple(made.tables), range(4)))
    assert place.network.calls == 0


@pytest.mark.parametrize("text, found", [("4,5;6 8", (4, 5, 6, 8)), (" 4 ; 5 ", (4, 5)), ("4，5、6", (4, 5, 6))])
def test_lists_have_the_same_separators_everywhere(text, found):
    assert numbers(text, int, "calls") == found


def test_lists_are_refused_in_plain_words():
    assert numbers(" ", int, "calls", wanted=False) == ()
    for text, words in (("", "calls is empty: write one number"), ("four", "is not a list of whole numbers")):
        with pytest.raises(ValueError, match=words):
            numbers(text, int, "calls")


def test_no_message_speaks_of_a_terminal(place):
    place.stop_at("learning", Interrupted())
    with pytest.raises(Interrupted):
        place.train()
    with contextlib.suppress(Interrupted):
        place.train()
    assert not [text for text in place.said if re.search(r" --|WARNING|; -\d", text)], place.said


def test_other_weights_of_the_same_name_are_trained_anew(place):
    """Merged matrices leave the norms, which a preset knows its model by, as they were."""
    first = place.train()
    place.weights = "merged"
    assert place.train().preset.training["run"] != first.preset.training["run"]
    assert not any("trained before" in text for text in place.said)
