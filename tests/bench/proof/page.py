"""The proof as a table for a terminal, and as a page of the docs."""

import datetime
import os
import platform
from pathlib import Path
from statistics import median

import torch

from s4s.s4s_nodes import __version__
from tests.bench.proof.attack import Result
from tests.bench.proof.cost import Costs
from tests.bench.proof.loop_cost import CALLS, GROWN, Cell, ours

GOAL = 0.7                  # of dpmpp_2m's time
COMMAND = "python -m tests.bench.proof"
HEAD = f"""# Proof

S4S makes two promises. A file is read back exactly as it was stored, or refused. And nothing in a stranger's file runs,
leaves its folder, or takes more than a second and 100 MB to refuse. This page attacks both; `{COMMAND}`
repeats the attacks on your machine (Linux, from a clone with the `test` extra).
"""
WORDS = """
* *Faults* are real trainings of a second on a closed-form denoiser, in separate processes: windows, several numbers of
  calls, a range of cfg, several sizes, one process and two. "The same tensors" compares the preset and every number
  that learning left with the undisturbed run, bit for bit.
* *Fuzz* makes seeded changes. Guided by coverage, it keeps those that reach new lines of the package and changes them
  further. Each try has a second of processor time, and a batch of 100 has 100 MB of memory. The doors for names are
  those of the command line, of a training and, in the tests' stand-ins for a host, of ComfyUI's nodes and WebUI's tab.
* *Hosts* are a real ComfyUI and a real WebUI on the CPU, with tiny checkpoints of random numbers
  (`$COMFYUI_NEW_PATH`, `$FORGE_PATH`).

A longer run of an earlier state on 2026-11-29, with 18 seeds, survived 486 tries of kill -9 and 1,148 damaged files.
"""
COST = """## Cost

All samplers run in turns in one process, with a network that costs nothing, through k-diffusion's signature, as hosts
call them. Times are processor times of one thread; a share is the median over the rounds. *Peak* is the bytes of the
tensors that a run holds at once beside its start, in states.
"""
PASSES = f"""
A table makes one pass over the latent for every prediction that a row weighs, and rounds to the latent's type after
each: full history over {CALLS} calls makes 5.4 passes a call on average, over 50 calls 26. PyTorch has no operation
that weighs two tensors by two numbers, so a row of n predictions moves 3n + 2 states, not n + 2. ComfyUI samples in
float32. We tried two other ways and dropped them. A row in blocks that fit the cache takes 0.9 to 2 times as long, with
the same bits. The history as a matrix, times the weights, takes 0.6 to 1.4 times as long in float32, with other bits,
and 2.4 to 12 times in bfloat16.
"""
NOT_HERE = """
## Not attacked here

Power cuts (files are synced before they are moved into place; the folder's own entry is not), GPUs, several
machines, a resume on another version of PyTorch, other systems than Linux, and network drives without locks, where a
training warns that it cannot lock its folder. A checksum is not a signature: anyone can write a preset with
a valid one.
"""


def machine() -> str:
    name = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
                platform.machine())
    return (f"S4S {__version__}, {name}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python "
            f"{platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} thread, "
            f"{datetime.date.today().isoformat()}")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def attacks(results: list[Result]) -> str:
    """attack x tries x survived, as Markdown."""
    return _table(["", "Attack", "Survived means"], ["Tries", "Survived"],
                  [[result.attack.part, result.attack.name, result.attack.promise, f"{result.tries:,}",
                    f"{result.survived:,}"] for result in results])


def figures(results: list[Result]) -> str:
    """What attacks measured beside their tries, as Markdown."""
    return "\n".join(["", *(f"{result.attack.name[0].upper()}{result.attack.name[1:]}: {result.figures}.\n"
                            for result in results if result.figures)])


def failures(results: list[Result], most: int = 5) -> str:
    """What went wrong, for a terminal."""
    return "\n".join(f"{result.attack.name}: {words}" for result in results for words in result.failures[:most])


