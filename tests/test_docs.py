"""The docs: code that a page has its reader write runs, and figures that several pages show are the presets' own."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest

from s4s import load

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PRESETS = {name: load(ROOT / "solver_presets" / f"{name}-cfg3.safetensors") for name in ("digits-eps", "digits-flow")}


@pytest.fixture
def copy(tmp_path) -> Path:
    """A clone of the product's code, to be edited."""
    for folder in ("s4s_nodes", "training"):
        shutil.copytree(ROOT / folder, tmp_path / "s4s" / folder, ignore=shutil.ignore_patterns("__pycache__", "hosts"))
    shutil.copy(ROOT / "__init__.py", tmp_path / "s4s")
    return tmp_path


def code_of(page: str) -> list[str]:
    """The Python blocks of a page."""
    text = (DOCS / "how-to" / page).read_text(encoding="utf-8")
    return [dedent(code) for code in re.findall(r"^ *```python\n(.*?)^ *```$", text, re.M | re.S)]


def run(code: str, copy: Path) -> str:
    done = subprocess.run([sys.executable, "-c", dedent(code)], cwd=copy, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_solver_added_by_the_page_is_a_baseline_and_a_teacher(copy):
    step, entry, _ = code_of("add-a-solver.md")
    folder = copy / "s4s" / "s4s_nodes" / "core" / "classical"
    imports, step = step.split("\n\n\n")
    slope = (folder / "slope.py").read_text(encoding="utf-8")
    assert set(imports.removeprefix("from .lowering import ").split(", ")) <= set(re.findall(r"\w+", slope))
    (folder / "slope.py").write_text(f"{slope}\n\n{step}", encoding="utf-8")
    with open(folder / "__init__.py", "a", encoding="utf-8") as file:
        file.write(entry)
    assert run("""
        from s4s import bundled
        from s4s.s4s_nodes.core.classical import SOLVERS
        from s4s.training.baselines.measure import baselines
        from s4s.training.checks import check
        from s4s.training.config import Config
        source = bundled("digits-eps", cfg=3.0)
        check(Config.of(teacher="midpoint"), source)
        print([(entry.name, entry.table.calls) for entry in baselines(source, 6, {("midpoint", "karras")})])
        """, copy) == "[('midpoint, karras', 6)]\n"


def test_a_schedule_added_by_the_page_is_raced_and_starts_a_training(copy):
    formula, entry = code_of("add-a-schedule.md")
    with open(copy / "s4s" / "s4s_nodes" / "core" / "schedules.py", "a", encoding="utf-8") as file:
        file.write(f"\n\n{formula}")
    path = copy / "s4s" / "training" / "baselines" / "schedules.py"
    before, rest = path.read_text(encoding="utf-8").split("    return {name: levels_for")
    path.write_text(f"{before}    {entry}    return {{name: levels_for{rest}", encoding="utf-8")
    assert run("""
        from s4s import bundled
        from s4s.training.baselines.schedules import schedules_for
        from s4s.training.checks import check
        from s4s.training.config import Config
        source = bundled("digits-eps", cfg=3.0)
        check(Config.of(schedule="cauchy"), source)
        levels = schedules_for(source)["cauchy"](4)
        assert levels[-1] == 0 and (levels[1:] < levels[:-1]).all()
        print([round(float(level), 3) for level in levels])
        """, copy) == "[14.615, 1.335, 0.749, 0.029, 0.0]\n"


def test_pages_outside_docs_that_the_site_shows_link_by_address():
    """Their relative links would point elsewhere on the site, and `mkdocs build --strict` would fail."""
    included = {match for page in DOCS.rglob("*.md")
                for match in re.findall(r'^--8<-- "([^":]+\.md)"$', page.read_text(encoding="utf-8"), re.M)}
    assert {"CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "solver_presets/README.md"} < included
    relative = re.compile(r"\]\((?!https:|#)[^)]+\)")
    links = {path: relative.findall((ROOT / path).read_text(encoding="utf-8")) for path in included}
    assert {path: found for path, found in links.items() if found} == {}


def documented():
    """(name, object) of everything on the page of the Python API with three arguments or more, but for schedules."""
    for name in re.findall(r"^::: s4s\.(\S+)$", (DOCS / "reference" / "api.md").read_text(encoding="utf-8"), re.M):
        module, _, last = name.rpartition(".")
        if name != "s4s_nodes.core.schedules":
            found = getattr(import_module(f"s4s.{module}"), last)
            if len(inspect.signature(found).parameters) > 2:
                yield pytest.param(found, id=last)


@pytest.mark.parametrize("documented", [one for one in documented() if one.id not in ("S4SScheduler", "TensorTable")])
def test_each_argument_of_the_documented_api_has_a_line(documented):
    """In the docstring, its own or a base class's, or as the comment on a field."""
    classes = inspect.getmro(documented)[:-1] if inspect.isclass(documented) else [documented]
    lines = [line for each in classes for line in (inspect.getdoc(each) or "").partition("Args:\n")[2].splitlines()]
    lines += [line for each in classes for line in inspect.getsource(each).splitlines() if "  # " in line]
    for name in inspect.signature(documented).parameters:
        assert any(re.match(rf"    {name}( \(.*\))?: \S", line) for line in lines), name


def test_a_table_of_readme_and_the_page_on_choosing_have_the_scores_of_the_presets():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| (digits-\w+), (\d+) calls \| ([\d.]+) \| .*?: ([\d.]+) \| \*\*([\d.]+)\*\* .*?\| "
                      r"([\d.]+) \| .*?: ([\d.]+) \| \*\*([\d.]+)\*\* .*? \| (\d+) \|", readme)
    assert len(rows) == sum(len(made.tables) for made in PRESETS.values())
    for model, calls, *shown in rows:
        score = PRESETS[model].score(f"calls{calls}")
        keys = ("rmse", "best_rmse", "ratio", "median", "best_median", "ratio_median", "classical_calls_to_match")
        for key, text in zip(keys, shown):
            assert abs(float(text) - score[key]) <= 0.501 * 10.0 ** -len(text.partition(".")[2]), (model, calls, key)
    of_readme = {(model, calls): (rmse, best, ratio) for model, calls, rmse, best, ratio, *_ in rows}
    page = re.findall(r"^\| (\d+) \| ([\d.]+), ([\d.]+) \| ([\d.]+) times \| ([\d.]+), ([\d.]+) \| ([\d.]+) times \|$",
                      (DOCS / "choosing.md").read_text(encoding="utf-8"), re.M)
    assert of_readme == {(model, row[0]): row[at:at + 3] for row in page
                         for model, at in (("digits-eps", 1), ("digits-flow", 4))}
