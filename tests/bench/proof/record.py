"""What many runs tried, with other seeds: a file with one line of JSON for each attack of each run, which is summed."""

import json
from pathlib import Path

from tests.bench.proof.attack import Attack, Result


def add(path: Path, seed: int, machine: str, result: Result) -> None:
    """Write down what one attack came to, at once: a run that breaks off loses what it was trying, no more."""
    line = {"attack": result.attack.name, "seed": seed, "tries": result.tries, "seconds": round(result.seconds, 1),
            "failures": result.failures, "machine": machine, "figures": result.figures}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(path: Path, attacks: list[Attack]) -> tuple[list[Result], str, str]:
    """(the sum for each attack that was tried, the seeds in words, the last machine); attacks of today only."""
    sums = {attack.name: Result(attack) for attack in attacks}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if one := sums.get(line["attack"]):
            one.tries += line["tries"]
            one.failures += line["failures"]
            one.seconds += line["seconds"]
            one.figures = line["figures"] or one.figures
    seeds = sorted({line["seed"] for line in lines})
    words = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds from {seeds[0]} to {seeds[-1]}"
    return [one for one in sums.values() if one.tries], words, lines[-1]["machine"]
