"""What a function that is hung into a model changes whenever it is called, as its source says: counters, caches.

A model is known by what it was patched with, not by how often it was asked since. Seen are assignments, and calls that
change a list or a dictionary, of what the function holds by name; not through another name for it.
"""

import ast
import functools
import inspect
import textwrap
import types

SELF = ""                   # the first part of a path from a method's own object
_CHANGING = {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft",
             "remove", "setdefault", "update"}
Paths = frozenset           # paths to a value by names and keys, such as ("counts", 0)


def by_function(function: types.FunctionType) -> tuple[Paths, frozenset]:
    """(paths from the names it holds to what it changes, the names of whatever it may call)."""
    paths, names = _read(function.__code__)
    return frozenset(path for path in paths if path[0] in function.__code__.co_freevars), names


def by_object(held, asked: frozenset) -> tuple[Paths, frozenset]:
    """The same of an object's methods of these names, and of those that they call; the paths from the object."""
    methods = {name: each for kind in reversed(type(held).__mro__) for name, each in vars(kind).items()
               if isinstance(each, types.FunctionType)}
    seen, found = set(), set()
    while new := (asked & set(methods)) - seen:
        seen |= new
        for name in new:
            paths, names = _read(methods[name].__code__)
            found |= {path[1:] for path in paths if path[0] == SELF}
            asked |= names
    return frozenset(found), asked


@functools.lru_cache(maxsize=1000)
def _read(code: types.CodeType) -> tuple[Paths, frozenset]:
    """(paths to what the code changes, the names it mentions); nothing if its source cannot be read."""
    try:
        source = ast.parse(textwrap.dedent(inspect.getsource(code))).body[0]
    except (OSError, SyntaxError, IndexError):
        return frozenset(), frozenset()
    first = code.co_varnames[0] if code.co_argcount else None
    lambdas = [each for each in ast.walk(source) if isinstance(each, ast.Lambda)]
    parts = lambdas if code.co_name == "<lambda>" else [source]       # a lambda's line holds other things, too
    nodes = [each for part in parts for each in ast.walk(part)]
    paths = [path for each in nodes for path in map(_path, _targets(each)) if path]
    paths = [(SELF, *path[1:]) if path[0] == first else path for path in paths]
    return frozenset(paths), frozenset(each.attr for each in nodes if isinstance(each, ast.Attribute)) | {"__call__"}


def _targets(node: ast.AST) -> list:
    """What a statement or a call changes, or says that it may."""
    if isinstance(node, ast.Nonlocal):                              # perhaps changed by another function that shares it
        return [ast.Name(name) for name in node.names]
    if isinstance(node, (ast.Assign, ast.Delete)):
        return [part for target in node.targets for part in getattr(target, "elts", [target])]
    if isinstance(node, (ast.AugAssign, ast.AnnAssign, ast.For)):
        return [node.target]
    changing = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING
    return [node.func.value] if changing else []


def _path(target: ast.AST) -> tuple:
    """("state", "n") of state.n and state["n"], ("state",) of state[i]; () of what hangs on no name."""
    if isinstance(target, ast.Name):
        return (target.id,)
    if isinstance(target, ast.Attribute):
        return (path := _path(target.value)) and (*path, target.attr)
    if isinstance(target, ast.Subscript):
        path, key = _path(target.value), target.slice
        return (*path, key.value) if path and isinstance(key, ast.Constant) else path
    return ()
