"""What transformers asks of a mask -> sequences and limits, which every layer of that kind is handed in place of a tensor.

The spec says who sees whom, in place of the model's `causal`; padding, packed documents, windows and chunks are kept beside it. A mask function that is none
of these is refused: what it hides would be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from ...default_device import on_the_cpu
from ...diagnostics import BackendError, InputError
from .sequences import Sequences, begin_anew, documents_apart, real_first
from .settings import Limits

HOME = "transformers.masking_utils"


class SpecMask(BlockMask):
    """Handed through a model to its layers as it is. It calls itself a BlockMask of four axes: `generate` makes the mask of a static cache before the model
    runs, and a model hands on what is a tensor or a BlockMask, and would take anything else for padding."""

    ndim = 4

    def __init__(
        self, batch: int, queries: int, keys: int, offset: int, limits: Limits, sequences: Sequences, used: int | None, real: Tensor | None = None,
        documents: bool = False,
    ):  # fmt: skip
        self.sizes = (batch, queries, keys)
        self.offset = offset  # positions in front of the first key, which the cache has let go
        self.limits = limits
        self.sequences = sequences
        self.used = used  # tokens so far, the last query among them: what stands behind them in a static cache is no token; None: masked by `lengths`
        self.real = real  # (batch, queries) which of them are tokens; None: all
        self.documents = documents  # the sequences are documents that transformers found
        self._by_positions: Sequences | None = None

    def sequences_by(self, positions: Tensor | None, rows_per_step: int) -> Sequences:
        """How the rows are read, packed documents apart where positions (batch or 1, queries) begin anew. Beside a cache or an attention_mask transformers
        looks for none, and would mix them. Asked by every layer, and found once. Raises InputError or BackendError where they cannot be kept apart."""
        if positions is None or positions.ndim != 2 or self.documents or torch.compiler.is_compiling():
            return self.sequences
        if self._by_positions is None:
            self._by_positions = self._apart(positions, rows_per_step)
        return self._by_positions

    def _apart(self, positions: Tensor, rows_per_step: int) -> Sequences:
        anew = begin_anew(positions.expand(self.sizes[0], -1), self.real, often=rows_per_step > 1)
        if not bool(anew.any()):
            return self.sequences
        row, token = anew.nonzero()[0].tolist()
        if any(x is not None for x in self.sequences):
            raise InputError(
                f"position_ids begin anew at token {token} of row {row}, so documents are packed there, beside padding or behind what a cache holds: they would "
                "mix. Give documents packed without padding in one pass, or each a row of the batch"
            )
        return packed(anew.cumsum(1), self.limits)

    @property
    def shape(self) -> tuple[int, ...]:
        batch, queries, keys = self.sizes
        return (batch, 1, queries, keys)

    def to(self, *args: Any, **kwargs: Any) -> SpecMask:
        return self

    def __repr__(self) -> str:
        return f"<SpecMask {self.shape}>"

    __str__ = __repr__


@on_the_cpu
def spec_mask(
    batch_size: int, q_length: int, kv_length: int, q_offset: int | Tensor = 0, kv_offset: int = 0, mask_function: Callable[..., Any] | None = None,
    attention_mask: Tensor | None = None, device: Any = None, **rest: Any,
) -> SpecMask:  # fmt: skip
    """The mask function registered with transformers, by its contract. Raises InputError or BackendError for what cannot be kept."""
    told = _told(mask_function)
    if attention_mask is not None and attention_mask.ndim != 2:
        raise InputError(f"attention_mask is (batch, tokens), true where a token is real; got shape {tuple(attention_mask.shape)}")
    if torch.compiler.is_compiling():
        return _traced(batch_size, q_length, kv_length, q_offset, kv_offset, told, attention_mask, device)
    first = int(q_offset)  # read now: a static cache counts on before the layers ask
    used = first + q_length
    sizes = (batch_size, q_length, kv_length, kv_offset, told.limits)
    if told.documents is not None:
        return SpecMask(*sizes, packed(told.documents.expand(batch_size, -1), told.limits), used, documents=True)
    if kv_offset and told.limits == Limits():
        raise BackendError(f"the cache has let go of {kv_offset} tokens, and the model has no window that hides them: use a cache that keeps all")
    starts = first or None
    if attention_mask is None:
        return SpecMask(*sizes, Sequences(starts=starts), used)
    real = attention_mask.to(torch.bool)
    if bool(real[:, used:].any()):
        raise InputError(
            f"attention_mask has {real.shape[1]} columns and tokens behind the {used} that there are: keys put in front of the tokens (prefix tuning) "
            "are not served, give it a column for each token"
        )
    real = torch.nn.functional.pad(real[:, :used], (0, max(0, used - real.shape[1])))
    if bool(real.all()):
        return SpecMask(*sizes, Sequences(starts=starts), used)
    if told.limits != Limits() and _holes(real):
        raise InputError("attention_mask has padding between tokens, and the model a window: its distance counts padding, the spec's does not. Pad at one end")
    ordered = not bool((~real[:, :-1] & real[:, 1:]).any())
    asking = real[:, first:]
    if ordered and starts is None:
        return SpecMask(*sizes, Sequences(lengths=real.sum(1)), used, asking)
    return SpecMask(*sizes, _padded(real, first, q_length, starts is not None), used, asking)


def packed(documents: Tensor, limits: Limits) -> Sequences:
    """Sequences of packed documents, (batch, tokens) numbers that neighbours of one document share."""
    if limits.chunk is not None:
        raise BackendError("chunks of packed documents are not served: give each document a row of the batch, with padding")
    apart, lengths = documents_apart(documents)
    return Sequences(apart, apart, lengths)


def _holes(real: Tensor) -> bool:
    """Whether padding stands between the tokens of a row."""
    begins = real[:, 1:] & ~real[:, :-1]
    return bool((begins.sum(1) + real[:, 0].long() > 1).any())


def _padded(real: Tensor, first: int | Tensor, queries: int, some: bool) -> Sequences:
    """Sequences of rows whose real tokens (batch, keys) stand anywhere; the queries are the memory from `first` on."""
    keys = real_first(real)
    if not some:
        return Sequences(keys, keys, real.sum(1))
    place = torch.arange(real.shape[1], device=real.device)
    asking = real.index_select(1, torch.arange(queries, device=real.device) + first)
    starts = (real & (place < first)).sum(1)
    return Sequences(keys, real_first(asking), real.sum(1), starts)


def _traced(
    batch: int, queries: int, keys: int, first: int | Tensor, offset: int, told: Told, attention_mask: Tensor | None, device: Any
) -> SpecMask:  # fmt: skip
    """As above, for torch.compile: nothing is asked of a tensor's values, so every row is read as if it were padded."""
    if told.documents is not None or offset:
        raise BackendError("packed documents, and caches that let tokens go, are not served under torch.compile: run this model without it")
    if isinstance(first, Tensor):
        first = first.clone()  # a static cache counts on before the layers ask
    is_all = isinstance(first, int) and first == 0 and queries == keys
    if attention_mask is None and isinstance(first, int):
        return SpecMask(batch, queries, keys, 0, told.limits, Sequences(starts=None if is_all else first), first + queries)
    place = torch.arange(keys, device=device)
    real = (place < first + queries).expand(batch, keys)
    if attention_mask is not None:
        if isinstance(first, int) and attention_mask.shape[1] > first + queries:
            raise InputError(f"attention_mask has {attention_mask.shape[1]} columns, and there are {first + queries} tokens: give it a column for each token")
        if told.limits != Limits():
            raise BackendError("padding beside a window, or chunks, is not served under torch.compile: run this model without it, or without attention_mask")
        mask = attention_mask.to(torch.bool)[:, :keys]
        real = real & torch.nn.functional.pad(mask, (0, keys - mask.shape[1]))
    return SpecMask(batch, queries, keys, 0, told.limits, _padded(real, first, queries, not is_all), None)


