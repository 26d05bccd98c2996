"""Layouts: which rows a step has.

Input: a `layout` of the tree, and the roles. Output: a `checked.Layout`. Non-goals: which layouts a text may have (`check.py`).
"""

from __future__ import annotations

from . import checked as c
from . import syntax as t
from .expressions import Expressions

MAX_TOKENS = 2**31 - 1
MAX_ROWS = 100_000  # entries of one step's row list, nested repeats written out


def role_of(names: Expressions, word: t.Word) -> int | None:
    """The number of a role, if the word names one."""
    entry = names.scope.get(word.text)
    return entry.what if entry is not None and isinstance(entry.what, int) else None


def layout_of(names: Expressions, s: t.Layout) -> c.Layout:
    """A layout, its counts made out. What a mistake leaves out of it is reported."""
    before = len(names.mistakes)
    sections = []
    if len(s.items) == 1 and isinstance(s.items[0], t.Given):
        if s.axis is not None:
            names.mistake(
                "two-axes",
                "a given layout serves both axes",
                s.span,
                "one of two here",
                "write `layout given { ... }`, or give inputs per query and per key",
            )
        names.once(s.items[0].roles)
        return c.Layout((), tuple(r for w in s.items[0].roles if (r := role_of(names, w)) is not None))
    for item in s.items:
        match item:
            case t.Repeat(count=count, items=items):
                number = None if count is None else names.structural_int(count, "a repeat")
                sections.append(c.Section(0 if count is not None and number is None else number, _rows(names, items)))
            case t.Given():
                _given_among_others(names, item)
            case t.Rows():
                sections.append(c.Section(1, _rows(names, (item,))))
    layout = c.Layout(tuple(sections))
    if max(layout.fixed, layout.rows_per_step) > MAX_TOKENS:
        names.mistake("layout-too-large", f"a layout has at most {MAX_TOKENS:,} tokens; this one has {max(layout.fixed, layout.rows_per_step):,}", s.span)
    # Rows that a mistake left out are no empty repeat.
    known = all(role_of(names, w) is not None for w in roles_of(s.items))
    if known and len(names.mistakes) == before and any(section.count is None and not section.rows_per_step for section in sections):
        names.mistake("empty-repeat", "a repeat of steps needs a row in each step", s.span, "this repeat is empty")
    return layout


def _given_among_others(names: Expressions, item: t.Given) -> None:
    names.mistake(
        "given-alone",
        "`given { ... }` is a whole layout: role, step and slot of every token come with the call",
        item.span,
        "beside other items",
        "list every role in it: `layout given { a, b }`",
    )


def _rows(names: Expressions, items: tuple[t.Item, ...]) -> tuple[tuple[int, int], ...]:
    """The rows of one step, as (role, how many), nested repeats written out."""
    rows: list[tuple[int, int]] = []
    for item in items:
        match item:
            case t.Rows(role=word, count=expr):
                count = 1 if expr is None else names.structural_int(expr, "a count")
                role = role_of(names, word)
                if count and role is not None:
                    rows.append((role, count))
            case t.Repeat(count=None):
                names.mistake(
                    "nested-repeat", "only a repeat at the top takes its number from the tensor", item.span, "give this one a number: `repeat 4 { ... }`"
                )
            case t.Repeat(count=expr, items=inner):
                assert expr is not None
                count = names.structural_int(expr, "a repeat") or 0
                once = _rows(names, inner)
                if count * len(once) > MAX_ROWS:
                    names.mistake("layout-too-large", f"a step written out has at most {MAX_ROWS:,} entries; this has {count * len(once):,}", item.span)
                elif len(once) == 1:
                    rows.append((once[0][0], once[0][1] * count))
                else:
                    rows += once * count
            case t.Given():
                _given_among_others(names, item)
    return tuple((r, n) for r, n in rows if n)


def roles_of(items: tuple[t.Item, ...]) -> list[t.Word]:
    """The roles as written, each as often as it stands."""
    words = []
    for item in items:
        match item:
            case t.Rows(role=role):
                words.append(role)
            case t.Repeat(items=inner):
                words += roles_of(inner)
            case t.Given(roles=roles):
                words += roles
    return words
