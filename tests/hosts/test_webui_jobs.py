"""The tab's works in the stand-in for a host: their queue, what a page shows of it, settings taken from a picture."""

import ast
import sys
import threading
from types import SimpleNamespace

import pytest

from tests.hosts.webui_double import Host, module
from tests.hosts.webui_presets import shelved


class Show:
    """What inside.Show has, without the trainer behind it."""

    def __init__(self):
        self.messages, self.line, self.done, self.total = [], "", 0, 0
        self.picture = self.page = None
        self.began = self.stopped = False


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    shelved(tmp_path)
    host = Host(monkeypatch, tmp_path)
    host.load()
    made, pressed = host.part("jobs"), []
    for name, stand_in in (("inside", SimpleNamespace(Show=Show)), ("work", SimpleNamespace())):
        monkeypatch.setitem(sys.modules, f"{made.__package__}.{name}", stand_in)
    monkeypatch.setattr(made.time, "sleep", lambda seconds: threading.Event().wait(0.01))
    host.shared.state = SimpleNamespace(interrupt=lambda: pressed.append(True))
    made.pressed, made.host = pressed, host
    return made


class Held:
    """Work that goes on until it is let go."""

    def __init__(self, outcome=None, error=None):
        self.begun, self.go, self.outcome, self.error = threading.Event(), threading.Event(), outcome, error

    def __call__(self, show):
        show.began, show.done, show.total, show.line = True, 1, 4, "a quarter is done"
        self.begun.set()
        assert self.go.wait(10)
        show.began = False
        show.messages.append(f"stopped {show.stopped}")
        if self.error:
            raise self.error
        return self.outcome


def add(jobs, title, work):
    jobs.JOBS.add(title, lambda _: work)
    return work


def ended(jobs):
    for _ in range(1000):
        if not jobs.JOBS.open:
            return
        threading.Event().wait(0.01)
    raise AssertionError("the works do not end")


def test_reload_ui_lets_a_training_save_and_shows_it_on_the_new_page(jobs):
    first, second = add(jobs, "Train: one", Held()), add(jobs, "Train: two", Held())
    assert first.begun.wait(10)
    show, jobs.JOBS.asked = jobs.JOBS.listed[0].show, ("a cat", "6")

    def end():
        while not show.stopped:
            threading.Event().wait(0.01)
        first.go.set()
    threading.Thread(target=end).start()
    jobs.host.load()                                                # as the host executes the script again
    new = jobs.host.part("jobs")
    assert new is not jobs and jobs.pressed and not new.JOBS.open and not second.begun.is_set()
    assert new.report() == ("Train: one:\nstopped True\n\nTrain: two:\nReload UI took this off the queue: start "
                            "it again.")
    assert new.JOBS.asked == ("a cat", "6")


def test_a_page_sees_what_runs_and_what_waits_and_another_page_may_come_later(jobs):
    first, second = add(jobs, "Train: one", Held()), add(jobs, "Race: <two>", Held(SimpleNamespace(pictures=["sheet"])))
    assert first.begun.wait(10) and not second.begun.is_set()
    for _ in range(2):                                              # a page, and the page loaded again
        bar, report, live, sheet = next(jobs.follow())
        assert "Train: one" in bar and "25%" in bar and "a quarter is done" in bar
        assert "Waiting: Race: &lt;two&gt;." in bar and report == ""
    first.go.set()
    assert second.begun.wait(10)
    page = jobs.follow()
    assert "Race: &lt;two&gt;" in next(page)[0]
    second.go.set()
    bar, report, live, sheet = list(page)[-1]
    assert sheet == {"value": "sheet", "visible": True} and bar == "" and live == {"value": None, "visible": False}
    assert report == "Train: one:\nstopped False\n\nRace: <two>:\nstopped False"
    assert list(jobs.follow())[-1][1:] == (report, live, sheet)            # a page that comes after the end
    add(jobs, "Train: three", Held()).go.set()
    ended(jobs)
    assert list(jobs.follow())[-1][3] == {"value": None, "visible": False}
    assert jobs.report() == "stopped False"                                     # a new report for a new start


def test_work_that_is_asked_for_just_after_an_interrupt_is_done(jobs):
    first = add(jobs, "one", Held())
    assert first.begun.wait(10)
    jobs.JOBS.interrupt()
    second = add(jobs, "two", Held())
    assert jobs.pressed == [True] and "Interrupted. Saving." in jobs.bar(jobs.JOBS.open)
    first.go.set()
    assert second.begun.wait(10)
    second.go.set()
    ended(jobs)
    assert jobs.report() == "one:\nstopped True\n\ntwo:\nstopped False"


