"""The path of a request in the docs names functions that are where it says."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"`([\w.]+)` in `(\w+/[\w/]+\.py)`")


def functions_of(path: Path) -> set[str]:
    """The classes and functions of a file, methods with their class."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            names |= {node.name, *(f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef))}
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
    return names


def test_every_step_of_the_walk_is_a_function_where_it_says():
    steps = ROW.findall((ROOT / "docs" / "explanation" / "walk.md").read_text(encoding="utf-8"))
    assert len(steps) > 16
    assert [step for step in steps if step[0] not in functions_of(ROOT / step[1])] == []
