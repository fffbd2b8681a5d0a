"""What the ComfyUI registry and a user's first look need; read from the files, no host is started."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import s4s
from s4s.s4s_nodes import __version__
from tests import ships

ROOT = Path(__file__).parents[1]
LANGUAGES = ("en", "zh", "ja")
CORE_NODES = {"CheckpointLoaderSimple", "UNETLoader", "CLIPLoader", "DualCLIPLoader", "ModelSamplingAuraFlow",
              "ModelSamplingSD3",
              "EmptyHunyuanLatentVideo", "SaveAnimatedWEBP", "VAELoader", "CLIPTextEncode", "FluxGuidance",
              "EmptyLatentImage", "EmptySD3LatentImage", "LoadImage", "ImageScale", "VAEEncode", "VAEEncodeForInpaint",
              "KSampler", "KSamplerAdvanced", "RandomNoise", "CFGGuider", "BasicGuider", "SamplerCustomAdvanced",
              "VAEDecode", "SaveImage", "PreviewImage", "PreviewAny", "MarkdownNote"}
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))


def node_ids() -> set[str]:
    """The node_id="..." of every schema in the code, as a registry's scanner finds them."""
    found = set()
    for path in (ROOT / "s4s_nodes" / "hosts" / "comfyui").glob("*.py"):
        named = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.keyword) and node.arg == "node_id"]
        found |= {node.value.value for node in named if isinstance(node.value, ast.Constant)}
    return found


def words(lang: str) -> dict:
    return json.loads((ROOT / "locales" / lang / "nodeDefs.json").read_text(encoding="utf-8"))


