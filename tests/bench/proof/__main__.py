"""Attack S4S and print what it survived: attack x tries x survived.

    python -m tests.bench.proof --minutes M [--seed S] [--only faults,fuzz,load,cost] [--write]

--write makes docs/reference/proof.md of it. Exits with 1 where anything did not survive. POSIX only: it forks.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch

from s4s.s4s_nodes.core import write_atomically
from tests.bench.proof import cost, faults, fuzz, load, page
from tests.bench.proof.attack import carry_out

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "proof.md"
PARTS = {"faults": (faults.ATTACKS, 0.6), "fuzz": (fuzz.ATTACKS, 0.25), "load": (load.ATTACKS, 0.05),
         "cost": ([], 0.1)}                         # and the share of the time that each takes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    wanted = parser.parse_args()
    chosen = wanted.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)       # damaged numbers overflow, quietly
    print(page.machine())
    results, whole = [], wanted.minutes * 60 / sum(PARTS[part][1] for part in chosen)
    for part in chosen:
        attacks, share = PARTS[part]
        for attack in attacks:
            seconds = whole * share * attack.share / sum(other.share for other in attacks)
            results.append(carry_out(attack, wanted.seed, seconds))
            print(f"{results[-1].survived:7,} of {results[-1].tries:7,}  {attack.name}", flush=True)
    cells = list(cost.cells(whole * PARTS["cost"][1])) if "cost" in chosen else []
    for text in (results and page.attacks(results), page.failures(results), cells and page.costs(cells)):
        print(f"\n{text}" if text else "")
    if wanted.write:
        made = page.page(results, cells, f"python -m tests.bench.proof {' '.join(sys.argv[1:])}")
        print(f"wrote {write_atomically(PAGE, made.encode())}")
    return int(any(result.failures for result in results))


if __name__ == "__main__":
    sys.exit(main())
