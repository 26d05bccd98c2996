"""`Numbers`: a task of numbers, made as they are needed. For questions that a text could only blur: what is to be known, and when, is known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diagnostics import InputError
from .task import Measure, Places

Make = Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Numbers:
    """`make(count, words, generator)` gives the numbers (count, words, inputs) that data tokens hold, and those that each stands for as a target
    (count, words, outputs); both floating. The loss is the squared error, or Huber's with that delta. Results are the mean squared error over the
    variance of the targets: 1 is to know nothing. They are those of the last row that predicts each data token, or of the rows of one `part`, on
    `examples` sequences made from `seed`, from which none is trained on.

    Where runs are started in processes of their own, `make` is a function of a module, not a lambda. Raises InputError for what `make` gives that is not
    so."""

    name: str
    make: Make
    inputs: int
    outputs: int = 1
    huber: float | None = None
    part: str | None = None
    examples: int = 2048
    seed: int = 7

    @property
    def places(self) -> Places:
        return Places()

    @property
    def sizes(self) -> Mapping[str, Any]:
        return {"numbers": self.inputs, "regression": self.outputs}

    def fingerprint(self, words: int) -> str:
        """Of what is made: some sequences, how errors are counted, and all sizes."""
        numbers, targets = self._made(4, words, torch.Generator().manual_seed(self.seed))
        about = repr((self.inputs, self.outputs, self.huber, self.part, self.examples, self.seed)).encode()
        return hashlib.sha256(about + numbers.double().numpy().tobytes() + targets.double().numpy().tobytes()).hexdigest()

    def measure(self, words: int) -> Measure:
        variance = float(self.unseen(words)["targets"].double().var(correction=0))
        if not variance > 0:
            raise InputError(f"{self.name}: all targets are alike ({words} data tokens a sequence), so there is nothing to learn")
        return Measure("error over variance", "error/variance", "error_over_variance", 1 / variance, self.part)

    def check(self) -> None:
        pass

    def draw(self, count: int, words: int, generator: torch.Generator) -> dict[str, Any]:
        numbers, targets = self._made(count, words, generator)
        return {"numbers": numbers, "targets": targets, **({} if self.huber is None else {"huber": self.huber})}

    def unseen(self, words: int) -> dict[str, Any]:
        # The seeds of runs are 0 or more: none of them makes these.
        return self.draw(self.examples, words, torch.Generator().manual_seed(-1 - self.seed))

    def _made(self, count: int, words: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        made = self.make(count, words, generator)
        wanted = {"numbers": (count, words, self.inputs), "targets": (count, words, self.outputs)}
        if not isinstance(made, tuple) or len(made) != 2:
            raise InputError(f"{self.name}: make gives two tensors, numbers and targets; got {type(made).__name__}")
        for (what, shape), tensor in zip(wanted.items(), made, strict=True):
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tuple(tensor.shape) != shape or not bool(tensor.isfinite().all()):
                came = f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
                raise InputError(f"{self.name}: make gives {what} {shape}, floating and finite; got {came}")
        return made
