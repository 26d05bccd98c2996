"""From what rows say to a loss: which rows are trained on which data token, and the weighted mean of what each is wrong by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compiler.rows import Rows
from ..diagnostics import InputError


@dataclass(frozen=True, slots=True)
class Loss:
    """In nats (of a regression head: squared errors). `loss` is sum(weight * error) / sum(weight), the error being Huber's where the call gave `huber=`;
    `parts` the plain means by role and slot; `last` the plain mean over the last row that predicts each data token: the figure to compare models by.
    `weight` and `count` are what several losses are joined by: the sum of weights of `loss`, and how many data tokens `last` is the mean of."""

    loss: Tensor
    parts: dict[str, Tensor]
    last: Tensor
    weight: Tensor
    count: int


@dataclass(frozen=True, slots=True)
class Predicted:
    """The rows that are trained on a data token that is there, in the order of the batch; each (n,), on the CPU."""

    batch: Tensor  # the row of the batch
    row: Tensor
    target: Tensor  # the data token, by its index in that row of the batch
    weight: Tensor  # float32: not every device has float64
    kind: Tensor  # what `parts` tells apart
    is_last: Tensor  # whether no later row predicts the same data token

    def picked(self, where: Tensor) -> Predicted:
        """Those of `where`, bool or an index."""
        return Predicted(*(getattr(self, name)[where] for name in self.__dataclass_fields__))

    def at(self, rows: Tensor, tokens: int) -> Predicted:
        """Those that stand at some of the `tokens` rows of the layout, int64, by their places among these."""
        place = torch.full((tokens,), -1, device="cpu")
        place[rows] = torch.arange(len(rows), device="cpu")
        return replace(self, row=place[self.row]).picked(place[self.row] >= 0)

    @property
    def lasts(self) -> Predicted:
        """The last row of each data token, by row of the batch and data token."""
        last = self.picked(self.is_last)
        by_target = last.target.argsort(stable=True)
        return last.picked(by_target[last.batch[by_target].argsort(stable=True)])


def predicted(rows: Rows, kind: Tensor, own: Sequence[int]) -> Predicted:
    """`kind` (batch or 1, rows): the kind of each row; `own`: the data tokens of each row of the batch. What points beyond them is no target."""
    target, weight, kind = (t.expand(len(own), -1) for t in (rows.target, rows.weight, kind))
    known = (target >= 0) & (target < torch.tensor(list(own), dtype=torch.int64, device="cpu")[:, None])
    batch, row = known.nonzero(as_tuple=True)
    found = target[known]
    # The last row of each (row of the batch, data token).
    place = batch * max([1, *own]) + found
    last = torch.full((len(own) * max([1, *own]),), -1, device="cpu").scatter_reduce(0, place, row, "amax")
    return Predicted(batch, row, found, weight[known].float(), kind[known], last[place] == row)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Of each row, in nats, in float32 at least: logits (n, num_tokens), labels (n,)."""
    return F.cross_entropy(logits if logits.dtype is torch.float64 else logits.float(), labels, reduction="none")


def squared_error(values: Tensor, targets: Tensor) -> Tensor:
    """Of each row, the mean over its numbers, in float32 at least: both (n, size)."""
    wide = torch.promote_types(values.dtype, torch.float32)
    return (values.to(wide) - targets.to(wide)).square().mean(-1)


def huber_error(values: Tensor, targets: Tensor, delta: float) -> Tensor:
    """Of each row, the mean over its numbers of error ** 2 / 2 up to an error of `delta` and delta * (error - delta / 2) beyond, in float32 at least: both
    (n, size)."""
    wide = torch.promote_types(values.dtype, torch.float32)
    return F.huber_loss(values.to(wide), targets.to(wide), reduction="none", delta=delta).mean(-1)


def check_huber(huber: Any, targets: Any) -> float:
    """The same, as a float. Raises InputError unless it is a number above 0, beside targets."""
    try:
        delta = math.nan if isinstance(huber, bool | str) else float(huber)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        delta = math.nan
    if not 0 < delta < math.inf:
        raise InputError(f"huber is a number above 0, the error up to which the loss is squared; got {huber!r}")
    if targets is None:
        raise InputError("huber= is of the loss of the regression head: give targets=, or leave it out")
    return delta


@dataclass(frozen=True, slots=True)
class Sums:
    """What losses are means of: over some rows, and added up over all shares of a batch. Both hold first what weighs as the text says, then the last row
    of each data token, then each kind of row: (2 + kinds,)."""

    errors: Tensor
    counts: Tensor  # float64, on the CPU: of weights, of last rows, of rows

    @staticmethod
    def of(error: Tensor, rows: Predicted, kinds: int, trained: Tensor | None = None) -> Sums:
        """The errors (n,) of the rows, of whose kinds there are so many; `trained` are those that what weighs is made of, where they are others."""
        nothing, device = error.new_zeros(()), error.device
        present = set(rows.kind.tolist())
        by_kind = [error[(rows.kind == k).to(device)].sum() if k in present else nothing for k in range(kinds)]
        errors = torch.stack([(rows.weight.to(device) * (error if trained is None else trained)).sum(), error[rows.is_last.to(device)].sum(), *by_kind])
        counts = torch.stack([rows.weight.double().sum(), rows.is_last.sum().double()])
        return Sums(errors, torch.cat([counts, rows.kind.bincount(minlength=kinds).double()]))

    def loss(self, name: Callable[[int], str]) -> Loss:
        """`name` says a kind in words. What is the mean of nothing is 0."""
        counts = self.counts.tolist()
        mean = self.errors / torch.where(self.counts == 0, 1.0, self.counts).to(self.errors.dtype).to(self.errors.device)
        parts = {name(k): mean[2 + k] for k in range(len(counts) - 2) if counts[2 + k]}
        return Loss(mean[0], parts, mean[1], self.errors.new_full((), counts[0]), int(counts[1]))
