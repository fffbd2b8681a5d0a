"""What strangers send: presets, images' metadata, names. Nothing in it may do harm.

Tries are made in children that get 100 MB and, for each, a second of the processor.
"""

import json
import random
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import torch
from click.testing import CliRunner
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from s4s.s4s_nodes import library, metadata
from s4s.s4s_nodes.core import Preset, PresetError, classical, mixture, model, names, preset_file, sample, schedules
from s4s.s4s_nodes.library import Library, ModelFacts, Request, save_new, select
from s4s.training.benchmark import html_report
from s4s.training.benchmark.report_run import settings
from s4s.training.cli.main import main as commands
from s4s.training.config import Config
from tests.bench.proof import host_doors, presets
from tests.bench.proof.attack import Attack
from tests.bench.proof.forked import Child

MEGABYTES, SECONDS = 100, 1.0
BATCH = 100                 # tries of one child
FACTS = ModelFacts.of(presets.GOOD.model)


def limited(one: Callable[[random.Random, Path], None]) -> Callable:
    """tries of one(chance, folder), which raises where something is wrong."""
    def batch(chance: random.Random, folder: Path, count: int) -> list:
        failures = []
        for _ in range(count):
            seed = chance.random()
            began = time.process_time()
            try:
                one(random.Random(seed), folder)
                failures.append(None)
            except BaseException as error:
                failures.append(f"{type(error).__name__}: {str(error)[:300]} (seed {seed!r})")
            if (took := time.process_time() - began) > SECONDS:
                failures[-1] = f"took {took:.1f} s (seed {seed!r})"
        return failures

    def tries(chance: random.Random) -> Iterator[str | None]:
        one(random.Random(0), Path(tempfile.mkdtemp()))             # what is imported on first use counts for none
        count = 1
        while True:
            with tempfile.TemporaryDirectory(prefix="s4s-proof-") as place:
                seed, size = chance.random(), count
                done = Child(lambda: batch(random.Random(seed), Path(place), size), MEGABYTES).result()
            found = done.get("result") or [f"the child ended: {done}"]
            if done.get("megabytes", 0) > MEGABYTES:
                found[-1] = f"a batch took {done['megabytes']:.0f} MB (seed {seed!r})"
            yield from found
            count = BATCH
    return tries


# --- presets ------------------------------------------------------------------------------------------------------

def flipped(chance: random.Random, folder: Path) -> None:
    same_or_refused(presets.flipped(chance), folder)


def battered(chance: random.Random, folder: Path) -> None:
    same_or_refused(presets.battered(chance), folder)


def same_or_refused(content: bytes, folder: Path) -> None:
    held = presets.load(content, folder / "theirs.safetensors")
    assert held is None or preset_file.to_bytes(held) == presets.BYTES, "SILENTLY DIFFERENT"


def forged(chance: random.Random, folder: Path) -> None:
    """Read, it can be used in every way a host and the command line use presets."""
    _usable(presets.load(presets.forged(chance), folder / "theirs.safetensors"), folder)


def described(content: bytes, folder: Path) -> None:
    """These bytes as a preset's description, with the right checksum."""
    _usable(presets.load(presets.sealed_with(content), folder / "theirs.safetensors"), folder)


def _usable(held: Preset | None, folder: Path) -> None:
    if held is None:
        return
    assert preset_file.describe(held).replace("\n", "").isprintable()
    with suppress(PresetError):                     # numbers that leave float64 when they are sampled
        preset_file.to_bytes(held)
    shelf = Library([folder], folder / "none")
    assert list(shelf.named()) == ["theirs"] and library.measured_text(held) and library.recommended_text(held)
    assert "<script" not in html_report.page(held, {}, folder / "none").replace("&lt;script", "")
    with suppress(ValueError):
        settings(held, {}, None)
    facts = replace(FACTS, fingerprint=lambda: presets.GOOD.model.hashes)
    for request in (Request(facts, [held], steps=3, cfg=3.0), Request(facts, [held], steps=4, cfg=5.0),
                    Request(facts, [held], steps=4, cfg=5.0, named=held), Request(facts, [held], steps=3, named=held)):
        try:
            found = select(request)
        except ValueError:
            continue
        assert found.message().isprintable()
        sample(mixture, torch.full((1, 2), float(found.table.sigmas[0])), found.table)
        with suppress(PresetError):                 # numbers that no image carries
            metadata.from_text(metadata.to_text(found, FACTS) or "")


