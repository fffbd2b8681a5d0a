"""The preset file: all tables learned for one model and their provenance, in one .safetensors.

Reading executes nothing: the file holds float64 tensors and one JSON text, both validated before use.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch

from . import scores
from .analytic import mixture
from .container import CHECKSUM, KEY, check_sum, checksum, contents, parsed
from .experts import experts_of
from .files import write_atomically
from .levels import starts_below
from .lists import range_text
from .loop import sample
from .model import Model, PresetError, check_records, is_name, is_number, model_of
from .table import PARTS, Table, check_float32

FORMAT_VERSION = 1
MOST_CALLS, MOST_TABLES = 150, 200      # of a preset, so that drawing and interpolating its tables stays quick
_TABLE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_SELF_TEST_LIMIT = 1e-9
_PLAIN = {"name": str, "training": dict, "scores": dict, "recommended": bool, "licence": str, "source": str}
_ENTRIES = {**_PLAIN, "model": dict, "breaks_constants": list}


@dataclass(frozen=True)
class Preset:
    """The tables for one model, with their record. `experts` holds the two halves of a preset for two models, else ().

    Args:
        name: 1 to 100 printable characters.
        tables: {name: Table}, such as "calls6" or "calls6_from2.4".
        model: what the tables are for.
        training: how they were made, ready for JSON: teacher, seeds, conditions, network calls.
        scores: {table name: {condition: what a race measured, with its verdict}}, ready for JSON (scores.py).
        recommended: whether any table is.
        licence: the license of the numbers.
        source: where they come from.

    Raises PresetError for unusable content.
    """

    name: str
    tables: dict
    model: Model
    training: dict = field(default_factory=dict)
    scores: dict = field(default_factory=dict)
    recommended: bool = True
    licence: str = ""
    source: str = ""
    experts: tuple = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        if not is_name(self.name):
            raise PresetError(f"preset name {str(self.name)[:120]!r}: expected 1 to 100 printable characters")
        if not 0 < len(self.tables) <= MOST_TABLES:
            many = len(self.tables) or "no"
            raise PresetError(f"preset {self.name!r} holds {many} tables: expected 1 to {MOST_TABLES}")
        for key, table in self.tables.items():
            if not isinstance(key, str) or not _TABLE_NAME.fullmatch(key):
                raise PresetError(f"table name {str(key)[:80]!r}: use up to 64 of a-z, 0-9, '.', '_', '-'")
            if table.calls > MOST_CALLS:
                raise PresetError(f"table {key!r} has {table.calls} calls: those of a preset have {MOST_CALLS} at most")
        if not all(isinstance(results, dict) for results in self.scores.values()):
            raise PresetError(f"preset {self.name!r}: scores must be {{table: {{condition: {{measure: result}}}}}}")
        object.__setattr__(self, "scores", scores.by_condition(self.scores))
        check_records(self.training, self.scores)
        object.__setattr__(self, "experts", experts_of(self))

    @property
    def short_hash(self) -> str:
        """10 hex digits that identify the numbers to people."""
        return self.hash[:10]

    @property
    def long_hash(self) -> str:
        """16 hex digits for image metadata: hard to forge."""
        return self.hash[:16]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the numbers: the same tables for the same prediction have the same hash."""
        digest = hashlib.sha256(self.model.prediction.encode())
        for key in sorted(self.tables):
            for part in PARTS:
                digest.update(np.ascontiguousarray(getattr(self.tables[key], part), dtype="<f8").tobytes())
        return digest.hexdigest()

    @property
    def counts(self) -> list[int]:
        """The numbers of calls with a full table (one that starts at the highest level), rising."""
        return sorted({table.calls for table in self._full()})

    def table(self, calls: int) -> Table:
        """The full table with this many calls. Raises PresetError with the available counts."""
        for table in self._full():
            if table.calls == calls:
                return table
        raise PresetError(f"preset {self.name!r} has no table for {calls} calls; it has {self.counts}: "
                          "choose one of these or train another")

    def score(self, table: str, cfg: float | None = None, size=None) -> dict:
        """What a race measured of a table at this cfg and size, else where it was trained; {} for nothing."""
        sizes = self.trained_sizes if size is None else [size]
        return scores.chosen(self.scores.get(table, {}), cfg, self.trained_cfg, sizes)

    def recommends(self, table: str, cfg: float | None = None, size=None) -> bool:
        """Whether no race there says that a baseline did better than this table; files of old have one verdict."""
        lost = scores.lost(self.score(table, cfg, size))
        return self.recommended if lost is None else not lost

    @property
    def trained_cfg(self) -> list[float]:
        """The guidance scales that it records it was trained at; [] if unknown."""
        return _numbers(self.training.get("cfg"))

    @property
    def trained_guidance(self) -> list[float]:
        """What it was trained to be told by a model that is distilled for guidance; [] if unknown or for others."""
        return _numbers(self.training.get("guidance"))

    @property
    def trained_sizes(self) -> list[tuple]:
        """(height, width) of the latents it was trained on, one or several, a video's with frames; [] if unknown."""
        return [tuple(map(int, shape)) for shape in scores.shapes_of(self.training.get("resolution")) if len(shape) > 1]

    @property
    def boundary(self) -> float | None:
        """The level at which two models change; None for a preset of one model."""
        return float(self.training["experts"]["boundary"]) if self.experts else None

    @property
    def unfinished(self) -> bool:
        """Whether its training was stopped and can be resumed; older files lack the date it ended instead."""
        record = self.training
        return bool(record.get("unfinished")) or "run" in record and "created" not in record

    @property
    def lost(self) -> list[str]:
        """The tables that are not recommended."""
        return sorted(name for name in self.tables if not self.recommends(name))

    @property
    def curve(self) -> np.ndarray:
        """The levels of the largest full table, without repeats; other schedules are stretched from it."""
        return np.unique(max(self._full(), key=lambda table: table.calls).sigmas)[::-1]

    def _full(self) -> list[Table]:
        top = max(table.sigmas[0] for table in self.tables.values())
        return [table for table in self.tables.values() if not starts_below(table.sigmas[0], top)]