def costs(made: Costs) -> str:
    """The loop on every latent, with more and more calls, and the starts, as Markdown."""
    some = [cell for cell in made.cells if cell.calls == CALLS]
    return "\n".join([
        f"### The loop, {CALLS} calls, beside {made.of}'s own samplers\n",
        f"Rows of ours that take at most {GOAL:g} of the time of each, and the median and highest share:\n",
        _reached(some), "\nEach row:\n", _shares(some),
        f"\n{made.of}'s own, µs a call, and the peak in states:\n", _theirs(some),
        f"\n### Memory moved, {_shape(GROWN)}, float32\n\nStates a call that PyTorch's operations read and write, "
        "and that a call of the table has to.\n", _moved(some), PASSES,
        f"### More calls, {_shape(GROWN)}, float32, µs a call\n", _growth(made.cells),
        "\n### Start\n\nSeconds of the processor, in one process each.\n", _starts(made.starts),
        *(f"\nNot on this machine: {words}." for words in made.missing)])


def _reached(cells: list[Cell]) -> str:
    types = list(dict.fromkeys(cell.dtype for cell in cells))
    rows = []
    for name in cells[0].shares:
        row = [f"`{name}`"]
        for dtype in types:
            shares = [cell.shares[name] for cell in ours(cells) if cell.dtype == dtype]
            row += [f"{sum(share <= GOAL for share in shares)} of {len(shares)}", f"{median(shares):.2f}",
                    f"{max(shares):.2f}"]
        rows.append(row)
    return _table(["Sampler"], [head for dtype in types for head in (dtype, "median", "highest")], rows)


def _shares(cells: list[Cell]) -> str:
    names = list(cells[0].shares)
    return _table(["Latent", "Type", "Sampler"], ["µs a call", *(f"of `{name}`" for name in names), "peak"],
                  [[*_place(cell), cell.sampler, f"{cell.microseconds:,.0f}",
                    *(f"{cell.shares[name]:.2f}" for name in names), f"{cell.states:.1f}"] for cell in ours(cells)])


def _theirs(cells: list[Cell]) -> str:
    places, names = dict.fromkeys(_place(cell) for cell in cells), list(cells[0].shares)
    known = {(_place(cell), cell.sampler): f"{cell.microseconds:,.0f}, {cell.states:.1f}" for cell in cells}
    return _table(["Latent", "Type"], [f"`{name}`" for name in names],
                  [[*place, *(known[place, name] for name in names)] for place in places])


def _moved(cells: list[Cell]) -> str:
    return _table(["Sampler"], ["moved", "least", "moved / least"],
                  [[cell.sampler, f"{cell.moved:.1f}", f"{cell.least:.1f}" if cell.least else "",
                    f"{cell.moved / cell.least:.1f}" if cell.least else ""] for cell in cells
                   if (cell.shape, cell.dtype) == (GROWN, "float32")])


def _growth(cells: list[Cell]) -> str:
    grown = [cell for cell in cells if (cell.shape, cell.dtype) == (GROWN, "float32")]
    calls, names = sorted({cell.calls for cell in grown}), dict.fromkeys(cell.sampler for cell in grown)
    known = {(cell.sampler, cell.calls): f"{cell.microseconds:,.0f}" for cell in grown}
    return _table(["Sampler"], [f"{count} calls" for count in calls],
                  [[name, *(known[name, count] for count in calls)] for name in names])


def _starts(starts: dict) -> str:
    return _table(["Where"], ["seconds added", "the host's own before", "modules imported", "of them S4S's"],
                  [[where, f"{one.seconds:.2f}", f"{one.before:.1f}" if one.before else "", f"{one.modules:.0f}",
                    f"{one.ours:.0f}"] for where, one in starts.items()])


def _place(cell: Cell) -> tuple[str, str]:
    return _shape(cell.shape), cell.dtype


def _shape(shape: tuple) -> str:
    return "x".join(map(str, shape))


def _table(left: list[str], right: list[str], rows: list[list[str]]) -> str:
    """Markdown: columns of words, then columns of numbers."""
    head = ["| " + " | ".join([*left, *right]) + " |", "|" + "---|" * len(left) + "---:|" * len(right)]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in rows)])


def page(results: list[Result], made: Costs | None, words: str, where: str) -> str:
    """The page. words: what made it, where: the machine."""
    parts = [HEAD, f"{words}.\n\n{where}.\n"]
    if results:
        parts += ["## Attacks\n", attacks(results), figures(results), WORDS]
    if made:
        parts += [COST, costs(made)]
    return "\n".join([*parts, NOT_HERE])
