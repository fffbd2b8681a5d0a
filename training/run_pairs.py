"""The pairs of a run: cached in its folder, and those of one denoise strength together."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .run_folder import Folder
from .source import Source
from .teacher.pairs import Pairs, joined, known_pairs, make_pairs

CHUNK = 64                  # teacher pairs made, then saved, at a time


@dataclass
class Window:
    """A denoise strength, the level it starts at (None: the model's highest), its pairs, and the network calls they
    and the checks cost, which its tables share."""

    denoise: float
    top: float | None
    pairs: Pairs
    held_out: Pairs
    shared: int


@dataclass
class PairCache:
    """Pairs from a run's folder; missing ones are made and saved, and on_saved() is called after each part."""

    source: Source
    files: Folder
    quiet: bool
    on_saved: Callable

    def pairs(self, kind: str, mark: str, seeds: range, table, maker: str, clean: Tensor | None = None) -> Pairs:
        """The pairs of these seeds. table: makes the targets; maker: words that tell the teacher apart from others;
        clean (n, ...): images that are noised to the table's first level; None: its starts are noise."""
        parts = []
        for start in range(seeds.start, seeds.stop, CHUNK):
            chunk = range(start, min(start + CHUNK, seeds.stop))
            name = f"{kind}{mark}-{chunk.start}-{chunk.stop}"
            some = None if clean is None else clean[chunk.start - seeds.start:chunk.stop - seeds.start]
            if (target := self.files.load_targets(name, (len(chunk), *self.source.shape), maker)) is not None:
                parts.append(known_pairs(self.source, chunk, target.to(self.source.device), some))
                continue
            label = f"teacher, {kind} pairs {chunk.start - seeds.start + 1}-{chunk.stop - seeds.start} of {len(seeds)}"
            parts.append(make_pairs(self.source, chunk, table, label, self.quiet, some))
            self.files.save_targets(name, parts[-1].target, maker)
            self.on_saved()
        return joined(parts)