# ------------------------------------------------------------------------------------------------ transformers' mask functions


class Told(NamedTuple):
    """What a mask function says beside past and future."""

    limits: Limits = Limits()
    documents: Tensor | None = None  # (batch or 1, tokens)


def _told(function: Callable[..., Any] | None) -> Told:
    from transformers.masking_utils import bidirectional_mask_function, causal_mask_function  # pyright: ignore[reportMissingImports]

    if function is None or function is causal_mask_function or function is bidirectional_mask_function:
        return Told()
    return _read(function)


def _read(function: Callable[..., Any]) -> Told:
    """A mask function of transformers' own, by its name and what it closes over. Raises BackendError for any other."""
    from transformers.masking_utils import bidirectional_mask_function, causal_mask_function  # pyright: ignore[reportMissingImports]

    if function is causal_mask_function or function is bidirectional_mask_function:
        return Told()
    maker = getattr(function, "__qualname__", "").partition(".<locals>")[0] if getattr(function, "__module__", "") == HOME else ""
    held = dict(zip(function.__code__.co_freevars, (c.cell_contents for c in function.__closure__ or ()), strict=True)) if maker else {}
    match maker:
        case "and_masks":
            found = Told()
            for part in held["mask_functions"]:
                found = _both(found, _read(part))
            return found
        case "remap_positions_for_packed_sequence":
            return _read(held["mask_function"])  # distances within a document are the same by its positions and by its rows
        case "packed_sequence_mask_function":
            return Told(documents=held["packed_sequence_mask"])
        case "sliding_window_overlay":
            return Told(Limits(window=held["sliding_window"]))
        case "sliding_window_bidirectional_overlay":
            return Told(Limits(around=held["sliding_window"]))
        case "chunked_overlay":
            return Told(Limits(chunk=held["chunk_size"]))  # of the row's own tokens, as it counts them, too
        case _:
            name = getattr(function, "__qualname__", repr(function))
            raise BackendError(
                f"the model masks by `{name}`, and it is not known here what that hides: say it in the spec (an `input` may hold its tensors), and "
                "have the model mask no more than causal, windows, chunks, padding and packed documents"
            )


def _both(a: Told, b: Told) -> Told:
    def one(x: Any, y: Any) -> Any:
        if x is not None and y is not None:
            raise BackendError("the model masks by two limits of one kind: say the smaller one in the spec")
        return y if x is None else x

    return Told(Limits(*(one(x, y) for x, y in zip(a.limits, b.limits, strict=True))), one(a.documents, b.documents))
