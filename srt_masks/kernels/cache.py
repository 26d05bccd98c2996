"""Plans, kept while what they were made from is the same.

An input on the CPU is known again by its values, which are copied with the plan: writing to a tensor leaves traces that can be evaded (`.data`, DLPack,
NumPy), and reading it costs nothing beside attention. An input on another device would have to be waited for: it is known by itself (weakly), its
version, which in-place changes raise, and its address. Writing to it through `.data` or DLPack is not seen. A plan dies with the inputs it was made from.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor

PLANS_KEPT = 16
CALLS_NOTED = 4  # they hold copies of their inputs
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Kept:
    marks: tuple[Any, ...]  # what it was made from
    plan: Any
    nbytes: int


class PlanCache:
    """At most PLANS_KEPT plans (or what is made of one) of at most `most_bytes` together (or one alone), the longest unused forgotten first; shared between threads.

    `made` and `found` count the plans that were asked for.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.made = self.found = 0
        self._lock = Lock()
        self._plans: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._met: OrderedDict[Hashable, tuple[Any, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._plans)

    def __repr__(self) -> str:
        return f"<{len(self)} plans kept, about {self.nbytes:,} bytes; {self.made} made, {self.found} found again>"

    def met(self, key: Hashable, given: tuple[Any, ...]) -> bool:
        """Whether this was asked before, with these very values. It is noted."""
        with self._lock:
            marks = self._met.get(key)
        if marks is not None and _are_same(marks, given):
            return True
        noted = tuple(_mark(x) for x in given)
        with self._lock:
            self._met.pop(key, None)
            self._met[key] = noted
            while len(self._met) > CALLS_NOTED:
                self._met.popitem(last=False)
        return False

    @property
    def nbytes(self) -> int:
        with self._lock:
            return sum(kept.nbytes for kept in self._plans.values())

    def find(self, key: Hashable, given: tuple[Any, ...], make: Callable[[], tuple[T, int]]) -> T:
        """The plan under `key` if it was made from these very values; else a new one, with the bytes it takes, about. `given` are the caller's
        own: tensors, numbers, lists."""
        with self._lock:
            for stale in [k for k, kept in self._plans.items() if any(_is_dead(m) for m in kept.marks)]:
                del self._plans[stale]
            kept = self._plans.get(key)
        if kept is not None and _are_same(kept.marks, given):
            with self._lock:
                self.found += 1
                try:  # rather than to ask first: a key is long to hash and to compare
                    self._plans.move_to_end(key)
                except KeyError:
                    return kept.plan  # another thread has dropped it meanwhile
            return kept.plan
        marks = tuple(_mark(x) for x in given)
        plan, nbytes = make()
        with self._lock:
            self.made += 1
            self._plans.pop(key, None)
            self._plans[key] = _Kept(marks, plan, nbytes)
            while len(self._plans) > PLANS_KEPT or (len(self._plans) > 1 and sum(x.nbytes for x in self._plans.values()) > self.most_bytes):
                self._plans.popitem(last=False)
        return plan


def _mark(value: Any) -> Any:
    """What to know a value by: (weak reference, copy), or (weak reference, version, address); None for what has neither."""
    if isinstance(value, Tensor):
        if value.device.type == "cpu":
            return weakref.ref(value), value.detach().clone()
        return None if value.is_inference() else (weakref.ref(value), value._version, value.data_ptr())
    return _frozen(value)


def _frozen(value: Any) -> tuple[Any, ...] | None:
    """A number, a word, or lists of them, by type and value; None for anything else."""
    if isinstance(value, bool | int | float | str):
        return type(value), value
    if not isinstance(value, list | tuple):
        return None
    items = tuple(_frozen(x) for x in value)
    return None if None in items else (type(value), items)


def _is_dead(mark: Any) -> bool:
    return isinstance(mark, tuple) and isinstance(mark[0], weakref.ref) and mark[0]() is None


def _are_same(marks: tuple[Any, ...], given: tuple[Any, ...]) -> bool:
    return all(_is_same(mark, value) for mark, value in zip(marks, given, strict=True))


def _is_same(mark: Any, value: Any) -> bool:
    match mark:
        case (weakref.ref(), Tensor() as copy):
            return isinstance(value, Tensor) and value.device.type == "cpu" and value.dtype == copy.dtype and torch.equal(value, copy)
        case (weakref.ref() as seen, version, address):
            return isinstance(value, Tensor) and seen() is value and value._version == version and value.data_ptr() == address
        case (_, _):
            return _frozen(value) == mark
        case _:
            return False