def field(name: str) -> str:
    """A value of pyproject.toml (no TOML reader is in Python 3.10)."""
    return re.search(rf'^{re.escape(name)} = "(.*?)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]


def left_out() -> set[Path]:
    """The tracked files that .comfyignore keeps out of the registry's package, by git's own rules."""
    return {ROOT / name for name in set(names_of(ships.tracked)) - set(ships.registry())}


def names_of(listing) -> list[str]:
    """What a listing of ships.py names, or a skip where this is no clone."""
    try:
        return listing()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs git and a clone: {error}")


def imported(path: Path, seen: set[Path]) -> set[Path]:
    """The files of ours a module imports at import or in a function, through and through, itself included."""
    if path in seen:
        return seen
    seen.add(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for place in (folder, *(folder / alias.name for alias in node.names)):
                for file in (place.with_suffix(".py"), place / "__init__.py"):
                    if file.is_file():
                        imported(file, seen)
    return seen


def test_the_registry_finds_what_it_asks_for():
    assert re.fullmatch(r"\d+\.\d+\.\d+", field("version"))
    assert re.fullmatch(r"[a-z][a-z0-9-]{2,99}", field("name")) and "comfyui" not in field("name")
    for name in ("PublisherId", "DisplayName", "Icon", "Repository"):
        assert field(name)
    assert field("requires-comfyui").startswith(">=")
    assert (ROOT / "LICENSE").is_file()


def test_the_version_is_one():
    assert field("version") == __version__


@pytest.mark.skipif(os.name == "nt", reason="runs the publish action's shell")
def test_the_registry_gets_this_versions_part_of_the_changelog(tmp_path):
    text = (ROOT / ".github/workflows/publish.yml").read_text(encoding="utf-8")
    [shell] = re.findall(r"- run: \|.*\n((?: {10}.*\n)+)", text)
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(["bash", "-e", "-c", shell], cwd=tmp_path, check=True)
    sent, whole = (tmp_path / "updates.md").read_text(), (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert sent.strip() == whole.split(f"## [{__version__}]")[1].split("\n", 1)[1].split("\n## [")[0].strip()


def test_every_package_of_the_tree_is_listed():
    listed = re.search(r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M | re.S)[1]
    folders = {path.parent for room in ("s4s_nodes", "training") for path in (ROOT / room).rglob("*.py")}
    named = {".".join(("s4s", *folder.relative_to(ROOT).parts)) for folder in folders}
    assert set(re.findall(r'"(.+?)"', listed)) == named | {"s4s", "s4s.solver_presets"}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_every_file_that_is_no_code_is_packaged():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    data = re.search(r"\[tool.setuptools.package-data\]\n(.*?)\n\n", text, re.S)[1]
    listed = dict(re.findall(r'^"(.+?)" = \["\*(.+?)"\]', data, re.M))
    for room in ("s4s_nodes", "training"):
        for path in (ROOT / room).rglob("*.*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert listed[".".join(("s4s", *path.parent.relative_to(ROOT).parts))] == path.suffix, path


def test_the_public_names_are_found():
    names = ("Model", "Preset", "Table", "bundled", "load", "sample", "sample_table", "save")
    assert all(callable(getattr(s4s, name)) for name in names) and {*names, "__version__"} <= set(dir(s4s))
    with pytest.raises(AttributeError, match="'s4s' has no attribute 'nothing'"):
        _ = s4s.nothing


@pytest.mark.slow
def test_an_installed_wheel_lists_its_presets(tmp_path):
    """Built as pip builds it, unpacked and run in an empty folder, without the clone on the path."""
    left = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info", "docs", "tests", "runs")
    shutil.copytree(ROOT, tmp_path / "clone", ignore=left)                  # building leaves folders behind
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, tmp_path / "clone"],
                   check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    assert ships.check(ships.bill(ships.wheel()), tmp_path / "site" / "s4s") == []
    (tmp_path / "empty").mkdir()
    done = subprocess.run([sys.executable, "-m", "s4s", "list"], cwd=tmp_path / "empty", capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in (ROOT / "solver_presets").glob("*.safetensors")} <= set(done.stdout.split())


def test_the_icon_is_a_small_square():
    path = ROOT / "docs" / "images" / field("Icon").rsplit("/", 1)[1]
    assert field("Icon").endswith(path.relative_to(ROOT).as_posix())
    with Image.open(path) as icon:
        assert icon.width == icon.height <= 400


def test_the_package_keeps_what_the_nodes_need():
    gone = left_out()
    needed = imported(ROOT / "__init__.py", set())
    assert {ROOT / "training" / "distil.py", ROOT / "s4s_nodes" / "hosts" / "comfyui" / "nodes_training.py"} <= needed
    demo = ROOT / "training" / "demo_models"                              # named by the command line's part alone
    assert not {path for path in needed & gone if demo not in path.parents}
    for folder, ending in (("s4s_nodes", "json"), ("solver_presets", "safetensors"), ("web", "md"), ("locales", "json"),
                           ("example_workflows", "jpg"), ("example_workflows", "json"), ("subgraphs", "json")):
        files = set((ROOT / folder).rglob(f"*.{ending}")) - set((ROOT / "s4s_nodes" / "hosts" / "webui").rglob("*"))
        assert files and not files & gone, (folder, files & gone)


def test_the_package_leaves_out_what_no_user_of_the_nodes_opens():
    gone = {path.relative_to(ROOT).parts[0] for path in left_out()}
    assert {"tests", "docs", ".github", "scripts"} <= gone


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_node_has_a_help_page_and_words(lang):
    assert len(node_ids()) >= 11 and set(words(lang)) == node_ids()
    assert {path.parent.name for path in (ROOT / "web" / "docs").glob(f"*/{lang}.md")} == node_ids()
    for kind, node in words(lang).items():
        page = (ROOT / "web" / "docs" / kind / f"{lang}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {node['display_name']}\n") and page.count("\n## ") == 4
        assert node["inputs"].keys() == words("en")[kind]["inputs"].keys()
        assert node["outputs"].keys() == words("en")[kind]["outputs"].keys()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_whole(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert {node["type"] for node in nodes.values()} <= CORE_NODES | node_ids()
    assert any(node["type"].startswith("S4S") or "s4s" in node["widgets_values"] for node in nodes.values())
    for number, origin, output, target, slot, kind in workflow["links"]:
        assert number in nodes[origin]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["link"] == number
        assert nodes[origin]["outputs"][output]["type"] == kind
    with Image.open(path.with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG" and 300 <= picture.width <= 1024
    assert path.with_suffix(".jpg").stat().st_size <= 60_000


@pytest.mark.parametrize("path", [*WORKFLOWS, *BLUEPRINTS], ids=lambda path: path.stem)
def test_the_nodes_of_a_workflow_have_all_their_inputs(path):
    """If this fails, run tests/hosts/comfyui/workflow_files.py and blueprint_files.py with the newest host."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for graph in (content, *content.get("definitions", {}).get("subgraphs", [])):
        for node in (node for node in graph["nodes"] if node["type"] in node_ids()):
            assert {entry["name"] for entry in node["inputs"]} == set(words("en")[node["type"]]["inputs"])


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_one_node_for_a_subgraph(path):
    blueprint = json.loads(path.read_text(encoding="utf-8"))
    [outer], [subgraph] = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    assert outer["type"] == subgraph["id"] and subgraph["name"] == path.stem and subgraph["description"]
    assert {node["type"] for node in nodes.values()} <= CORE_NODES | node_ids()
    for end in ("inputs", "outputs"):
        assert [(slot["name"], slot["type"]) for slot in outer[end]] == [(slot["name"], slot["type"])
                                                                         for slot in subgraph[end]]
    for number, field_ in outer["properties"]["proxyWidgets"]:
        named = {slot["widget"]["name"] for slot in nodes[int(number)]["inputs"] if "widget" in slot}
        assert field_ in named | {"control_after_generate"}
    for link in subgraph["links"]:
        assert link["origin_id"] == -10 or link["id"] in nodes[link["origin_id"]]["outputs"][link["origin_slot"]][
            "links"]
        assert link["target_id"] == -20 or nodes[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"]
    for end, number, outside in (("inputs", "origin", -10), ("outputs", "target", -20)):
        for i, slot in enumerate(subgraph[end]):
            here = {link["id"] for link in subgraph["links"]
                    if link[f"{number}_id"] == outside and link[f"{number}_slot"] == i}
            assert here == set(slot["linkIds"]) != set()


def test_there_is_a_blueprint_to_sample_to_train_and_to_race():
    assert [path.stem for path in BLUEPRINTS] == ["S4S race", "S4S sampler", "S4S train"]


def test_there_is_a_workflow_for_every_use():
    assert {path.stem for path in WORKFLOWS} >= {f"s4s_{use}" for use in (
        "text_to_image", "custom_sampling", "image_to_image", "inpaint", "train", "race")}


SHIPS = {"", ".css", ".html", ".ini", ".jpg", ".js", ".json", ".md", ".png", ".py", ".safetensors", ".svg", ".toml",
         ".typed", ".webp", ".yml"}


def test_nothing_that_ships_is_compiled_or_runs_when_it_is_read():
    """No binaries, no pickles, no archives: what a clone holds can be read, but for tensors and pictures."""
    kept = {Path(name) for name in names_of(ships.tracked) if not name.startswith((".", "tests/"))}
    assert {path for path in kept if path.suffix not in SHIPS} == set()


def test_a_folder_is_checked_against_the_list_of_what_ships(tmp_path, capsys):
    names = ["s4s_nodes/core/loop.py", "LICENSE", "web/s4s.js"]
    assert set(names) <= set(names_of(ships.registry)) and "s4s_nodes/core/loop.py" in ships.wheel()
    for name in names:
        (tmp_path / "installed" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "installed" / name)
    (tmp_path / "list").write_text(json.dumps(ships.bill(names)), encoding="utf-8")
    (tmp_path / "installed" / "__pycache__").mkdir()
    (tmp_path / "installed" / "__pycache__" / "x.pyc").touch()
    arguments = ["check", str(tmp_path / "list"), str(tmp_path / "installed")]
    assert ships.main(arguments) == 0 and capsys.readouterr().out == "the same\n"
    (tmp_path / "installed" / "LICENSE").write_text("mine")
    (tmp_path / "installed" / "web" / "s4s.js").rename(tmp_path / "installed" / "more.js")
    assert ships.main(arguments) == 1
    assert capsys.readouterr().out == "missing: web/s4s.js\nnot listed: more.js\nchanged: LICENSE\n"


def test_the_locked_versions_are_all_that_the_project_names():
    """Every package of the optional dependencies has one version in .ci."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    groups = dict(re.findall(r"^(train|checkpoints|test) = \[(.*?)\]$", text, re.M | re.S))
    items = [item for group in groups.values() for item in re.findall(r'"(.*?)"', group)]
    named = {re.match(r"[\w-]+", item)[0].lower() for item in items}
    lines = [line for name in ("locked.txt", "constraints.txt")
             for line in (ROOT / ".ci" / name).read_text(encoding="utf-8").splitlines() if line[:1] not in ("#", "")]
    locked = dict(line.split("==") for line in lines)
    assert len(groups) == 3 and len(locked) == len(lines)
    assert named - {"s4s-sampler"} - set(locked) == set()
