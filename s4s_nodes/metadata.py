"""The table that ran, whole, in the metadata of the image it made: to text, and back to a preset.

So an image can be made again after its preset was retrained or deleted. What comes out of an image is a stranger's:
reading executes nothing, is bounded in size, and checks every number as a preset file's are.
"""

import base64
import json
import re
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from .core.container import parsed
from .core.model import PresetError, is_number, model_of
from .core.preset_file import MOST_CALLS, Preset
from .core.scores import size_record
from .core.sketch import HASHES, PATCHES
from .core.table import Table, check_float32
from .select.match import ModelFacts, cfg_range, is_solver

ENTRY = "s4s_table"         # names such a record, and holds the version of its layout
VERSION = 1
MAX_TEXT = 2 ** 17          # characters of a record; 6 calls take about 1,500, 100 calls about 110,000
MAX_METADATA = 2 ** 22      # characters of all of an image's texts that are parsed, packed ones unpacked
MAX_TABLES = 100            # of one image
_OPENING = 32               # extra characters that a list or an object counts for, as it takes memory
ENDINGS = (".png", ".webp", ".jpg", ".jpeg", ".avif")
INFOTEXT = "S4S table"      # the key of a packed record in WebUI's one text of all parameters
_PACKED = re.compile(rf"\b{INFOTEXT}: ([\w-]+)")
NOTE = "its numbers come from an image's metadata: the table as it ran there"
_KEPT = ("imported", "trainer", "created", "unfinished")        # of a preset's training, beside cfg and size


def to_text(selection, facts: ModelFacts) -> str | None:
    """The table of a Selection as compact JSON, of a fallback too; None if it would take more than MAX_TEXT, or has
    more calls than a preset's.

    facts: of the model it ran on; of a preset's table the preset's own record of its model is kept.
    """
    if selection.table.calls > MOST_CALLS:
        return None
    text = json.dumps(_record(selection, facts), separators=(",", ":"), allow_nan=False)
    return text if len(text) <= MAX_TEXT else None


def _record(selection, facts: ModelFacts) -> dict:
    preset, table = selection.preset, selection.table
    model = replace(facts, fingerprint=None).model if preset is None else preset.model
    model = replace(model, hashes={kind: model.hashes[kind] for kind in (*HASHES, PATCHES) if kind in model.hashes})
    solver = preset is None or is_solver(preset)
    record: dict = {
        ENTRY: VERSION, "name": "classical solver" if preset is None else preset.name,
        "table": selection.table_name or f"calls{table.calls}", "kind": "classical" if solver else selection.kind,
        "model": {key: value for key, value in asdict(model).items()
                  if value is not None and value is not False and value != {}}}
    if preset is not None:
        record |= {"preset": origin_of(preset)["preset"], "recommended": preset.recommends(selection.table_name),
                   "training": _training(preset, selection.table_name)}
    record |= {"sigmas": _plain(table.sigmas), "carry": _plain(table.carry),
               "weights": [_plain(row[:i + 1]) for i, row in enumerate(table.weights)]}
    usual = {"query": table.sigmas[:-1], "scale": np.ones(table.calls)}
    record |= {part: _plain(getattr(table, part)) for part, expected in usual.items()
               if not np.array_equal(getattr(table, part), expected)}
    if not table.keeps_constants:
        record["breaks_constants"] = True
    return {**record, "hash": Preset(record["name"], {record["table"]: table}, model).long_hash}


def origin_of(preset: Preset) -> dict:
    """{"name": ..., "preset": hash}: of the preset whose table an image carried, else the preset's own."""
    origin = preset.training.get("from_image")
    own = {"name": preset.name, "preset": preset.long_hash}
    return {**own, **{key: str(origin.get(key) or own[key]) for key in own}} if isinstance(origin, dict) else own


def pack(text: str) -> str:
    """The text of `to_text` in letters, digits, - and _ alone, and fewer: no infotext has to quote it."""
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def unpack(letters: str) -> str:
    """The text that `pack` was given. Raises PresetError if it is damaged or too long."""
    opened = zlib.decompressobj()
    try:
        text = opened.decompress(base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4)), MAX_TEXT + 1).decode()
    except (ValueError, zlib.error) as error:
        raise PresetError(f"the packed table is damaged ({str(error)[:100]})") from None
    if not opened.eof or len(text) > MAX_TEXT:
        raise PresetError(f"the packed table is cut off, or has more than {MAX_TEXT} characters")
    return text


def _training(preset: Preset, table: str) -> dict:
    kept = {key: preset.training[key] for key in _KEPT if isinstance(preset.training.get(key), (str, bool))}
    trained = {"cfg": cfg_range(preset, table), "resolution": size_record(preset.trained_sizes)}
    return kept | {key: list(value) for key, value in trained.items() if value}


def _plain(numbers: np.ndarray) -> list:
    return [int(value) if value == int(value) and abs(value) < 2 ** 53 and (value or not np.signbit(value))
            else float(value) for value in numbers]


def from_text(text: str) -> Preset:
    """The preset of one table that `to_text` wrote. Raises PresetError for whatever is wrong with the text."""
    if len(text) > MAX_TEXT:
        raise PresetError(f"the table's text has {len(text)} characters, {MAX_TEXT} at most: it is not a record")
    try:
        record = parsed(text)
    except ValueError as error:
        raise PresetError(f"the table's text is damaged ({str(error)[:200]})") from None
    return from_record(record)