def test_an_interrupt_before_the_host_lets_it_begin_stops_no_picture_of_the_hosts(jobs):
    """The host is busy with a generation: the button ends our work when its turn comes."""
    turn, held = threading.Lock(), Held()
    jobs.on_the_hosts_thread = lambda work: turn.acquire() and work()
    turn.acquire()
    add(jobs, "one", held)
    for _ in range(1000):
        if jobs.JOBS.open:
            break
    assert "The host is busy" in jobs.bar(jobs.JOBS.open)
    jobs.JOBS.interrupt()
    assert jobs.pressed == [] and "Interrupted before it started" in jobs.bar(jobs.JOBS.open)
    held.go.set()
    turn.release()
    ended(jobs)
    assert jobs.report() == "stopped True"


def test_what_fails_is_said_and_the_next_one_runs(jobs, caplog):
    for title, error in (("one", ValueError("the name is taken")), ("two", RuntimeError("out of memory")),
                         ("three", None)):
        add(jobs, title, Held(error=error)).go.set()
    ended(jobs)
    assert "the name is taken" in jobs.report() and "ValueError" not in jobs.report()
    assert "RuntimeError: out of memory. The console shows where" in jobs.report()
    assert jobs.report().endswith("three:\nstopped False")
    assert [record.exc_info is not None for record in caplog.records if "two failed" in record.getMessage()] == [True]


def test_what_is_refused_at_once_does_not_wait(jobs):
    def refuse(_):
        raise ValueError("the name is none")
    with pytest.raises(ValueError, match="the name is none"):
        jobs.JOBS.add("one", refuse)
    assert jobs.JOBS.open == []


INFOTEXT = {"Prompt": "a cat\nin a <lora:hat:1>", "Negative prompt": "bad", "Steps": "8", "CFG scale": "6.5",
            "Size-1": "640", "Size-2": "512"}


@pytest.fixture
def made(monkeypatch, tmp_path):
    shelved(tmp_path)
    host = Host(monkeypatch, tmp_path)
    read = module("modules.infotext_utils", parse_generation_parameters=lambda text: ast.literal_eval(text))
    monkeypatch.setitem(__import__("sys").modules, read.__name__, read)
    host.load()
    return host.part("last_picture")


def test_settings_are_taken_from_the_last_picture_or_from_one_that_is_shown(made, monkeypatch):
    with pytest.raises(ValueError, match="no picture was made here"):
        made.of_last()
    made.remember(SimpleNamespace(infotexts=["a grid", str(INFOTEXT)], index_of_first_image=1))
    wanted = ("a cat in a <lora:hat:1>", "bad", "6.5", 640, 512, "8", None, "")
    assert made.fields(made.of_last()) == wanted
    hung = {"transformer_options": {"patches": {"output_block_patch": [lambda h, *_: h]}}}
    unet = SimpleNamespace(model_options=hung)
    for objects, note in ((SimpleNamespace(unet=unet), "A training leaves it out"), (None, "")):    # FreeU on, then off
        made.facts.shared.sd_model = SimpleNamespace(forge_objects=objects)
        made.remember(SimpleNamespace(infotexts=[str(INFOTEXT)], index_of_first_image=0))
        assert made.fields(made.of_last())[:7] == wanted[:7] and note in made.fields(made.of_last())[7]
    assert made.fields(made.of_last()) == wanted
    made.images.read_info_from_image = lambda picture: (picture, {})
    assert made.fields(made.of_picture(str(INFOTEXT))) == wanted
    with pytest.raises(ValueError, match="carries no generation parameters"):
        made.of_picture("")


@pytest.mark.parametrize("changes, steps, strengths", [
    ({"Steps": "30"}, None, None), ({"Denoising strength": "0.6"}, "8", "1, 0.6"),
    ({"Denoising strength": "0.6", "Hires upscale": "2"}, "8", None), ({"Steps": "many"}, None, None)])
def test_steps_and_strength_of_a_picture(made, changes, steps, strengths):
    found = made.fields(made.of_infotext(str({**INFOTEXT, **changes})))
    assert found[5:7] == (steps, strengths) and bool(found[7]) == (changes.get("Steps") == "30")
