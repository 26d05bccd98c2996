"""The table of what backends serve: printed, asked by name, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap

from ..diagnostics import InputError, did_you_mean, listing
from .example import BACKENDS, Refusal

WIDTH = 100


@dataclass(frozen=True, slots=True)
class Cell:
    """One backend on one feature: honoured where `refusal` is None; else that error is raised, and nothing is computed."""

    backend: str
    refusal: Refusal | None = None

    @property
    def served(self) -> bool:
        return self.refusal is None


@dataclass(frozen=True, slots=True)
class Row:
    """One feature. `auto` is the backend that "auto" takes for it, `why` the reason where that is not `triton`."""

    name: str
    group: str
    words: str
    text: str  # a spec that has it
    cells: tuple[Cell, ...]  # by BACKENDS
    auto: str
    why: str = ""

    def __getitem__(self, backend: str) -> Cell:
        """The cell of a backend, "auto" included. Raises InputError for a name that is none."""
        wanted = self.auto if backend == "auto" else backend
        for cell in self.cells:
            if cell.backend == wanted:
                return cell
        raise InputError(f"backend is one of auto, {', '.join(BACKENDS)}; got {backend!r}")


@dataclass(frozen=True)
class Capabilities:
    """What each backend serves for q, k and v on a device; print() shows the table.

    Indexed by the name of a feature it gives a `Row`; iterated, all of them. `device` is its type; `capability` that of a card, else None;
    `dtype` and `head_dim` hold for the rows that do not name one themselves.
    """

    device: str
    capability: tuple[int, int] | None
    dtype: str
    head_dim: int
    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Row:
        """The row of a feature. Raises InputError for a name that is none."""
        for row in self.rows:
            if row.name == name:
                return row
        names = [row.name for row in self.rows]
        raise InputError(f"no feature is called {name!r}: {did_you_mean(name, names) if isinstance(name, str) else ''} {listing(names, 100)}")

    @property
    def where(self) -> str:
        """What the table is about, in words."""
        place = self.device if self.capability is None else f"{self.device} (sm_{self.capability[0]}{self.capability[1]})"
        return f"{place}, {self.dtype}, head_dim {self.head_dim}"

    def to_json(self) -> str:
        """The whole table, for programs."""
        about = {"device": self.device, "capability": self.capability, "dtype": self.dtype, "head_dim": self.head_dim}
        return json.dumps({**about, "features": [_plain(row) for row in self.rows]}, indent=1)

    def __repr__(self) -> str:
        return f"<Capabilities on {self.where}: {len(self)} features; print() shows them>"

    def __str__(self) -> str:
        reasons = Reasons()
        usual = self.rows[0].why if self.rows else ""
        widest = max((len(row.name) for row in self.rows), default=0)
        lines = [f"what each backend serves, and what auto takes, on {self.where}"]
        if usual:
            lines += wrap(f"auto is {self.rows[0].auto} here: {usual}", WIDTH)
        for group, rows in groupby(self.rows, key=lambda row: row.group):
            lines += ["", f"{group:{widest + 2}}" + "".join(f"  {name:9}" for name in (*BACKENDS, "auto")).rstrip()]
            for row in rows:
                words = [reasons.said("yes", "no", cell.refusal) for cell in row.cells]
                words.append(reasons.auto(row, usual))
                lines.append(f"  {row.name:{widest}}" + "".join(f"  {x:9}" for x in words).rstrip())
        for number, reason in reasons.numbered():
            lines += ["", *wrap(f"({number}) {reason}", WIDTH, subsequent_indent=" " * (len(str(number)) + 3))]
        return "\n".join(lines)


class Reasons:
    """Reasons, numbered as they are met."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def said(self, yes: str, no: str, refusal: Refusal | None) -> str:
        return yes if refusal is None else f"{no} ({self.number(f'{refusal.error}: {refusal.reason}')})"

    def auto(self, row: Row, usual: str) -> str:
        """What auto takes; with a number where it has another reason than the usual one, or cannot do it either."""
        refusal = row["auto"].refusal
        if refusal is not None:
            return self.said("", "no", refusal)
        return row.auto if row.why in ("", usual) else f"{row.auto} ({self.number(self.of_triton(row) or row.why)})"

    @staticmethod
    def of_triton(row: Row) -> str:
        """The refusal by triton, where that is why it is not taken."""
        refusal = row["triton"].refusal
        return f"{refusal.error}: {refusal.reason}" if refusal is not None and refusal.reason == row.why else ""

    def number(self, reason: str) -> int:
        return self._known.setdefault(reason, len(self._known) + 1)

    def numbered(self) -> list[tuple[int, str]]:
        return [(number, reason) for reason, number in self._known.items()]


def _plain(row: Row) -> dict[str, object]:
    cells = {
        cell.backend: {"served": True} if cell.refusal is None else {"served": False, "error": cell.refusal.error, "reason": cell.refusal.reason}
        for cell in row.cells
    }
    return {"name": row.name, "group": row.group, "words": row.words, "text": row.text, **cells, "auto": {"backend": row.auto, "reason": row.why}}