def from_record(record) -> Preset:
    """The same of parsed JSON; its name, model and training record are the preset's that ran. Raises PresetError."""
    if not isinstance(record, dict) or record.get(ENTRY) != VERSION or isinstance(record[ENTRY], bool):
        raise PresetError("it is not the record of a table, or a later version wrote it: update S4S")
    training = record.get("training", {})
    if not isinstance(training, dict) or not isinstance(record.get("recommended", True), bool):
        raise PresetError("its record of the training is damaged")
    try:
        table = _table(record)
        check_float32(record["table"], table)
        preset = Preset(record["name"], {record["table"]: table}, model_of(record["model"]))
    except (TypeError, ValueError, LookupError) as error:
        raise PresetError(f"the table is damaged: {str(error)[:300]}") from None
    if preset.long_hash != record.get("hash"):
        raise PresetError(f"its numbers have hash {preset.long_hash}, not {str(record.get('hash'))[:20]!r}: they were "
                          "changed")
    origin = {key: str(record.get(key, ""))[:80] for key in ("name", "preset", "table", "kind")}
    return replace(preset, recommended=record.get("recommended", True),
                   training={**training, "from_image": origin, "note": NOTE})


def _table(record: dict) -> Table:
    sigmas, rows = _numbers(record["sigmas"]), record["weights"]
    if not 1 <= len(rows) <= MOST_CALLS:
        raise PresetError(f"it has {len(rows)} rows: expected 1 to {MOST_CALLS}")
    weights = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != i + 1:
            raise PresetError(f"row {i} of its weights does not have {i + 1} numbers")
        weights[i, :i + 1] = _numbers(row)
    query, scale = record.get("query", record["sigmas"][:-1]), record.get("scale", [1] * len(rows))
    return Table(sigmas, _numbers(query), _numbers(scale), _numbers(record["carry"]), weights,
                 keeps_constants=record.get("breaks_constants") is not True)


def _numbers(values) -> np.ndarray:
    if not isinstance(values, list) or not all(is_number(value) for value in values):
        raise PresetError("some of its entries are not numbers")
    return np.array(values, dtype=np.float64)


def is_image(path) -> bool:
    """Whether a path names an image of a kind that is looked into."""
    return Path(path).suffix.lower() in ENDINGS and Path(path).is_file()


def from_image(path) -> list[Preset]:
    """The presets in an image's metadata, in the order they ran; the tables of one preset together, each once.

    Raises PresetError if there is none, or where one is damaged.
    """
    path = Path(path)
    presets = grouped(map(from_text, _records(_texts(path))))
    if not presets:
        raise PresetError(f"{path.name} carries no table of S4S: another sampler or an older S4S made it, or its "
                          "metadata was removed")
    return presets


def grouped(presets: Iterable[Preset]) -> list[Preset]:
    """Presets of one table, as `from_record` gives them: the tables of one preset together, each once."""
    made: dict = {}
    for preset in presets:
        key = (preset.name, preset.training["from_image"]["preset"], repr(preset.model))
        made[key] = _with(made[key], preset) if key in made else preset
    return list(made.values())


def _with(before: Preset, preset: Preset) -> Preset:
    """Both tables in one preset; a second of one name, on other levels, is numbered."""
    (name, table), = preset.tables.items()
    if any(table.same_as(other) for other in before.tables.values()):
        return before
    names = (name, *(f"{name[:60]}_{number}" for number in range(2, MAX_TABLES + 2)))
    return replace(before, tables={**before.tables, next(one for one in names if one not in before.tables): table})


def _texts(path: Path) -> list[str]:
    """The image's texts that name a table, wherever its host put them, the shortest first. Pixels are not decoded."""
    if not path.is_file():
        raise PresetError(f"{path} is not a file")
    try:
        with Image.open(path) as image:
            exif = Image.Exif()
            exif.load(image.info.get("exif") or b"")
            texts = {text for text in (*image.info.values(), *exif.values()) if isinstance(text, str)}
    except Exception as error:          # Pillow raises many kinds of errors for a damaged file
        raise PresetError(f"{path.name} is not a readable image ({str(error)[:100]})") from None
    return sorted((text for text in texts if ENTRY in text or INFOTEXT in text), key=lambda text: (len(text), text))


def _records(texts: list[str]) -> dict[str, None]:
    """The records of tables in texts, each once, as JSON. What exceeds the limits is not looked at."""
    found: dict[str, None] = {}
    room = MAX_METADATA

    def look(content, depth: int = 12) -> None:
        """Add the records in parsed JSON, or in a text of it; a text inside it may be one too."""
        nonlocal room
        if isinstance(content, str) and ENTRY in content:
            room -= len(content) + _OPENING * (content.count("[") + content.count("{"))
            start = min((place for place in map(content.find, "[{") if place >= 0), default=0)    # behind a host's name
            with suppress(ValueError):
                content = parsed(content[start:]) if room >= 0 else None
        if isinstance(content, dict) and ENTRY in content:
            if len(found) < MAX_TABLES:
                found[json.dumps(content, separators=(",", ":"))] = None
        elif depth:
            for each in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
                look(each, depth - 1)
    for text in texts:
        look(text)
        for match in _PACKED.finditer(text):
            if room > 0 and len(found) < MAX_TABLES:
                look(unpack(match[1]))
    return found
