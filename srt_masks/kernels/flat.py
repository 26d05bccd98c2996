"""What a call is given beside q, k and v, flattened to what an operator may take, and put together again as it was.

An operator takes tensors, whole numbers (symbolic ones too) and strings. The `form` says what became of every argument, in words: `name=kind`. Kinds:

    t          the next tensor
    i          the next whole number; `I5;` this one, which has more than 64 bits
    f          the next tensor's number. Python's floats become tensors of 64 bits, which torch.compile passes from call to call without compiling again
    r          a range, of the three that follow
    n y x      None, true, false
    'words'    a string, whose characters other than letters, digits and `_` are written as their numbers
    [..] (..)  a list, a tuple: of kinds, each after how often it comes in a row. `v` are floats in a row: the next tensor's
    {..}       a mapping: kinds of keys and of values, in turn
    !name;     what no operator can take: an error when the call is put together, which is where all that is wrong with one is said

`flatten` is traced by torch.compile: it is written in what that understands (of torch 2.9, not `isinstance(x, A | B)`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ..diagnostics import InputError
from ..values import of_array

OPTIONAL = ("layer", "lengths", "queries", "given", "scale", "visited", "inputs")  # that are None unless a call names them
_FLOATS = (float, torch.SymFloat)


@dataclass(frozen=True, slots=True)
class Number:
    """A float that is not looked at."""

    tensor: Tensor  # (), float64


def flatten(arguments: Mapping[str, Any]) -> tuple[str, list[Tensor], list[int]]:
    """The form of some arguments, their tensors and their numbers. Raises nothing."""
    words: list[str] = []
    tensors: list[Tensor] = []
    whole: list[int] = []
    for name, value in arguments.items():
        if value is not None or name not in OPTIONAL:
            words.append(f"{_written(name)}={_kind(value, tensors, whole)}")
    return " ".join(words), tensors, whole


def _written(text: str) -> str:
    return "".join([c if c.isalnum() or c == "_" else f"%{ord(c)};" for c in text])


def _kind(value: Any, tensors: list[Tensor], whole: list[int]) -> str:
    """The kind of an argument, whose tensors and numbers are noted."""
    if value is None:
        return "n"
    if isinstance(value, bool):
        return "y" if value else "x"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Tensor):
        tensors.append(value)
        return "t"
    if isinstance(value, (int, torch.SymInt)):
        # A symbolic number is asked nothing: that would tie what is compiled to the answer.
        if statically_known_true(value >= 2**63) or statically_known_true(value < -(2**63)):
            return f"I{value:x};"
        whole.append(value)  # type: ignore[arg-type]
        return "i"
    if isinstance(value, _FLOATS):
        # Of products torch.compile knows that a float may be a tensor; of other ways to make one it compiles again.
        tensors.append(torch.ones((), dtype=torch.float64, device="cpu") * value)  # type: ignore[operator]
        return "f"
    if isinstance(value, Number):
        tensors.append(value.tensor)
        return "f"
    if isinstance(value, str):
        return f"'{_written(value)}'"
    if isinstance(value, range):
        return "r" + "".join([_kind(x, tensors, whole) for x in (value.start, value.stop, value.step)])
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(value) if torch.compiler.is_compiling() else of_array(value)
        if isinstance(value, Tensor):
            tensors.append(value)
            return "t"
    if isinstance(value, list):
        return f"[{_items(value, tensors, whole)}]"
    if isinstance(value, tuple):
        return f"({_items(value, tensors, whole)})"
    if isinstance(value, Mapping):
        return "{" + "".join([_kind(key, tensors, whole) + _kind(part, tensors, whole) for key, part in value.items()]) + "}"
    return f"!{_written(type(value).__name__)};"


def _items(items: Sequence[Any], tensors: list[Tensor], whole: list[int]) -> str:
    counts: list[int] = []
    kinds: list[str] = []
    floats: list[float] = []
    for n, item in enumerate(items):
        if isinstance(item, _FLOATS):
            floats.append(item)  # type: ignore[arg-type]
            if n + 1 < len(items) and isinstance(items[n + 1], _FLOATS):
                continue
            # Python's floats have 64 bits, and keep them.
            tensors.append(torch.tensor(floats, dtype=torch.float64, device="cpu"))
            count, kind, floats = len(floats), "v", []
        else:
            count, kind = 1, _kind(item, tensors, whole)
        if kinds and kinds[-1] == kind:
            counts[-1] += count
        else:
            counts.append(count)
            kinds.append(kind)
    return "".join([f"{count}{kind}" for count, kind in zip(counts, kinds)])  # noqa: B905 -- torch 2.9 does not follow `strict=`


# ------------------------------------------------------------------------------------------------ put together again


@dataclass(frozen=True, slots=True)
class Source:
    """Where what a form speaks of is taken from, and what becomes of a tensor that stands for one float, or for several."""

    tensor: Callable[[], Any]
    whole: Callable[[], int]
    float: Callable[[Any], Any]
    floats: Callable[[Any, int], list[Any]]


def unflatten(form: str, tensors: Sequence[Tensor], whole: Sequence[int]) -> dict[str, Any]:
    """The arguments as they were, of real tensors. Raises InputError for one that no operator can take."""
    return _assembled(form, tensors, whole, lambda x: x.item(), lambda x, _: x.tolist())


def unflatten_unread(form: str, tensors: Sequence[Tensor], whole: Sequence[int]) -> dict[str, Any]:
    """The arguments of tensors that may be fake: a float is a `Number`."""
    return _assembled(form, tensors, whole, Number, lambda x, count: [Number(x[n]) for n in range(count)])


def unflatten_beside(form: str, values: Sequence[Any], whole: Sequence[int]) -> dict[str, Any]:
    """The arguments with one of `values` in the place of each tensor."""
    return _assembled(form, values, whole, lambda x: x, lambda x, count: [x] * count)


def _assembled(form: str, tensors: Sequence[Any], whole: Sequence[int], one: Callable[[Any], Any], several: Callable[[Any, int], list[Any]]) -> dict[str, Any]:
    remaining, numbers = iter(tensors), iter(whole)
    source = Source(lambda: next(remaining), lambda: next(numbers), one, several)
    return {name: read(source) for name, read in _read(form)}


Read = Callable[[Source], Any]


@lru_cache(maxsize=256)
def _read(form: str) -> tuple[tuple[str, Read], ...]:
    """For every argument its name, and how to read it off the next tensors and numbers."""
    found = []
    for word in form.split():
        written, _, kind = word.partition("=")
        name = _spoken(written)
        found.append((name, _reader(name, kind, 0)[0]))
    return tuple(found)


def _spoken(written: str) -> str:
    return re.sub(r"%(\d+);", lambda found: chr(int(found[1])), written)


def _reader(name: str, form: str, at: int) -> tuple[Read, int]:
    """How to read the kind that begins at a place of a form, and where the next one begins."""
    match form[at]:
        case "t":
            return lambda source: source.tensor(), at + 1
        case "f":
            return lambda source: source.float(source.tensor()), at + 1
        case "i":
            return lambda source: source.whole(), at + 1
        case "n" | "y" | "x" as kind:
            constant = {"n": None, "y": True, "x": False}[kind]
            return lambda _: constant, at + 1
        case "I":
            end = form.index(";", at)
            number = int(form[at + 1 : end], 16)
            return lambda _: number, end + 1
        case "'":
            end = form.index("'", at + 1)
            words = _spoken(form[at + 1 : end])
            return lambda _: words, end + 1
        case "r":
            ends, at = _several(name, form, at + 1, 3)
            return lambda source: range(*(read(source) for read in ends)), at
        case "[":
            items, at = _items_reader(name, form, at + 1, "]")
            return items, at
        case "(":
            items, at = _items_reader(name, form, at + 1, ")")
            return lambda source: tuple(items(source)), at
        case "{":
            pairs, at = _pairs(name, form, at + 1)
            return lambda source: {key(source): value(source) for key, value in pairs}, at
        case _:
            end = form.index(";", at)
            return _refusal(name, _spoken(form[at + 1 : end])), end + 1


def _several(name: str, form: str, at: int, count: int) -> tuple[list[Read], int]:
    found = []
    for _ in range(count):
        read, at = _reader(name, form, at)
        found.append(read)
    return found, at


def _pairs(name: str, form: str, at: int) -> tuple[list[tuple[Read, Read]], int]:
    found = []
    while form[at] != "}":
        (key, value), at = _several(name, form, at, 2)
        found.append((key, value))
    return found, at + 1


def _items_reader(name: str, form: str, at: int, end: str) -> tuple[Callable[[Source], list[Any]], int]:
    parts: list[Callable[[Source], list[Any]]] = []
    while form[at] != end:
        digits = at
        while form[at].isdecimal():
            at += 1
        count = int(form[digits:at])
        if form[at] == "v":
            parts.append(lambda source, count=count: source.floats(source.tensor(), count))
            at += 1
        else:
            read, at = _reader(name, form, at)
            parts.append(lambda source, count=count, read=read: [read(source) for _ in range(count)])
    return lambda source: [item for part in parts for item in part(source)], at + 1


def _refusal(name: str, type_name: str) -> Read:
    def refuse(_: Source) -> Any:
        raise InputError(
            f"`{name}`, where torch compiles or watches a call, is a tensor, a number, a range, words, or lists and mappings of them; got {type_name}"
        )

    return refuse
