"""What a patched model is known by: its configuration, not what it counts or keeps while it is asked."""

import functools
import types

import pytest
import torch

from s4s.s4s_nodes.hosts.digest import described, digest


class Counter:
    def __init__(self):
        self.count = 0

    def more(self):
        self.count += 1
        return self.count


class Wrapper:
    """As packs write them: settings beside counters and caches, its own and of what it holds."""

    def __init__(self, scale, block=3):
        self.scale, self._block, self.calls, self.kept = scale, block, 0, {}
        self.helper, self.log, self.options = Counter(), [], {"scale": scale, "seen": 0}

    def __call__(self, apply_model, given):
        self.calls += 1
        self.log.append(given)
        self._keep(given)
        self.options["seen"] += 1
        return self.helper.more()

    def _keep(self, given):
        self.kept[given] = self.last = given

    def patch(self, scale):                         # of a node, whose object lives on from run to run
        self.scale = scale
        return self.hung

    def hung(self, *_):
        self.calls, self.helper.count = self.calls + 1, 5


def closed(scale):
    calls, state, kept, made = 0, {"n": 0, "scale": scale}, [], [0]

    def wrapper(*_):
        nonlocal calls
        calls += 1
        state["n"] += 1
        made[0] += 1
        kept.append(calls)
        return scale, kept
    return wrapper


def held(scale):
    counter, limit = Counter(), torch.tensor(scale)

    @functools.wraps(closed)
    def outer(*_):
        counter.count += 1
        return limit, inner()

    def inner(count=[0]):                                                       # noqa: B006, a way to keep state
        return counter.more(), count
    return outer


def shared(scale):
    """As ComfyUI's own TomePatchModel: one function keeps what the other one takes."""
    kept = None

    def keep(*_):
        nonlocal kept
        kept = scale

    def take(*_):
        nonlocal kept
        return keep(), kept
    return take


def appending(scale):
    kept = []
    return lambda *_: kept.append(scale)


KINDS = {"an object": Wrapper, "a method": lambda scale: Wrapper(scale).patch(scale), "a function": closed,
         "a function that holds others": held, "a lambda": appending, "two functions": shared,
         "a partial": lambda scale: functools.partial(Wrapper(scale), "more")}


def known(patch) -> str:
    return digest(described(patch))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_patch_changes_itself_makes_no_other_model_and_what_it_was_given_does(kind):
    make, arguments = KINDS[kind], ("prediction", "given")
    patch = make(0.5)
    fresh = known(patch)
    for _ in range(3):
        patch(*arguments[:1 if kind == "a partial" else 2])
        assert known(patch) == fresh == known(make(0.5)) != known(make(0.6))


def test_the_settings_of_one_object_that_lives_on_make_another_model():
    """ComfyUI keeps a node's object, which may set itself up anew for every run; private settings count, too."""
    node, found = Wrapper(0.5), []
    for scale in (0.5, 0.6, 0.5):
        found.append(known(node.patch(scale)))
        node.hung()
    assert found[0] == found[2] != found[1]
    assert known(Wrapper(0.5, block=3)) != known(Wrapper(0.5, block=4))


def test_where_no_source_is_everything_counts():
    """So a counter makes another model of it: a fallback in words, never a table for another model."""
    def bare(scale):
        made = closed(scale)
        code = made.__code__.replace(co_filename="gone", co_name="gone")
        return types.FunctionType(code, globals(), closure=made.__closure__)
    patch = bare(0.5)
    before = known(patch)
    patch()
    assert known(patch) != before == known(bare(0.5)) != known(bare(0.6))
