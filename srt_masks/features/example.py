"""A feature as one small call: what a backend is asked about, and what a test runs on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

BACKENDS = ("reference", "tiled", "triton")


class Memory(Enum):
    """How q, k and v lie in memory, or what they hold where nobody looks."""

    PLAIN = "plain"
    TURNED = "turned"  # (batch, tokens, heads, head_dim), as a projection leaves it
    SLICED = "sliced"  # a part of a longer tensor, every second number of a row
    EXPANDED = "expanded"  # one row, seen at every token: stride 0
    POISONED = "poisoned"  # NaN in every key that no query attends


class Use(Enum):
    """What is done with the call."""

    BACKWARD = "out, and the gradients of a function of it"
    LSE = "lse, and the gradients of a function of it"
    K_ALONE = "only k requires grad"
    AUTOCAST = "float32 tensors under autocast to bfloat16"
    COPIED = "a deep copy of what was pickled"
    CHECKPOINT = "recomputed in the backward"
    CHECKPOINT_REENTRANT = "recomputed in the backward, by the reentrant checkpoint"
    COMPILE = "inside torch.compile, with eager graphs"
    FUNC_GRAD = "torch.func.grad"
    FUNC_VMAP = "torch.func.vmap"
    FUNC_JVP = "torch.func.jvp"
    DOUBLE_BACKWARD = "the gradient of a gradient"


class Effect(Enum):
    """How the results compare with those of the call without the feature."""

    CHANGES = "some of them are others"
    SAME = "they are the same"


@dataclass(frozen=True, slots=True)
class Example:
    """One call. Of what is None the table is asked about the caller's own, and a test takes what is quick."""

    text: str = "attend causal"
    options: Mapping[str, Any] = field(default_factory=dict)  # of compile
    call: Mapping[str, Any] = field(default_factory=dict)  # arguments beside q, k and v; tensors as lists
    queries: int = 20
    keys: int = 20
    batch: int = 2
    heads: int = 2
    key_heads: int = 2
    head_dim: int | None = None
    value_dim: int | None = None  # None: head_dim
    dtype: str | None = None
    memory: Memory = Memory.PLAIN
    use: Use = Use.BACKWARD


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error instead of a result: its type, and its message or how that begins."""

    error: str
    reason: str


@dataclass(frozen=True, slots=True)
class Feature:
    """A row of the table. `example` has the feature, `without` is the nearest call that has it not."""

    name: str
    words: str
    example: Example
    without: Example
    effect: Effect = Effect.CHANGES
    refused: Mapping[str, Refusal] = field(default_factory=dict)  # by backend: what nothing that can be asked decides


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that stand together."""

    title: str
    features: tuple[Feature, ...]
