"""What a model is called with: data tokens (of a vocabulary, as numbers, or embedded) in rows of one length or of several, padded on the right or on the left.

Inside a model every row of the batch begins at 0 and padding comes last; here is the way there, and back to the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..diagnostics import InputError
from .config import Config

PADDINGS = ("right", "left")


@dataclass(frozen=True, slots=True)
class Words:
    """The data tokens of a call. `x` (batch, count) int64, `embeds` (batch, count, dim) and `numbers` (batch, count, numbers), one of them or more;
    padding comes last and is 0."""

    x: Tensor | None
    embeds: Tensor | None = None
    numbers: Tensor | None = None
    lengths: tuple[int, ...] | None = None  # data tokens of each row; None: all have `count`
    left: bool = False  # whether the caller's padding stands in front

    @property
    def any(self) -> Tensor:
        """One of them."""
        return next(t for t in (self.x, self.embeds, self.numbers) if t is not None)

    @property
    def batch(self) -> int:
        return self.any.shape[0]

    @property
    def count(self) -> int:
        return self.any.shape[1]

    @property
    def own(self) -> tuple[int, ...]:
        """Data tokens of each row."""
        return (self.count,) * self.batch if self.lengths is None else self.lengths

    def to_front(self, x: Tensor, own: Sequence[int], axis: int = 1) -> Tensor:
        """As the caller has it -> rows that begin at 0. x (batch, ...) holds `own` entries of each row along `axis`."""
        return x if self.lengths is None else _moved(x, own, axis, [x.shape[axis] - n if self.left else 0 for n in own])

    def to_caller(self, x: Tensor, own: Sequence[int]) -> Tensor:
        """The way back, along axis 1; what is padding comes out as exactly 0."""
        return x if self.lengths is None else _moved(x, own, 1, [n - x.shape[1] if self.left else 0 for n in own])


def _moved(x: Tensor, own: Sequence[int], axis: int, shifts: Sequence[int]) -> Tensor:
    """Entry i of a row is entry i + shift of it before, and 0 where that is none of its own: those are 0 .. own, moved by what shifts them."""
    total = x.shape[axis]
    if not total:
        return x
    by = torch.tensor(shifts, device="cpu")[:, None]
    source = torch.arange(total, device="cpu") + by
    first = by.clamp(min=0)
    live = (source >= first) & (source < first + torch.tensor(list(own), device="cpu")[:, None])
    rows = torch.arange(len(shifts), device=x.device)[:, None]
    moved = x.movedim(axis, 1)[rows, source.clamp(0, total - 1).to(x.device)]
    live = live.to(x.device).reshape(*live.shape, *[1] * (moved.ndim - 2))
    return torch.where(live, moved, torch.zeros((), dtype=moved.dtype, device=moved.device)).movedim(1, axis)


def read_words(x: Any, embeds: Any, numbers: Any, lengths: Any, padding: Any, config: Config) -> Words:
    """What a caller gives, checked. Raises InputError naming the argument that is wrong."""
    _check_given(x, embeds, numbers, config)
    if padding not in PADDINGS:
        raise InputError(f'padding is "right" or "left": where the padding of short rows stands; got {padding!r}')
    words = Words(x, embeds, numbers, left=padding == "left")
    if lengths is not None:
        words = replace(words, lengths=_read_lengths(lengths, words.batch, words.count))
        # Padding may hold anything, also numbers that no vocabulary has.
        x, embeds, numbers = (None if t is None else words.to_front(t, words.own) for t in (x, embeds, numbers))
    if x is not None and config.num_tokens is not None:
        x = check_tokens(x, config.num_tokens)
    return replace(words, x=x, embeds=embeds, numbers=numbers)


def _check_given(x: Any, embeds: Any, numbers: Any, config: Config) -> None:
    """Everything that this model embeds has come, or what stands in its place; all of it speaks of the same data tokens."""
    embedded = f"embeds=, (batch, data tokens, {config.dim})"
    read = [] if config.num_tokens is None else [(x, "x, (batch, data tokens) whole numbers")]
    read += [] if config.numbers is None else [(numbers, f"numbers=, (batch, data tokens, {config.numbers}) floating")]
    wanted = f"{' and '.join(form for _, form in read)}, or {embedded} in their place" if read else embedded
    if x is not None and config.num_tokens is None:
        raise InputError(f"this model knows no tokens (num_tokens is None), and x came: give {wanted}")
    if numbers is not None and config.numbers is None:
        raise InputError("this model embeds no numbers: build it with numbers=, how many each data token has, or leave numbers= out of the call")
    if embeds is None and (not read or any(given is None for given, _ in read)):
        raise InputError(f"give {wanted}")
    if x is not None and config.num_tokens is not None:
        _check_form(x, config.num_tokens)
    for name, given, size in (("embeds", embeds, config.dim), ("numbers", numbers, config.numbers)):
        if given is not None and (not isinstance(given, Tensor) or given.ndim != 3 or not given.is_floating_point() or given.shape[-1] != size):
            raise InputError(f"{name} is (batch, data tokens, {size}), floating; got {describe(given)}")
    (first, one), *others = ((name, t) for name, t in (("x", x), ("embeds", embeds), ("numbers", numbers)) if t is not None)
    for name, t in others:
        if t.shape[:2] != one.shape[:2]:
            raise InputError(f"{first} and {name} speak of the same data tokens; {first} is {tuple(one.shape)}, {name} {tuple(t.shape)}")


def _read_lengths(lengths: Any, batch: int, count: int) -> tuple[int, ...]:
    if isinstance(lengths, Tensor) and lengths.ndim == 1 and not lengths.is_floating_point() and lengths.dtype is not torch.bool:
        lengths = lengths.tolist()
    if not isinstance(lengths, list | tuple) or not all(isinstance(n, int) and not isinstance(n, bool) for n in lengths):
        raise InputError(f"lengths is a vector of whole numbers, the data tokens of each row of x; got {describe(lengths)}")
    if len(lengths) != batch:
        raise InputError(f"lengths has one number a row: wanted {batch}, got {len(lengths)}")
    for n in lengths:
        if not 0 <= n <= count:
            raise InputError(f"lengths counts the data tokens of each row of x, from 0 to {count}; got {n}")
    return tuple(lengths)


def check_tokens(x: Any, num_tokens: int) -> Tensor:
    """x as int64. Raises InputError unless it is (batch, tokens) of whole numbers that the vocabulary has."""
    _check_form(x, num_tokens)
    if x.numel() and (int(x.min()) < 0 or int(x.max()) >= num_tokens):
        raise InputError(f"x holds tokens from {int(x.min())} to {int(x.max())}; this model knows 0 to {num_tokens - 1}")
    return x.long()


def _check_form(x: Any, num_tokens: int) -> None:
    if not isinstance(x, Tensor) or x.ndim != 2 or x.is_floating_point() or x.is_complex() or x.dtype is torch.bool:
        raise InputError(f"x is (batch, tokens), whole numbers from 0 to {num_tokens - 1}; got {describe(x)}")


def describe(x: Any) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
