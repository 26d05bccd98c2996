"""Proofs that were found, by the content of what was proved: in memory, and from run to run in the user's folder.

Only proofs are kept on disk: a refutation is found again in less time than it takes to trust one that was read. The name is a hash of the claim,
the program, the facts, and of the code that proves, so that a proof by other rules is none.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

import z3

from ..compiler import ir
from ..compiler.ir import Expr, Program
from ..diagnostics import BackendError
from ..kept import keep, kept
from .claims import Obligation

MOST_KNOWN = 512
RULES = ("*.py", "../compiler/ir.py", "../compiler/lower.py", "../compiler/simplify.py", "../reference/masks.py")
_MEMORY: OrderedDict[str, str] = OrderedDict()


def name_of(program: Program, facts: tuple[Expr, ...], claim: Obligation, has_layers: bool) -> str:
    """What a proof is known by. `has_layers`: whether the text speaks of layers, and so takes each once in order, though its masks may not."""
    roots = [*program.pair_roots, program.gate_hidden.open, program.gate_hidden.weight, program.asks, claim.where, *facts]
    shape = (claim.kind, program.roles, program.data, program.queries, program.keys, program.inputs, program.params, has_layers)
    return sha256("\n".join([_rules(), repr(shape), ir.digest(*roots)]).encode()).hexdigest()[:40]


@cache
def _rules() -> str:
    here = Path(__file__).parent
    parts = [p.read_bytes() for pattern in RULES for p in sorted(here.glob(pattern) if "*" in pattern else [here / pattern])]
    return sha256(z3.get_version_string().encode() + b"\0".join(parts)).hexdigest()


def recall(name: str) -> str | None:
    """Why a claim holds, if that was found before."""
    if name in _MEMORY:
        _MEMORY.move_to_end(name)
        return _MEMORY[name]
    try:
        found = json.loads(kept(f"proof_{name}.json") or "null")
    except (ValueError, BackendError):
        return None
    return found["reason"] if isinstance(found, dict) and found.get("name") == name and isinstance(found.get("reason"), str) else None


def remember(name: str, reason: str) -> None:
    _MEMORY[name] = reason
    while len(_MEMORY) > MOST_KNOWN:
        _MEMORY.popitem(last=False)
    with suppress(BackendError):  # without a folder of its own, a process proves for itself
        keep(f"proof_{name}.json", json.dumps({"name": name, "reason": reason}))


def forget() -> None:
    """What this process remembers. The files stay."""
    _MEMORY.clear()