def of_an_image(chance: random.Random, folder: Path) -> None:
    """A record in an image's metadata, with characters changed or any value anywhere."""
    recorded(_changed(record(), chance).encode("utf-8", "surrogatepass"), folder)


def _changed(text: str, chance: random.Random) -> str:
    if chance.random() < 0.5:
        content = json.loads(text)
        presets._edit(content, chance)
        return json.dumps(content)
    start, end = sorted(chance.randrange(len(text)) for _ in range(2))
    return text[:start] + chance.choice(["", "9" * 400, "[" * 2000, text[start:end] * 3, "\0"]) + text[end:]


def of_an_image_file(chance: random.Random, folder: Path) -> None:
    """Whole images: records as they are, changed or packed, in texts or in EXIF."""
    texts = [_changed(record(), chance) if chance.random() < 0.7 else record() for _ in range(chance.choice([1, 1, 3]))]
    texts = [chance.choice([text, f"S4S table: {metadata.pack(text)}", json.dumps([{"numbers": text}]), text[:-1]])
             for text in texts]
    path = folder / chance.choice(["theirs.png", "theirs.jpg", "theirs.webp"])
    info, exif = PngInfo(), Image.Exif()
    for number, text in enumerate(texts):
        text = text.encode("utf-8", "replace").decode()
        info.add_text(f"s4s{number}", text, zip=chance.random() < 0.5)
        exif[0x010F - number] = f"s4s:{text}"[:60_000]
    Image.new("RGB", (8, 8)).save(path, **({"pnginfo": info} if path.suffix == ".png" else {"exif": exif}))
    if chance.random() < 0.2:
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
    try:
        made = metadata.from_image(path)
    except PresetError:
        return
    assert all(preset_file.describe(one).replace("\n", "").isprintable() and preset_file.to_bytes(one) for one in made)


def recorded(content: bytes, folder: Path) -> None:
    """These bytes as a record in an image's metadata."""
    try:
        made = metadata.from_text(content.decode("utf-8", "surrogateescape"))
    except PresetError:
        return
    assert preset_file.describe(made).replace("\n", "").isprintable() and preset_file.to_bytes(made)


def record() -> str:
    return metadata.to_text(select(Request(FACTS, [presets.GOOD], steps=3, cfg=3.0, named=presets.GOOD)), FACTS)


# --- names --------------------------------------------------------------------------------------------------------

PARTS = ["..", "/", "\\", ".", "~", "CON", "nul", "com1", "a", "B", "ü", "\u202e", "\u200b", "\0", "\n", "\x1b", " ",
          ":", "*", "?", "|", "<", ">", '"', "%", "$HOME", "é", "e\u0301", "state", "config", ".safetensors", "中",
          "😀", "\ud800", "a" * 90, "-", "--force", ";", "`", "'"]
TABLES = {"calls2": classical.euler(schedules.karras(2, 0.03, 14.6))}


def named(chance: random.Random, folder: Path) -> None:
    """A name in every door: it is refused, or its file lies in the folder it was meant for."""
    doors("".join(chance.choice(PARTS) for _ in range(chance.randint(0, 5))), folder)


def doors(name: str, folder: Path) -> None:
    home = folder / "a" / "home"
    home.mkdir(parents=True, exist_ok=True)
    _open_doors()
    slow = SLOW_DOORS[zlib.crc32(name.encode("utf-8", "replace")) % len(SLOW_DOORS)]
    for door in (_new, _saved, _renamed, _configured, _joined, _imported, _plotted, slow):
        before = {path for path in folder.rglob("*") if home not in path.parents}
        try:
            door(name, home)
        except PresetError:
            pass
        except ValueError as error:
            assert door in (_configured, slow) and str(error), error
        after = {path for path in folder.rglob("*") if home not in path.parents}
        assert after == before, f"{name!r} made {after - before}"
        assert all(path.parent == home and path.suffix in (".safetensors", ".png") for path in home.rglob("*")), name
        for path in list(home.iterdir()):
            path.unlink()


