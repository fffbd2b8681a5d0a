"""The one-way order of the modules, read from their source: nothing is imported to find out."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "s4s_nodes" / "core"

ORDER = (       # a room may import those of the lines above it; rooms of one line do not know each other
    "s4s_nodes",                                                        # the version alone
    "s4s_nodes.core",
    "s4s_nodes.select",
    "s4s_nodes.metadata",
    "s4s_nodes.library s4s_nodes.published s4s_nodes.exporters s4s_nodes.picture",
    "training training.progress training.config training.lock training.weights",
    "training.parametrization training.source",
    "training.sizes",
    "training.teacher training.parallel training.checkpoints training.demo_models",
    "training.baselines",
    "training.optimizers",
    "training.starts",
    "training.sources training.teacher.convergence training.checks training.run_identity",
    "training.run_folder",
    "training.budget",
    "training.run_tables",
    "training.run training.estimate",
    "training.benchmark",
    "training.distil",
    "training.cli s4s_nodes.hosts",
    " __main__",                                                        # the doors: the package itself and its program
)
LIBRARIES = {"torch", "numpy", "safetensors", "tqdm", "einops"}
LAZY = {"scipy"}                                            # only inside a function
FIRST_PARTY = {"s4s", "s4s_nodes", "training", "tests", "scripts"}
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


def package() -> list[Path]:
    """Every module of the package."""
    return [*sources("s4s_nodes", "training"), ROOT / "__init__.py", ROOT / "__main__.py"]


def name_of(path: Path) -> str:
    """The module's dotted name inside the package, "" for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_of(path: Path, node: ast.ImportFrom) -> set[str]:
    """The modules of the package that a relative import reads, a package where it takes a name from its __init__."""
    folder = path.parents[node.level - 1]
    base = folder.joinpath(*(node.module or "").split(".")) if node.module else folder
    found = set()
    for alias in node.names:
        place = base / alias.name
        inside = place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()
        found.add(".".join((place if inside else base).relative_to(ROOT).parts))
    return found


def room_of(module: str) -> tuple[int, str]:
    """(its line in ORDER, its room)."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        room = ".".join(parts[:length])
        for rank, line in enumerate(ORDER):
            if room in line.split(" ") and (room == module or room not in ("s4s_nodes", "training")):
                return rank, room
    raise AssertionError(f"{module} has no place in ORDER")


def arrows():
    """(path, node, the importing module, the imported one) of every import inside the package."""
    for path in package():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                yield from ((path, node, name_of(path), module) for module in modules_of(path, node))


def found(path: Path, node) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"


def test_the_core_imports_five_libraries_and_itself():
    for path in CORE.rglob("*.py"):
        for node, dots, name, lazily in imports(path):
            top = name.split(".")[0]
            known = sys.stdlib_module_names | LIBRARIES | (LAZY if lazily else set())
            assert dots < len(path.relative_to(CORE.parent).parts) if dots else top in known, found(path, node)


def test_the_package_has_one_order():
    for path, node, one, other in arrows():
        (rank, room), (below, reached) = room_of(one), room_of(other)
        assert room == reached or below < rank, found(path, node)


def test_no_modules_import_each_other_in_a_circle():
    known, done = {}, set()
    for _, _, one, other in arrows():
        if one != other:
            known.setdefault(one, set()).add(other)

    def follow(module: str, way: tuple) -> None:
        assert module not in way, " -> ".join((*way[way.index(module):], module))
        if module not in done:
            for other in sorted(known.get(module, ())):
                follow(other, (*way, module))
            done.add(module)
    for module in sorted(known):
        follow(module, ())


def test_inside_a_host_the_trainer_finds_the_core_as_its_neighbour(tmp_path):
    """A host gives the clone a name of its own and keeps it off sys.path."""
    code = (f"import sys, types; pack = types.ModuleType('custom.pack'); pack.__path__ = [{str(ROOT)!r}]; "
            "sys.modules.update({'custom': types.ModuleType('custom'), 'custom.pack': pack}); "
            "from custom.pack.training import run; from custom.pack.s4s_nodes.core import Table; "
            "assert run.Preset.__module__ == 'custom.pack.s4s_nodes.core.preset_file'; "
            "assert not any(name.split('.')[0] in ('s4s', 's4s_nodes', 'training') for name in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_module_has_its_place():
    for path in package():
        room_of(name_of(path))


def test_inside_the_package_imports_are_relative():
    """A host imports the clone under a name of its own, and puts other extensions' `training` on sys.path."""
    for path in package():
        for node, dots, name, _ in imports(path):
            assert dots or name.split(".")[0] not in FIRST_PARTY, found(path, node)


def test_tests_import_the_package_by_its_name():
    """The clone's folder is on their path for the sake of `tests` alone."""
    for path in sources("tests"):
        for node, dots, name, _ in imports(path):
            assert dots or name.split(".")[0] not in FIRST_PARTY - {"s4s", "tests"}, found(path, node)


def test_hosts_are_imported_behind_their_own_door_only():
    doors = {"comfyui": {ROOT / "__init__.py", *sources("s4s_nodes/hosts/comfyui")},
             "webui": {*sources("s4s_nodes/hosts/webui", "scripts")}}
    for path in [*sources("s4s_nodes", "training", "scripts"), *ROOT.glob("*.py")]:
        for node, dots, name, _ in imports(path):
            host = None if dots else HOSTS.get(name.split(".")[0])
            assert host is None or path in doors[host], found(path, node)


def test_exporters_reach_the_core_only():
    for path in sources("s4s_nodes/exporters"):
        known = sys.stdlib_module_names | {"numpy", "torch"} | ({"diffusers"} if path.stem == "scheduler" else set())
        for node, dots, name, _ in imports(path):
            top = name.split(".")[0]
            assert top in known if not dots else dots == 1 or top == "core", found(path, node)


@pytest.mark.parametrize("module", ["table", "trace", "loop", "classical/__init__", "classical/slope",
                                    "classical/log_snr"])
def test_nothing_cuts_a_gradient(module):
    """But for TensorTable.frozen, whose purpose it is."""
    path = CORE / f"{module}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    freezes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "frozen"
               and module == "trace"]
    allowed = {id(node) for function in freezes for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CUTTERS and id(node) not in allowed:
            raise AssertionError(found(path, node))


def test_the_core_executes_nothing_it_reads():
    modules = {"pickle", "marshal", "shelve", "subprocess", "ctypes", "socket", "urllib", "http", "runpy"}
    calls = {"eval", "exec", "compile", "__import__", "torch.load", "np.load"}
    for path in CORE.rglob("*.py"):
        for node, dots, name, _ in imports(path):
            assert dots or name.split(".")[0] not in modules, found(path, node)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Call) or ast.unparse(node.func) not in calls, found(path, node)


def test_importing_the_core_drags_in_nothing_slow():
    code = ("import sys, s4s.s4s_nodes.core; "
            "print(*{'scipy', 'k_diffusion', 'diffusers', 'matplotlib'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
