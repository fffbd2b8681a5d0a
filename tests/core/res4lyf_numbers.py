"""Prints what RES4LYF's own coefficients make of the mixture denoiser, and its bong_tangent schedules: the golden
numbers of test_classical_res4lyf.py.

python tests/core/res4lyf_numbers.py RES4LYF_FOLDER, with mpmath and einops installed. Only its
beta/rk_coefficients_beta.py with what that imports and two functions of sigmas.py are loaded; a step is
x + h sum b_i (D_i - x), stages alike, as its exponential methods have it (beta/rk_method_beta.py) without noise.
"""

import ast
import importlib.util
import json
import sys
import tempfile
import types
from pathlib import Path

import torch

from s4s.s4s_nodes.core import mixture

GRIDS = {"sd": (False, [14.6, 8.0, 5.0, 3.0, 1.9, 1.2, 0.75, 0.3, 0.08, 0.02]),
         "flow": (True, [0.98, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.06])}
NAMES = ("res_2s", "res_3s", "res_2m", "res_3m")
START = [[0.7, -1.1], [-0.4, 0.3], [1.6, 0.9]]


def coefficients(folder: Path):
    """get_rk_methods_beta of the checkout; sys.modules holds stand-ins for what it shows and asks its user."""
    package = types.ModuleType("RES4LYF")
    package.__path__ = [str(folder)]
    beta = types.ModuleType("RES4LYF.beta")
    beta.__path__ = [str(folder / "beta")]
    helper, shown = types.ModuleType("RES4LYF.helper"), types.ModuleType("RES4LYF.res4lyf")
    helper.ExtraOptions = lambda *_: lambda name, default=False, **__: default
    helper.get_extra_options_kv = lambda key, default, *_: default
    helper.extra_options_flag = lambda *_: False
    shown.RESplain, shown.get_display_sampler_category = lambda *_, **__: None, lambda: False
    sys.modules.update({module.__name__: module for module in (package, beta, helper, shown)})
    return importlib.import_module("RES4LYF.beta.rk_coefficients_beta").get_rk_methods_beta


def end(methods, name: str, flow: bool, levels: list) -> list:
    sigmas, x = torch.tensor(levels, dtype=torch.float64), torch.tensor(START, dtype=torch.float64) * levels[0]
    past = []
    for step in range(len(levels) - 1):
        sigma, after = sigmas[step], sigmas[step + 1]
        h = -torch.log(after / sigma)
        a, b, _, _, ci, multistep, *_ = methods(name, h, step=step, sigmas=sigmas, sigma=sigma, sigma_next=after,
                                                sigma_down=after)
        ci = ci[:-1]                                    # the last is the end of the step
        if len(ci) == 1:                                # Euler, in sigma
            slope = (x - mixture(x, sigma.expand(len(x)), flow)) / sigma
            past, x = [x - sigma * slope, *past], x + (after - sigma) * slope
            continue
        seen = [mixture(x, sigma.expand(len(x)), flow)]
        if multistep:
            seen += past[:multistep]
        for row in range(1, len(ci) - multistep):
            there = sigma * torch.exp(-h * ci[row])
            state = x + h * sum(weight * (one - x) for weight, one in zip(a[row], seen))
            seen.append(mixture(state, there.expand(len(x)), flow))
        past = [seen[0], *past]
        x = x + h * sum(weight * (one - x) for weight, one in zip(b[0], seen))
    return x.tolist()


def bong_tangent(folder: Path):
    """The checkout's schedule, calls -> levels."""
    tree = ast.parse((folder / "sigmas.py").read_text(encoding="utf-8"))
    names = ("get_bong_tangent_sigmas", "bong_tangent_scheduler")
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "two_of_sigmas.py"
        path.write_text(f"import torch\nfrom math import atan, pi\n{ast.unparse(tree)}\n", encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return lambda calls: module.bong_tangent_scheduler(None, calls).tolist()


if __name__ == "__main__":
    methods = coefficients(Path(sys.argv[1]))
    ends = {f"{name} {grid}": end(methods, name, *GRIDS[grid]) for name in NAMES for grid in GRIDS}
    tangents = {calls: bong_tangent(Path(sys.argv[1]))(calls) for calls in (2, 6, 11)}
    print(json.dumps([ends, tangents], indent=1))
