"""What each process of test_parallel.py runs: small trainings, one after another, in one world."""

import json
import sys
from pathlib import Path

from s4s.training import parallel
from s4s.training.run import Run
from tests.toy import small, toy_source

MODES = {"iterations": {}, "budget": {"budget": 6000, "iterations": 0}}


def settings(name):
    """The configuration of one of MODES; an odd number of pairs, so that shares are uneven."""
    return small(**({"pairs": 33} | MODES[name]))


def main(folder: Path):
    world = parallel.join_world()
    for name in MODES:
        source = toy_source()
        run = Run(settings(name), folder / name, source=source, world=world)
        run.train()
        told = {"made": run.source.network.images, "all": run.source.model_calls}
        (folder / f"{name}-{world.rank}.json").write_text(json.dumps(told))
    again = Run(settings("iterations"), folder / "iterations", resume=True, source=toy_source(), world=world)
    again.train()
    (folder / f"again-{world.rank}.json").write_text(json.dumps({"all": again.source.model_calls}))
    parallel.leave_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
