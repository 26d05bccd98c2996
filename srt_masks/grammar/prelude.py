"""The names every spec starts with, from `prelude.mask`.

Input: nothing. Output: its text, its tree, and what its names stand for. Non-goals: the names of a text (`check.py`).
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from ..diagnostics import Source
from . import syntax as t
from .expressions import Expressions
from .parser import parse
from .scope import Entry, Function


@cache
def prelude_text() -> str:
    return resources.files("srt_masks.grammar").joinpath("prelude.mask").read_text(encoding="utf-8")


@cache
def prelude_tree() -> t.Tree:
    tree, mistakes = parse(Source(prelude_text(), "prelude.mask"))
    assert not mistakes
    return tree


@cache
def prelude() -> dict[str, Entry]:
    """The names every spec starts with, from `prelude.mask`."""
    names = Expressions()
    for order, s in enumerate(prelude_tree().statements, 1):
        assert isinstance(s, t.Let)
        if s.parameters is not None:
            names.scope[s.name.text] = Entry(Function(s.parameters, s.body, order, is_prelude=True), order, is_prelude=True)
        else:
            names.scope[s.name.text] = Entry(names.check(s.body), order, is_prelude=True)
    assert not names.mistakes
    return names.scope