@cache
def _open_doors() -> None:
    """Import what the slow doors need: the first use is in this process, and counts for no try."""
    import_module("s4s.s4s_nodes.exporters.scheduler")
    for one in SLOW_DOORS:
        with suppress(ValueError), tempfile.TemporaryDirectory() as home:
            one("a", Path(home))


def _new(name: str, home: Path) -> None:
    save_new(Preset(names.preset_name(name), TABLES, presets.GOOD.model), home)


def _saved(name: str, home: Path) -> None:
    """As older files may be called."""
    save_new(Preset(name, TABLES, presets.GOOD.model), home)


def _renamed(name: str, home: Path) -> None:
    save_new(Preset("old", TABLES, presets.GOOD.model), home)
    Library([home], home / "none").rename("old", name)


def _joined(name: str, home: Path) -> None:
    given = [str(save_new(Preset(f"cfg{cfg}", TABLES, presets.GOOD.model, {"cfg": cfg}), home)) for cfg in (3, 7)]
    _command("join", "--folder", str(home), "--", name, *given)


def _imported(name: str, home: Path) -> None:
    _command("import", "ays-sd15", f"--name={name}", "--out", str(home))


def _plotted(name: str, home: Path) -> None:
    """A picture of a file that holds any name; few of them, since drawing takes long."""
    if model.is_name(name) and zlib.crc32(name.encode("utf-8", "replace")) % 64 == 0:
        with tempfile.TemporaryDirectory() as theirs:
            path = preset_file.save(Preset(name, TABLES, presets.GOOD.model), Path(theirs) / "theirs.safetensors")
            _command("show", str(path), "--plot", str(home))


def _exported(name: str, home: Path) -> None:
    """A preset of this name for diffusers, beside a file of this name; where there is none, of another."""
    with tempfile.TemporaryDirectory() as place:
        theirs = Path(place) / "theirs"
        with suppress(OSError, ValueError):
            path = preset_file.save(Preset("new", TABLES, presets.GOOD.model), theirs / f"{names.file_name(name)}.it")
            path = path.rename(theirs / name) if (theirs / name).parent == theirs else path
            _command("export", "--to", "diffusers", "--", str(path))
        made = {found.relative_to(place) for found in Path(place).rglob("*.json")}
        assert made <= {Path("theirs") / f"{path.stem}-diffusers" / "scheduler_config.json"}, made


def _dropped_in(name: str, home: Path) -> None:
    host_doors.dropped_in(json.loads(record()), name, home)


def _command(*arguments: str) -> None:
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code in (0, 1, 2) and (done.exception is None or isinstance(done.exception, SystemExit)), done


def _configured(name: str, home: Path) -> None:
    (home / f"{Config.of(name=name).name}.safetensors").write_bytes(b"")


SLOW_DOORS = (_exported, _dropped_in, *host_doors.DOORS)        # one of them a name


_READ = "refused in words, or the same; 1 s and 100 MB"
ATTACKS = [
    Attack("fuzz", "a preset with one bit flipped", _READ, limited(flipped)),
    Attack("fuzz", "a preset with bytes lost, repeated, changed", _READ, limited(battered)),
    Attack("fuzz", "a forged preset: any value, right checksum", "refused in words, or usable everywhere",
           limited(forged), 2),
    Attack("fuzz", "a table in an image's metadata", "refused in words, or usable", limited(of_an_image)),
    Attack("fuzz", "an image: records changed, packed, in EXIF", "refused in words, or usable",
           limited(of_an_image_file)),
    Attack("fuzz", "a name in every door", "refused, or one file in its folder", limited(named)),
]
