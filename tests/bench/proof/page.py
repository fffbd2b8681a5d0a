"""The proof as a table for a terminal, and as a page of the docs."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from statistics import median

import torch

from s4s.s4s_nodes import __version__
from tests.bench.proof.attack import Result
from tests.bench.proof.cost import CALLS, GOAL, Cell, ours

COMMAND = "python -m tests.bench.proof"
HEAD = f"""# Proof

What was stored is either exactly what is read back, or the read says it is not. Nothing in a stranger's file runs,
leaves its folder, or takes more than a second and 100 MB to refuse. This page attacks these promises; `{COMMAND}`
repeats it on your machine (Linux, from a clone with the `test` extra).
"""
WORDS = """
*Faults* are real trainings of a second on a closed-form denoiser, in processes of their own: forward and gradient mode,
three families, windows, several numbers of calls, one process and two. "The same tensors" compares the preset and every
number that learning left with the run that nobody disturbed, bit for bit. *Fuzz* makes seeded changes; guided by
coverage, it keeps those that reach new lines of the package and changes them further. Each try has a second of
processor time, and a batch of 100 has 100 MB of memory. *Hosts* are a real ComfyUI and a real WebUI on the CPU, with
tiny checkpoints of random numbers (`$COMFYUI_NEW_PATH`, `$FORGE_PATH`).
"""
COST = f"""## Cost

The loop beside k-diffusion's `dpmpp_2m` and `lms`, {CALLS} calls, with a network that costs nothing, in turns in one
process; through k-diffusion's signature, as hosts call it. Times are the processor's, of one thread. Peak: the bytes of
the tensors that a run holds at once beside its start, in states. A table makes one pass over the latent for every
prediction that a row weighs, and rounds to the latent's type after each, as it always did: full history over {CALLS}
calls makes 5.4 passes a call on average, which in bfloat16 on a CPU is above the goal. Summing block by block in the
cache gave the same bits and no less time; adding up in float32 would give other bits.
"""
NOT_HERE = """
## Not attacked here

Power cuts (files are synced before they are moved into place; the folder's own entry is not), GPUs, several
machines, other systems than Linux, and network drives without locks, where a training warns that it cannot lock
its folder. A checksum is no signature: whoever makes a preset can write a right one.
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
    rows = ["| | Attack | Survived means | Tries | Survived |", "|---|---|---|---:|---:|"]
    rows += [f"| {result.attack.part} | {result.attack.name} | {result.attack.promise} | {result.tries:,} | "
             f"{result.survived:,} |" for result in results]
    return "\n".join(rows)


def figures(results: list[Result]) -> str:
    """What attacks measured beside their tries, as Markdown."""
    return "\n".join(["", *(f"{result.attack.name[0].upper()}{result.attack.name[1:]}: {result.figures}.\n"
                            for result in results if result.figures)])


def failures(results: list[Result], most: int = 5) -> str:
    """What went wrong, for a terminal."""
    return "\n".join(f"{result.attack.name}: {words}" for result in results for words in result.failures[:most])


def costs(cells: list[Cell]) -> str:
    """Every sampler on every latent, and how many of ours reach the goal, as Markdown."""
    rows = ["| Latent | Type | Sampler | µs a call | of `dpmpp_2m` | of `lms` | Peak, in states |",
            "|---|---|---|---:|---:|---:|---:|"]
    rows += [f"| {'x'.join(map(str, cell.shape))} | {cell.dtype} | {cell.sampler} | {cell.microseconds:,.0f} | "
             f"{cell.of_dpmpp:.2f} | {cell.of_lms:.2f} | {cell.states:.1f} |" for cell in cells]
    shares = [cell.of_dpmpp for cell in ours(cells)]
    reach = sum(share <= GOAL for share in shares)
    words = (f"Median {median(shares):.2f} of `dpmpp_2m`'s time, {min(shares):.2f} to {max(shares):.2f}. "
             f"At most {GOAL:g} in {reach} of {len(shares)} rows.")
    return "\n".join([words, "", *rows])


def page(results: list[Result], cells: list[Cell], words: str, where: str) -> str:
    """The page. words: what made it, where: the machine."""
    parts = [HEAD, f"{words}.\n\n{where}.\n"]
    if results:
        parts += ["## Attacks\n", attacks(results), figures(results), WORDS]
    if cells:
        parts += [COST, costs(cells)]
    return "\n".join([*parts, NOT_HERE])