def _numbers(recorded) -> list[float]:
    """The numbers in a record of one or several."""
    return [each for each in (recorded if isinstance(recorded, (list, tuple)) else [recorded]) if is_number(each)]


def self_test(preset: Preset) -> dict:
    """{table: 4 numbers}: each table's answer to two fixed starts with the analytic denoiser; hosts replay it."""
    start = torch.tensor([[0.9, -0.4], [-1.3, 0.2]], dtype=torch.float64)
    denoiser = partial(mixture, flow=preset.model.flow)
    return {key: sample(denoiser, start * float(table.sigmas[0]), table).flatten().tolist()
            for key, table in preset.tables.items()}


def to_bytes(preset: Preset) -> bytes:
    """The file's content, deterministic, with its self-test. Raises PresetError if a record is not JSON-ready."""
    content = {
        **{key: getattr(preset, key) for key in _PLAIN}, "format_version": FORMAT_VERSION, "hash": preset.short_hash,
        "model": asdict(preset.model), "training": {**preset.training, "self_test": self_test(preset)},
        "breaks_constants": sorted(key for key, table in preset.tables.items() if not table.keeps_constants)}
    try:
        # as a reader will see it: keys are texts, tuples are lists
        content = parsed(json.dumps(content, sort_keys=True, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise PresetError(f"preset {preset.name!r} cannot be written: {error}") from None
    tensors = {f"{key}/{part}": np.array(getattr(table, part)) for key, table in preset.tables.items()
               for part in PARTS}
    text = json.dumps({**content, CHECKSUM: checksum(content, tensors)}, sort_keys=True)
    return safetensors.numpy.save(tensors, metadata={KEY: text})


def save(preset: Preset, path, new: bool = False) -> Path:
    """Write the preset atomically. Raises OSError (disk full, no permission) and keeps the old file.

    Args:
        preset: what to write.
        path: the file.
        new: raise FileExistsError if the file exists.
    """
    return write_atomically(path, to_bytes(preset), new)


def load(path) -> Preset:
    """Read and validate a preset; nothing in the file is executed. Raises PresetError if anything is wrong."""
    path = Path(path)
    try:
        return _from_parts(*contents(path))
    except OSError as error:
        raise PresetError(f"cannot read preset {path}: {error.strerror or error}") from None
    except ValueError as error:                     # a PresetError, or what a table's constructor says
        raise PresetError(f"{path.name}: {str(error)[:500]}") from None


def _from_parts(content, tensors: dict) -> Preset:
    if not isinstance(content, dict):
        raise PresetError("its description is not a JSON object")
    version = content.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        newer = isinstance(version, int) and version > FORMAT_VERSION
        raise PresetError(f"has format version {version!r}, this program reads {FORMAT_VERSION}: "
                          + ("update S4S" if newer else "the file is damaged, download or save it again"))
    for key, kind in _ENTRIES.items():
        if not isinstance(content.get(key), kind):
            raise PresetError(f"{key} is {str(content.get(key))[:60]!r}: expected a {kind.__name__}")
    preset = Preset(tables=_tables(tensors, content["breaks_constants"]), model=model_of(content["model"]),
                    **{key: content[key] for key in _PLAIN})
    if content.get("hash") != preset.short_hash:
        raise PresetError(f"says its numbers have hash {str(content.get('hash'))[:20]!r}, but they have "
                          f"{preset.short_hash!r}: the file was changed or damaged; download or train it again")
    recorded = preset.training.get("self_test")
    if not isinstance(recorded, dict) or set(recorded) != set(preset.tables) or not all(
            isinstance(row, list) and len(row) == 4 and all(map(is_number, row)) for row in recorded.values()):
        raise PresetError("its self-test is missing or damaged: download or save it again")
    # last, because the checks above say what is wrong
    check_sum(content, tensors, {*_ENTRIES, "format_version", "hash"})
    return preset


def _tables(tensors: dict, breaks_constants: list) -> dict:
    parts: dict[str, dict] = {}
    for name, array in tensors.items():
        key, _, part = name.rpartition("/")
        if part not in PARTS or array.dtype != np.float64:
            raise PresetError(f"holds tensor {name[:80]!r} of type {array.dtype}: only float64 tensors named "
                              f"TABLE/{'|'.join(PARTS)} belong in a preset")
        parts.setdefault(key, {})[part] = array
    tables = {}
    for key, arrays in parts.items():
        if missing := [part for part in PARTS if part not in arrays]:
            raise PresetError(f"table {key[:80]!r} lacks {', '.join(missing)}")
        tables[key] = Table(**arrays, keeps_constants=key not in breaks_constants)
        check_float32(key, tables[key])
    return tables


def verify(preset: Preset) -> float:
    """Replay the self-test and return the largest relative deviation of the tables' answers on this machine.

    Raises PresetError if they differ, or if nothing is recorded.
    """
    if (recorded := preset.training.get("self_test")) is None:
        raise PresetError(f"preset {preset.name!r} carries no self-test: write it again with `save`")
    now = self_test(preset)
    got, wanted = (np.array([answers[key] for key in now], dtype=float) for answers in (now, recorded))
    deviation = float(np.max(np.abs(got - wanted) / (1 + np.abs(got))))
    if not deviation <= _SELF_TEST_LIMIT:
        raise PresetError(f"preset {preset.name!r}: the self-test deviates by {deviation:.3g} here (allowed "
                          f"{_SELF_TEST_LIMIT:g}): its tables do not do what their maker saw; train it again")
    return deviation


def with_scores(preset: Preset, new: dict) -> Preset:
    """The same tables with what races measured, {table: score} or by condition, beside what others did.

    It is recommended where some table is, under the conditions it was trained for.
    """
    scored = replace(preset, scores=scores.added(preset.scores, new))
    return replace(scored, recommended=any(scored.recommends(table) for table in scored.tables))


def describe(preset: Preset) -> str:
    """A description of the preset for people; safe to print, whatever the file holds."""
    model, training = preset.model, preset.training
    verdict = "  UNFINISHED: its training was stopped; the same settings resume it" if preset.unfinished else \
        "" if preset.recommended else "  NOT RECOMMENDED: a classical solver did better in its race"
    lines = [f"{preset.name}  ({preset.short_hash}){verdict}",
             f"  model      {model.family}, {model.prediction} prediction, sigma {model.sigma_min:g} to "
             f"{model.sigma_max:g}"]
    for key in ("imported", "evidence", "teacher", "cfg", "experts", "loras", "family", "base", "learn", "learned",
                "clock", "pairs", "model_calls", "seconds", "trainer"):
        if key in training:
            known = range_text(preset.trained_cfg) if key == "cfg" and preset.trained_cfg else training[key]
            lines.append(f"  {key:10} {known}")
    for key, table in sorted(preset.tables.items(), key=lambda item: (item[1].calls, item[0])):
        lines.append(f"  {key}: {table.calls} calls, sigmas " + " ".join(f"{s:.4g}" for s in table.sigmas))
        for condition, score in preset.scores.get(key, {}).items():
            lines += [f"    raced at {condition}", *(f"      {name:22} {result}" for name, result in score.items())]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)
