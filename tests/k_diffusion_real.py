"""The real k-diffusion, without its package's __init__, which imports a dozen libraries nobody here needs."""

import importlib
import importlib.util
import sys
import types

import torch


class NotHere(ImportError):
    """k-diffusion cannot be imported; the message says what is missing."""


def load(name: str = "sampling") -> types.ModuleType:
    """The module k_diffusion.<name> as published; sys.modules is left as it was. Raises NotHere."""
    spec = importlib.util.find_spec("k_diffusion")            # finds, does not import
    if spec is None:
        raise NotHere("k-diffusion is not installed")
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    before = _take_out("k_diffusion")
    sys.modules["k_diffusion"] = package
    try:
        import_torchvision()
        return importlib.import_module(f"k_diffusion.{name}")
    except (ImportError, RuntimeError) as error:            # RuntimeError: a torchvision for another torch
        raise NotHere(f"k-diffusion is installed, but {error}") from error
    finally:
        _take_out("k_diffusion")
        sys.modules.update(before)


def import_torchvision() -> None:
    """Import torchvision; a CUDA build beside a CPU torch lacks no more than the schemas of two operators."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        _take_out("torchvision")
        for operator in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, operator):
                torch.library.define(f"torchvision::{operator}",
                                     "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")


def _take_out(package: str) -> dict:
    """Remove a package and its submodules from sys.modules and return them."""
    names = [name for name in sys.modules if name == package or name.startswith(package + ".")]
    return {name: sys.modules.pop(name) for name in names}
