"""A pickle stack machine without hands: it builds plain values and records what was to be called.

A pickle is a program for a small stack machine that may call anything. Here its opcodes are read by `pickletools`
(which executes nothing) and interpreted by this file's own machine, in which a global is only a name, a call is only
recorded (`Stub`), and the few recorded calls that mean "this is a tensor" are turned into tensors by our own code.
"""

from __future__ import annotations

import io
import math
import pickletools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .limits import MAX_BITS, MAX_DIGITS, MAX_NESTED, MAX_NUMBERS, MAX_TEXT, Budget, Paid, Stub, UnreadableFile, shown

_DTYPES = {"FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
           "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
           "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
           "BoolStorage": torch.bool}
_MARK = object()


@dataclass(frozen=True)
class Name:
    """A global the file mentions; never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Machine:
    """Runs one pickle. storage(dtype, key, count) finds a tensor's numbers, nested(bytes) reads a file in the file."""

    def __init__(self, budget: Budget, storage: Callable | None, nested: Callable):
        self.budget, self.storage, self.read_nested = budget, storage, nested
        self.stack: list = []
        self.memo: dict[int, Any] = {}

    def run(self, file: io.BytesIO) -> Any:
        for name, argument in _opcodes(Paid(file, self.budget), self.budget):
            if name == "STOP":
                return self.stack.pop()
            if name in _PUSHES:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            elif name not in _IGNORED:
                raise UnreadableFile(f"uses the pickle opcode {name}, which no table of coefficients needs")
        raise UnreadableFile("ends within a pickle: download it again")

    def since_mark(self) -> list:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1:]
                del self.stack[at:]
                return items
        raise UnreadableFile("is not a whole pickle: a mark is missing")

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise UnreadableFile("is not a whole pickle: its stack runs empty")
        items = tuple(self.stack[-count:])
        self.stack[-count:] = [items]

    def put(self, index: int) -> None:
        if not 0 <= index < 2 ** 32:                             # larger ones could all have the same hash
            raise UnreadableFile("remembers values by numbers that no pickle uses")
        self.memo[index] = self.stack[-1]

    def append(self, items: list) -> None:
        self.target(list).extend(items)

    def set_items(self, items: list) -> None:
        target = self.target(dict)
        for key, value in zip(items[::2], items[1::2]):
            target[_plain_key(key)] = value

    def add_items(self, items: list) -> None:
        self.target(set).update(_plain_key(item) for item in items)

    def target(self, kind: type):
        if type(self.stack[-1]) is not kind:
            raise UnreadableFile(f"fills a {type(self.stack[-1]).__name__} as if it were a {kind.__name__}")
        return self.stack[-1]

    def reduce(self) -> None:
        """A call, or a new object of a class: either is a name and its arguments."""
        args, what = self.stack.pop(), self.stack.pop()
        if not isinstance(what, Name) or not isinstance(args, tuple):
            raise UnreadableFile(f"calls a {type(what).__name__}, which is no name of a class")
        self.stack.append(self.known(str(what), args))

    def known(self, what: str, args: tuple) -> Any:
        """The few calls with a meaning here; every other one is recorded and never made."""
        if what == "collections.OrderedDict" and not args:
            return {}
        if what == "_codecs.encode" and len(args) == 2 and isinstance(args[0], str) and args[1] == "latin1":
            self.budget.spend(bytes=sys.getsizeof(args[0]))
            return args[0].encode("latin1")                      # how protocols 0 to 2 write bytes
        if what == "torch.storage._load_from_bytes":
            return self.nested(args[0])
        if what in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return _tensor(*args[:4], budget=self.budget)
        if what in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
            return args[0]
        return Stub(what, args)

    def nested(self, content: bytes) -> Any:
        self.budget.nested += 1
        if not isinstance(content, bytes) or self.budget.nested > MAX_NESTED:
            raise UnreadableFile("nests files within files")
        self.budget.spend(bytes=len(content), opcodes=_COSTLY)
        value = self.read_nested(content)
        self.budget.nested -= 1
        return value

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is not Stub:
            raise UnreadableFile(f"changes a {type(target).__name__} after it was made")
        target.state = state

    def persistent(self, key) -> None:
        """("storage", kind, key, device, count): the only persistent object torch writes."""
        if self.storage is None or not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage":
            raise UnreadableFile("refers to objects outside the file")
        _, kind, name, _, count = key[:5]
        if not isinstance(kind, Name) or kind.name not in _DTYPES or not kind.module.startswith("torch"):
            raise UnreadableFile(f"holds numbers of an unknown kind {kind if isinstance(kind, Name) else shown(kind)}")
        if not isinstance(name, str) or type(count) is not int or not 0 <= count <= MAX_NUMBERS:
            raise UnreadableFile(f"holds a tensor of {shown(count, 20)} numbers: a table has {MAX_NUMBERS} at most")
        self.budget.spend(opcodes=_COSTLY)
        self.stack.append(self.storage(_DTYPES[kind.name], name, count))

    def pair_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise UnreadableFile("names a global by something that is no text")
        self.stack.append(Name(module[:200], name[:200]))

    def with_keywords(self) -> None:
        if self.stack.pop():
            raise UnreadableFile("makes an object with keywords, which no table of coefficients needs")
        self.reduce()


