"""Finds a ComfyUI checkout and brings it up in this process, on the CPU, with the clone loaded as a custom node."""

import asyncio
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PACK = "S4S-clone.under-an_odd.name"       # the folder a user chose; with a space in it the host serves no files of it
REQUIRED = ("torch", "torchvision", "torchsde", "transformers", "safetensors", "aiohttp", "PIL", "av", "yaml", "einops")


def folder() -> Path | None:
    """The checkout: $COMFYUI_PATH, else ~/.cache/s4s-hosts/comfyui; None where neither holds one."""
    given = os.environ.get("COMFYUI_PATH")
    path = Path(given) if given else Path.home() / ".cache" / "s4s-hosts" / "comfyui"
    return path.resolve() if (path / "comfy" / "samplers.py").is_file() else None


def missing() -> str | None:
    """Why the host cannot run here, or None."""
    if folder() is None:
        return "no ComfyUI checkout: set COMFYUI_PATH, or put one at ~/.cache/s4s-hosts/comfyui"
    if absent := [name for name in REQUIRED if find_spec(name) is None]:
        return f"this Python lacks {', '.join(absent)}: run these tests with the host's own Python"
    return None


def make_base(path: Path) -> Path:
    """A base directory for the host: empty folders, and the clone linked in under an odd name."""
    for name in ("models/s4s_presets", "custom_nodes", "input", "output", "temp", "user"):
        (path / name).mkdir(parents=True)
    _link(ROOT, path / "custom_nodes" / PACK)
    shutil.copy(HERE / "random_conditioning.py", path / "custom_nodes" / "s4s_test_nodes.py")
    return path


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:                         # Windows without the right to link
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "runs", "tests"))


def start(base: Path) -> None:
    """Import the host with this base directory, and the clone; once a process, before anything else imports comfy."""
    import_host(base)
    load_pack(base)


def import_host(base: Path) -> None:
    """Import the host as its main.py would."""
    sys.path[:] = [str(folder()), *(p for p in sys.path if Path(p or ".").resolve() not in (folder(), ROOT))]
    from comfy.cli_args import args  # argv is parsed only by the host's main.py
    args.cpu, args.base_directory, args.disable_api_nodes = True, str(base), True
    import torch
    torch.set_num_threads(1)
    import utils.extra_config  # noqa: F401   (as main.py does: later the host's comfy/utils.py would hide the package)
    import nodes  # noqa: F401  # isort: skip


def load_pack(base: Path) -> None:
    """Import the clone as the host does at its start."""
    import nodes
    if not asyncio.run(nodes.load_custom_node(str(base / "custom_nodes" / PACK))):
        raise RuntimeError("the host could not import the clone: its log says why")


def pack(name: str):
    """A module of the clone as the host imported it, e.g. pack("s4s_nodes.hosts.comfyui.sampler")."""
    root = next(key for key in sys.modules if key.endswith(PACK.replace(".", "_x_")))
    return sys.modules[f"{root}.{name}"] if name else sys.modules[root]
