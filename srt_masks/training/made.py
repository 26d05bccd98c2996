"""`Numbers`: a task of numbers, made as they are needed. For questions that a text could only blur: what is to be known, and when, is known."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diagnostics import InputError
from ..models.words import describe
from .recipe import MOST_SEED
from .task import Measure, Places

Make = Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Numbers:
    """`make(count, words, generator)` gives the numbers (count, words, inputs) that data tokens hold, and those that each stands for as a target
    (count, words, outputs); both floating. The loss is the squared error, or Huber's with that delta. Results are the mean squared error over the
    variance of all targets, or over `variance`: 1 is to know nothing, where what is counted has that variance. They are those of the last row that predicts
    each data token, or of the rows of one `part`, on `examples` sequences made from `seed`, of which none is trained on.

    `make` draws from the generator that it is given, and from nothing else. Where runs are started in processes of their own, it is a function of a module,
    not a lambda. Raises InputError for what is not so."""

    name: str
    make: Make
    inputs: int
    outputs: int = 1
    huber: float | None = None
    part: str | None = None
    examples: int = 2048
    seed: int = 7
    variance: float | None = None

    def __post_init__(self) -> None:
        for what, value, least, most in (
            ("inputs", self.inputs, 1, math.inf), ("outputs", self.outputs, 1, math.inf), ("examples", self.examples, 1, math.inf), ("seed", self.seed, 0, MOST_SEED),
        ):  # fmt: skip
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                upper = f" to {most}" if most < math.inf else " or more"
                raise InputError(f"{self.name}: {what} is a whole number, {least}{upper}; got {value!r}")
        for what, value in (("huber", self.huber), ("variance", self.variance)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf):
                raise InputError(f"{self.name}: {what} is a number above 0; got {value!r}")
        if not callable(self.make):
            raise InputError(f"{self.name}: make is a function of (count, words, generator); got {type(self.make).__name__}")

    @property
    def places(self) -> Places:
        return Places()

    @property
    def sizes(self) -> Mapping[str, Any]:
        return {"numbers": self.inputs, "regression": self.outputs}

    def fingerprint(self, words: int) -> str:
        """Of what is made: some sequences, how errors are counted, and all sizes."""
        numbers, targets = self._made(4, words, torch.Generator().manual_seed(self.seed))
        about = repr((self.inputs, self.outputs, self.huber, self.part, self.examples, self.seed, *([] if self.variance is None else [self.variance]))).encode()
        return hashlib.sha256(about + numbers.double().numpy().tobytes() + targets.double().numpy().tobytes()).hexdigest()

    def measure(self, words: int) -> Measure:
        one, other = (self._made(2, words, torch.Generator().manual_seed(self.seed)) for _ in range(2))
        if not all(map(torch.equal, one, other)):
            raise InputError(
                f"{self.name}: make gives other numbers from the same generator: let it draw from the one it is given, `torch.randn(..., generator=generator)`"
            )
        variance = self.variance or float(self.unseen(words)["targets"].double().var(correction=0))
        if not variance > 0:
            raise InputError(f"{self.name}: all targets are alike ({words} data tokens a sequence), so there is nothing to learn")
        return Measure("error over variance", "error/variance", "error_over_variance", 1 / variance, self.part)

    def check(self) -> None:
        pass

    def draw(self, count: int, words: int, generator: torch.Generator) -> dict[str, Any]:
        numbers, targets = self._made(count, words, generator)
        return {"numbers": numbers, "targets": targets, **({} if self.huber is None else {"huber": self.huber})}

    def unseen(self, words: int) -> dict[str, Any]:
        # Of a seed torch takes the last 32 bits. Those of runs have 31 at most: none of them makes these.
        return self.draw(self.examples, words, torch.Generator().manual_seed(2**32 - 1 - self.seed))

    def _made(self, count: int, words: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        made = self.make(count, words, generator)
        wanted = {"numbers": (count, words, self.inputs), "targets": (count, words, self.outputs)}
        if not isinstance(made, tuple) or len(made) != 2:
            raise InputError(f"{self.name}: make gives two tensors, numbers and targets; got {type(made).__name__}")
        for (what, shape), tensor in zip(wanted.items(), made, strict=True):
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tuple(tensor.shape) != shape:
                raise InputError(f"{self.name}: make gives {what} {shape}, floating; got {describe(tensor)}")
            if not bool(tensor.isfinite().all()):
                raise InputError(f"{self.name}: make gives {what} of which some are NaN or infinite")
        numbers, targets = (tensor.detach().cpu() for tensor in made)
        return numbers, targets