def _opcodes(file: Paid, budget: Budget):
    """(name, argument) of each opcode, paid for; `pickletools.genops`, which sets arguments no limit."""
    while code := file.read(1):
        budget.spend(opcodes=1)
        opcode = pickletools.code2op.get(code.decode("latin1"))
        if opcode is None:
            raise UnreadableFile(f"is not a pickle: it holds the opcode {code!r}")
        file.longest = MAX_DIGITS if opcode.name in _WRITTEN_NUMBERS else MAX_TEXT
        argument = None if opcode.arg is None else opcode.arg.reader(file)
        if isinstance(argument, int) and argument.bit_length() > MAX_BITS:
            raise UnreadableFile(f"holds an integer of {argument.bit_length()} bits")
        if isinstance(argument, (str, bytes)):
            budget.spend(bytes=sys.getsizeof(argument))          # text of one wide letter takes four bytes a letter
        yield opcode.name, argument


def _plain_key(key):
    """Only text and plain numbers may be keys.

    Hashing a deep tuple would overflow the interpreter's stack, and integers beyond 61 bits can all share one hash.
    """
    if type(key) not in (str, int, float, bool, type(None)):
        raise UnreadableFile(f"uses a {type(key).__name__} as a key")
    if type(key) is int and key.bit_length() > 60:
        raise UnreadableFile(f"uses an integer of {key.bit_length()} bits as a key")
    return key


def _tensor(storage, offset, size, stride, *, budget: Budget) -> Tensor:
    """The tensor of a storage's numbers; torch refuses one that reaches beyond them."""
    if not isinstance(storage, Tensor) or len(size) > 8 or not all(type(n) is int for n in (offset, *size, *stride)):
        raise UnreadableFile("holds a tensor that is described wrongly")
    if (count := math.prod(size)) > MAX_NUMBERS:
        raise UnreadableFile(f"holds a tensor of more than {MAX_NUMBERS} numbers")
    budget.spend(numbers=count, opcodes=_COSTLY)
    return torch.as_strided(storage, size, stride, offset)


_COSTLY = 20                    # opcodes' worth of time in a tensor, a storage or a nested file
_WRITTEN_NUMBERS = {"INT", "LONG", "FLOAT", "GET", "PUT"}
_IGNORED = {"PROTO", "FRAME"}
_CONSTANTS = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_DICT": dict,
              "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set, "MARK": lambda: _MARK}
_PUSHES = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
           "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES",
           "SHORT_BINBYTES", "BINBYTES8"}
_ACTIONS = {
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, index: m.put(index)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, index: m.stack.append(m.memo[index])),
    "POP": lambda m, _: m.stack.pop(), "POP_MARK": lambda m, _: m.since_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1), "TUPLE2": lambda m, _: m.tuple_of(2), "TUPLE3": lambda m, _: m.tuple_of(3),
    "LIST": lambda m, _: m.stack.append(m.since_mark()),
    "DICT": lambda m, _: (items := m.since_mark(), m.stack.append({}), m.set_items(items)),
    "APPEND": lambda m, _: m.append([m.stack.pop()]), "APPENDS": lambda m, _: m.append(m.since_mark()),
    "SETITEM": lambda m, _: (value := m.stack.pop(), key := m.stack.pop(), m.set_items([key, value])),
    "SETITEMS": lambda m, _: m.set_items(m.since_mark()), "ADDITEMS": lambda m, _: m.add_items(m.since_mark()),
    "GLOBAL": lambda m, both: m.stack.append(Name(*(part[:200] for part in both.split(" ", 1)))),
    "STACK_GLOBAL": lambda m, _: m.pair_name(),
    "REDUCE": lambda m, _: m.reduce(), "BUILD": lambda m, _: m.build(), "NEWOBJ": lambda m, _: m.reduce(),
    "NEWOBJ_EX": lambda m, _: m.with_keywords(), "BINPERSID": lambda m, _: m.persistent(m.stack.pop()),
}
