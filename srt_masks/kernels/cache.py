"""Plans, kept while the tensors they were made from live unchanged.

A tensor is known again by itself (weakly) and its version, which every in-place change raises; never by an id. A tensor whose
memory somebody else owns (NumPy, say) can change unnoticed, so nothing made from one is kept.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

from torch import Tensor

from ..compiler.plan import Plan

PLANS_KEPT = 16


class PlanCache:
    """At most PLANS_KEPT plans, the longest unused forgotten first; shared between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._plans: OrderedDict[Hashable, tuple[tuple[Any, ...], Plan]] = OrderedDict()

    def find(self, key: Hashable, given: tuple[Any, ...], make: Callable[[], Plan]) -> Plan:
        """The plan under `key` if it was made from these very values; else a new one."""
        marks = tuple(_mark(x) for x in given)
        if None in marks:
            return make()
        with self._lock:
            for stale in [k for k, (old, _) in self._plans.items() if any(_is_dead(m) for m in old)]:
                del self._plans[stale]
            found = self._plans.get(key)
            if found is not None and all(_is_same(a, b) for a, b in zip(found[0], marks, strict=True)):
                self._plans.move_to_end(key)
                return found[1]
        plan = make()
        with self._lock:
            self._plans[key] = (marks, plan)
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        return plan


def _mark(value: Any) -> Any:
    """What to know a value by; None: not at all."""
    if isinstance(value, Tensor):
        if value.is_inference() or (value.device.type == "cpu" and not value.untyped_storage().resizable()):
            return None
        return weakref.ref(value), value._version
    return (type(value).__name__, value) if isinstance(value, bool | int | float) else None


def _is_dead(mark: Any) -> bool:
    return isinstance(mark[0], weakref.ref) and mark[0]() is None


def _is_same(old: Any, new: Any) -> bool:
    if isinstance(old[0], weakref.ref) and isinstance(new[0], weakref.ref):
        return old[0]() is not None and old[0]() is new[0]() and old[1] == new[1]
    return old == new
