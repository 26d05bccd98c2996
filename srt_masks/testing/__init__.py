"""Property tests for specs of your own: laws, random cases, the reference as judge.

checking    `check(spec, laws=...)`; `command` is `srt-masks test`, `plugin` the one for pytest
laws        what is held to be true, by name; `calls` those of one attention called again and of poison, `parts` those of packing and trees,
            `claims` the asserts of a text, `opinions` functions in Python
case        a spec at a size, as code to paste
drawing     hypothesis strategies over a spec of yours: sizes, inputs, cases
strategies  random specs: layouts, masks, gates
comparing   a backend against the reference, in the units of the error bound
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .case import Case
    from .checking import check
    from .comparing import Comparison, compare
    from .drawing import cases_of, inputs, sizes
    from .laws import Broken, Law, NotTried
    from .opinions import opinion

    LAWS: dict[str, Law]
    from .parts import packing_by, prefix_tree_by, tree
    from .strategies import cases, gates, layouts, masks, specs, whole

_HOMES = {
    "check": "checking", "Case": "case", "Comparison": "comparing", "compare": "comparing",
    "Law": "laws", "Broken": "laws", "NotTried": "laws", "opinion": "opinions", "packing_by": "parts", "prefix_tree_by": "parts", "tree": "parts",
    "cases_of": "drawing", "inputs": "drawing", "sizes": "drawing",
    "cases": "strategies", "gates": "strategies", "layouts": "strategies", "masks": "strategies", "specs": "strategies", "whole": "strategies",
}  # fmt: skip

__all__ = [
    "LAWS", "Broken", "Case", "Comparison", "Law", "NotTried", "cases", "cases_of", "check", "compare", "gates", "inputs", "layouts", "masks", "opinion",
    "packing_by", "prefix_tree_by", "sizes", "specs", "tree", "whole",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "LAWS":
        return import_module(".laws", __name__).built_in()
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
