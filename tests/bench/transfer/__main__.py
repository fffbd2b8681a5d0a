"""Which learned tables survive a change of model, data, cfg, size of picture or precision: the transfer study.

    python -m tests.bench.transfer --data ../shared/data [--cache FOLDER] [--write docs/transfer.md]

Trains the models the cache lacks (about 40 minutes on one core), learns tables on each and on several together
without a backward pass, and races them on seeds none was learned from (about an hour). Everything is kept in the
cache, model by model and cell by cell: the same command goes on where it was stopped.
"""

import argparse
import math
from pathlib import Path

import torch

from s4s.s4s_nodes.core import preset_file
from tests.bench.transfer import models, page, ship, train
from tests.bench.transfer.cells import OutOfTime, Store
from tests.bench.transfer.questions import (
    BETWEEN_AT,
    CFG_CALLS,
    CFG_MODELS,
    COUNTS,
    FAMILY_CFGS,
    ROUNDED_MODELS,
    SIZE_MODELS,
    TRAINED_AT,
    cfg_row,
    family_rows,
    rounding_rows,
    size_rows,
)
from tests.bench.transfer.study import CFG, Study

PARTS = ("families", "cfg", "sizes", "rounding")


def measured(study: Study, parts, names, counts, cfgs) -> tuple[dict, list[str]]:
    """(the rows of every part, of the models of these names; what the time did not suffice for)."""
    asked = [(family, f"{family} at {calls} calls, cfg {cfg:g}",
              lambda f=family, c=calls, k=known, g=cfg: family_rows(study, f, c, k, g))
             for family, members in models.FAMILIES.items() if "families" in parts
             and len(known := tuple(name for name in members if name in names)) > 1 for cfg in cfgs for calls in counts
             if cfg == CFG or calls == CFG_CALLS]
    asked += [("cfg", f"cfg {cfg:g} of {name}", lambda n=name, c=cfg: [cfg_row(study, n, c)]) for name in CFG_MODELS
              for cfg in sorted(TRAINED_AT + BETWEEN_AT) if "cfg" in parts and name in names]
    for part, rows, of in (("sizes", size_rows, SIZE_MODELS), ("rounding", rounding_rows, ROUNDED_MODELS)):
        asked += [(part, f"{part} of {name}", lambda r=rows, n=name: r(study, n)) for name in of
                  if part in parts and name in names]
    found: dict = {}
    missing = []
    for key, words, rows in asked:
        try:
            found.setdefault(key, []).extend(rows())
        except OutOfTime:
            missing.append(words)
    return found, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True,
                        help="folder of mnist_train.npz, cifar10_train_jpeg.npz and noto_emoji64.npz")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "s4s-transfer")
    parser.add_argument("--only", nargs="*", choices=("train", *PARTS), default=("train", *PARTS))
    parser.add_argument("--ready", action="store_true", help="leave out models that are not trained yet")
    parser.add_argument("--counts", type=int, nargs="*", default=COUNTS, help="numbers of calls")
    parser.add_argument("--cfgs", type=float, nargs="*", default=FAMILY_CFGS,
                        help=f"guidance scales of the families; other than {CFG:g} at {CFG_CALLS} calls only")
    parser.add_argument("--minutes", type=float, default=math.inf,
                        help="begin nothing new after so long: the page names what is missing; call again to go on")
    parser.add_argument("--presets", type=Path, help="folder to write the transfer presets into, if any passed")
    parser.add_argument("--write", type=Path, help="page to write, docs/transfer.md")
    options = parser.parse_args()
    torch.set_num_threads(1)            # the order of sums, and so the last bits, depend on the number of threads
    if "train" in options.only and not options.ready:
        train.train_all(options.data, options.cache)
    every = [name for members in models.FAMILIES.values() for name in members]
    names = [name for name in every if not options.ready or models.ready(name, options.cache)]
    study = Study(Store(options.cache, options.minutes))
    found, missing = measured(study, options.only, names, options.counts, options.cfgs)
    missing += [f"{name} (not trained)" for name in every if name not in names]
    missing += [f"{calls} calls" for calls in COUNTS if calls not in options.counts]
    text = page.page(study, found, names, missing)
    if options.presets:
        for made in ship.presets(study, found):
            print(f"wrote {preset_file.save(made, options.presets / f'{made.name}.safetensors')}")
    if options.write:
        options.write.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
