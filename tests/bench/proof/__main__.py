"""Attack S4S and print what it survived: attack x tries x survived.

    python -m tests.bench.proof --minutes M [--seed S] [--only faults,fuzz,load,hosts,cost] [--record FILE] [--write]

--only takes parts, and words of attacks' names. --record adds what each attack came to to a file, so that many runs
with other seeds make one table. --write makes docs/reference/proof.md of it, with --record of all that the file holds.
Exits with 1 where anything did not survive. POSIX only: it forks.
"""

import argparse
import sys
import warnings
from pathlib import Path

import torch

from s4s.s4s_nodes.core import write_atomically
from tests.bench.proof import around, cost, faults, fuzz, guided, hosts, load, page, record
from tests.bench.proof.attack import Attack, carry_out

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "proof.md"
PARTS = {"faults": ([*faults.ATTACKS, *around.ATTACKS], 0.6), "fuzz": ([*fuzz.ATTACKS, *guided.ATTACKS], 0.25),
         "load": (load.ATTACKS, 0.05), "hosts": (hosts.ATTACKS, 0.0),
         "cost": ([], 0.1)}                         # and the share of the time; 0: to their end


def chosen(words: str) -> list[tuple[Attack | None, float]]:
    """The attacks that these parts or words name, and each one's share of the time; None: the cost."""
    wanted, made = words.split(","), []
    for part, (attacks, share) in PARTS.items():
        whole = sum(attack.share for attack in attacks) or 1
        made += [(attack, share * attack.share / whole) for attack in attacks
                 if part in wanted or any(word in attack.name for word in wanted)]
        made += [(None, share)] if not attacks and part in wanted else []
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, or words of attacks' names, with commas")
    parser.add_argument("--record", type=Path, help="file to which the results are added")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    wanted = parser.parse_args()
    if not (some := chosen(wanted.only)):
        parser.error(f"nothing is called {wanted.only}; there are the parts {', '.join(PARTS)}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)       # damaged numbers overflow, quietly
    machine, results, costs = page.machine(), [], None
    print(machine)
    for attack, share in some:
        seconds = wanted.minutes * 60 * share / (sum(share for _, share in some) or 1)
        if attack is None:
            costs = cost.costs(seconds)
            continue
        if not (done := carry_out(attack, wanted.seed, seconds)).tries:
            continue                                # of a host that is not here
        results.append(done)
        print(f"{results[-1].survived:7,} of {results[-1].tries:7,}  {attack.name}  {results[-1].figures}", flush=True)
        if wanted.record:
            record.add(wanted.record, wanted.seed, machine, results[-1])
    words = f"Made by `{page.COMMAND} {' '.join(sys.argv[1:])}`"
    if wanted.record:
        every = [attack for attacks, _ in PARTS.values() for attack in attacks]
        results, seeds, machine = record.read(wanted.record, every)
        words = f"The sum of runs of `{page.COMMAND}` with {seeds}"
    for text in (results and page.attacks(results), page.failures(results), costs and page.costs(costs)):
        print(f"\n{text}" if text else "")
    if wanted.write:
        print(f"wrote {write_atomically(PAGE, page.page(results, costs, words, machine).encode())}")
    return int(any(result.failures for result in results))


if __name__ == "__main__":
    sys.exit(main())
