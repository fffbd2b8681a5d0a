"""The one-way order of the modules, read from their source: nothing is imported to find out."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "s4s_nodes" / "core"

ORDER = {       # within the core a module may import those of a lower number
    "files": 0, "analytic": 0, "schedule": 0, "solver": 0, "sampling": 0, "sketch": 0, "model": 0,
    "container": 1, "names": 1, "trace": 1, "lowering": 2,
    "slope": 3, "log_snr": 3, "classical": 4, "adapt": 5, "preset": 5,
    "between": 6, "k_sampler": 6, "facts": 6, "conditioned": 7, "choice": 8, "__init__": 9,
}
LIBRARIES = {"torch", "numpy", "safetensors", "tqdm", "einops"}
LAZY = {"scipy"}                                            # only inside a function
FIRST_PARTY = {"s4s_nodes", "training", "s4s_training", "tests", "scripts"}
HOSTS = {"comfy": "comfyui", "comfy_api": "comfyui", "comfy_extras": "comfyui", "folder_paths": "comfyui",
         "nodes": "comfyui", "server": "comfyui", "latent_preview": "comfyui",
         "modules": "webui", "gradio": "webui", "ldm_patched": "webui", "backend": "webui"}
CUTTERS = {"item", "data", "detach", "cpu", "numpy", "tensor"}      # each of them leaves the gradient behind


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path):
    """(node, dots, dotted name, inside a function) of every import; `from . import a` gives the name a."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, 0, alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((node, node.level, name, id(node) in inside) for name in names)


def found(path: Path, node) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"


def test_the_core_imports_five_libraries_and_itself():
    for path in CORE.glob("*.py"):
        for node, dots, name, lazily in imports(path):
            top = name.split(".")[0]
            known = sys.stdlib_module_names | LIBRARIES | (LAZY if lazily else set())
            assert dots == 1 if dots else top in known, found(path, node)


def test_the_core_has_one_order():
    for path in CORE.glob("*.py"):
        for node, dots, name, _ in imports(path):
            assert not dots or ORDER[name] < ORDER[path.stem], found(path, node)


def test_inside_a_host_the_trainer_finds_the_core_as_its_neighbour(tmp_path):
    """A host gives the clone a name of its own and keeps it off sys.path."""
    code = (f"import sys, types; pack = types.ModuleType('custom.pack'); pack.__path__ = [{str(ROOT)!r}]; "
            "sys.modules.update({'custom': types.ModuleType('custom'), 'custom.pack': pack}); "
            "from custom.pack.training import runs; from custom.pack.s4s_nodes.core import Solver; "
            "assert runs.Preset.__module__ == 'custom.pack.s4s_nodes.core.preset'; "
            "assert not any(name.split('.')[0] in ('s4s_nodes', 'training') for name in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_module_of_the_core_has_its_place():
    assert {path.stem for path in CORE.glob("*.py")} == set(ORDER)


def test_inside_the_package_imports_are_relative():
    """A host imports the clone under a name of its own, and puts other extensions' `training` on sys.path."""
    for path in sources("s4s_nodes"):
        for node, dots, name, _ in imports(path):
            assert dots or name.split(".")[0] not in FIRST_PARTY, found(path, node)


def test_the_core_and_the_library_reach_no_door():
    for path in [*sources("s4s_nodes/core"), *ROOT.glob("s4s_nodes/*.py")]:
        allowed = len(path.relative_to(ROOT).parts) - 1               # no more dots than folders to s4s_nodes
        for node, dots, name, _ in imports(path):
            assert dots <= allowed, found(path, node)
            assert name.split(".")[0] not in ("comfyui", "webui"), found(path, node)


def test_hosts_are_imported_behind_their_own_door_only():
    doors = {"comfyui": {ROOT / "__init__.py", *sources("s4s_nodes/comfyui")},
             "webui": {*sources("s4s_nodes/webui", "scripts")}}
    for path in [*sources("s4s_nodes", "training", "scripts"), *ROOT.glob("*.py")]:
        for node, dots, name, _ in imports(path):
            host = None if dots else HOSTS.get(name.split(".")[0])
            assert host is None or path in doors[host], found(path, node)


def test_the_trainer_reaches_the_core_and_its_command_line_the_exchange():
    rooms = {"exchange.py": ("s4s_nodes.importers", "s4s_nodes.exporters", "s4s_nodes.library")}
    for path in sources("training"):
        depth = len(path.relative_to(ROOT / "training").parts)          # so many dots stay inside the trainer
        for node, dots, name, _ in imports(path):
            if dots > depth or (dots == 0 and name.split(".")[0] in FIRST_PARTY):
                open_to = rooms.get(path.name, ("s4s_nodes.core",))
                assert name in open_to or name.startswith("s4s_nodes.core."), found(path, node)


def test_the_rooms_of_the_trainer_have_one_order():
    """A room may import those of a lower number; the rest of the trainer stands above them."""
    rooms = {"tables": 0, "models": 0, "race": 1, "learning": 2}
    for room in rooms:
        for path in sources(f"training/{room}"):
            for node, dots, name, _ in imports(path):
                other = name.split(".")[0] if dots == 2 else None
                assert other not in rooms or rooms[other] < rooms[room], found(path, node)
                assert other not in ("runs", "distil", "commands"), found(path, node)


def test_importers_and_exporters_reach_the_core_only():
    for path in sources("s4s_nodes/importers", "s4s_nodes/exporters"):
        known = sys.stdlib_module_names | {"numpy", "torch"} | ({"diffusers"} if path.stem == "scheduler" else set())
        for node, dots, name, _ in imports(path):
            top = name.split(".")[0]
            assert top in known if not dots else dots == 1 or top == "core", found(path, node)


@pytest.mark.parametrize("module", ["solver", "trace", "sampling", "classical"])
def test_nothing_cuts_a_gradient(module):
    """But for Table.solver, whose purpose it is."""
    path = CORE / f"{module}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    freezes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "solver"
               and module == "trace"]
    allowed = {id(node) for function in freezes for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CUTTERS and id(node) not in allowed:
            raise AssertionError(found(path, node))


def test_the_core_executes_nothing_it_reads():
    modules = {"pickle", "marshal", "shelve", "subprocess", "ctypes", "socket", "urllib", "http", "runpy"}
    calls = {"eval", "exec", "compile", "__import__", "torch.load", "np.load"}
    for path in CORE.glob("*.py"):
        for node, dots, name, _ in imports(path):
            assert dots or name.split(".")[0] not in modules, found(path, node)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Call) or ast.unparse(node.func) not in calls, found(path, node)


def test_importing_the_core_drags_in_nothing_slow():
    code = ("import sys, s4s_nodes.core; "
            "print(*{'scipy', 'k_diffusion', 'diffusers', 'matplotlib'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
