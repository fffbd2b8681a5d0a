"""The tab's jobs, one after the other on their own thread, so that a page can be closed and opened again."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from importlib import import_module
from importlib.util import find_spec

import gradio as gr
from modules import shared

from . import shelf
from .words import say

log = logging.getLogger("S4S")
PATIENCE = 120              # seconds that Reload UI waits for a training to be saved


@dataclass
class Job:
    """One job: its title, its work, its display (inside.Show), and its result."""

    title: str
    work: Callable
    show: object
    outcome: object = None
    over: bool = False

    def carry_out(self) -> None:
        """Do the work. The report gets what it refuses; for a failure, the console also gets the traceback."""
        try:
            self.outcome = self.work(self.show)
        except ValueError as error:
            self.show.messages.append(shelf.without_places(str(error)))
        except Exception as error:
            log.exception("S4S: %s failed", self.title)
            self.show.messages.append(shelf.without_places(f"{type(error).__name__}: {error}. The console shows where"))


@dataclass
class Jobs:
    """The running one and those that wait; `listed` also holds those that ended since all was idle.

    asked: what the fields said when the last training was started.
    """

    listed: list = field(default_factory=list)
    asked: tuple = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, title: str, prepare: Callable) -> None:
        """Let work wait for its turn. prepare(work.py) -> work(show), at once: what it refuses is raised here."""
        from . import inside, work  # the trainer is imported on demand, not at the host's start
        job = Job(title, prepare(work), inside.Show())
        with self._lock:
            if not self.open:
                self.listed.clear()
            self.listed.append(job)
            if len(self.open) == 1:
                threading.Thread(target=self._run, daemon=True).start()

    @property
    def open(self) -> list:
        return [job for job in self.listed if not job.over]

    def interrupt(self) -> None:
        """End the running job, even before the host lets it begin; a picture that the host makes meanwhile stays."""
        if running := self.open[:1]:
            running[0].show.stopped = True
            if running[0].show.began:
                shared.state.interrupt()

    def take_over(self, earlier: "Jobs") -> None:
        """At Reload UI: take over what those of before say, once they have ended.

        The host has interrupted the running one. Its code is gone from the host, so none that waits may still begin.
        """
        with earlier._lock:
            for job in earlier.open[1:]:
                job.over = True
                job.show.messages.append(say("Reload UI took this off the queue: start it again."))
        earlier.interrupt()
        end = time.monotonic() + PATIENCE
        while earlier.open and time.monotonic() < end:
            time.sleep(0.1)
        self.listed[:], self.asked = earlier.listed, earlier.asked

    def _run(self) -> None:
        while waiting := self.open:
            try:
                on_the_hosts_thread(waiting[0].carry_out)
            finally:
                with self._lock:
                    waiting[0].over = True


JOBS = Jobs()


def follow() -> Iterator[tuple]:
    """(progress bar, report, live picture, sheet) each second while anything runs, then for good."""
    drawn = None
    while running := JOBS.open:
        show = running[0].show
        fresh, drawn = show.picture is not drawn, show.picture
        live = gr.update(value=drawn, visible=drawn is not None) if fresh else gr.update()
        yield bar(running), report(), live, gr.update()
        time.sleep(1)
    page = sheet = None
    if JOBS.listed:
        page = JOBS.listed[-1].show.page
        sheet = next(iter(getattr(JOBS.listed[-1].outcome, "pictures", None) or []), None)
    link = shelf.link_to(page) if page else ""
    yield link, report(), gr.update(value=None, visible=False), gr.update(value=sheet, visible=sheet is not None)


def warning(text: str) -> str:
    """Words of something that was refused, for a page."""
    return f"<p>⚠ {escape(shelf.without_places(text))}</p>"


def report() -> str:
    """What all the listed ones said, under their titles where there are several."""
    return "\n\n".join("\n".join([*[f"{job.title}:"] * (len(JOBS.listed) > 1), *job.show.messages])
                       for job in JOBS.listed if job.show.messages)


def bar(running: list) -> str:
    """How far the first is, as a bar, and what waits."""
    show, title = running[0].show, running[0].title
    share = min(show.done / show.total, 1.0) if show.total else 0.0
    line = show.line or (say("The host is busy; this starts when it is done.") if not show.began else "")
    if show.stopped:
        line = say("Interrupted. Saving.") if show.began else say("Interrupted before it started.")
    waiting = say("Waiting: {}.").format(", ".join(job.title for job in running[1:])) if running[1:] else ""
    return (f"<p><b>{escape(title)}</b> {share:.0%}</p>"
            '<div style="height: 1em; border-radius: .5em; overflow: hidden; background: rgba(128, 128, 128, .3)">'
            f'<div style="height: 100%; width: {share:.1%}; background: #2460b2"></div></div>'
            + "".join(f"<p>{escape(text)}</p>" for text in (line, waiting) if text))


def on_the_hosts_thread(work) -> None:
    """Run where the host samples: Forge has one thread for that, others do it anywhere."""
    if find_spec("modules_forge") and find_spec("modules_forge.main_thread"):
        import_module("modules_forge.main_thread").run_and_wait_result(work)
    else:
        work()
