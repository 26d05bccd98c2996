"""Masks that come from elsewhere, each as rows of truth values that can be asked for a few at a time.

Input: a Flex `mask_mod`, a dense mask, a `BlockMask`. Output: an `Other`. Non-goals: judging them (`comparing.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ..diagnostics import InputError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

CONVENTION = (
    "True means attend here, as in scaled_dot_product_attention; MultiheadAttention's attn_mask and key_padding_mask say True = ignore: give ~mask for those"
)


class Other(Protocol):
    """A mask of `batch` rows and `heads` heads (1: the same for all) over `sizes` (queries, keys; None: any)."""

    @property
    def words(self) -> str: ...
    @property
    def batch(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def sizes(self) -> tuple[int, int] | None: ...
    def rows(self, batch: int, heads: int, begin: int, end: int, keys: int) -> Tensor:
        """Queries begin .. end of a row of the batch, bool (heads, end - begin, keys)."""
        ...


@dataclass(frozen=True, slots=True)
class Function:
    """A Flex `mask_mod`: (batch, head, query, key) -> whether the pair is attended."""

    mask_mod: Callable[..., Any]
    device: Any = "cpu"
    words: str = "the mask_mod"
    batch: int = 1
    heads: int = 1
    sizes: tuple[int, int] | None = None

    def rows(self, batch: int, heads: int, begin: int, end: int, keys: int) -> Tensor:
        from torch.nn.attention.flex_attention import create_mask  # slow to import

        def shifted(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Any:
            return self.mask_mod(b + batch, h, q + begin, k)

        try:
            found = create_mask(shifted, 1, heads, end - begin, keys, device=self.device)
        except Exception as error:
            raise InputError(
                f"the mask_mod fails when FlexAttention's create_mask calls it: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ) from error
        if found.dtype is not torch.bool:
            raise InputError(f"a mask_mod returns a truth value for a pair; this one gives {str(found.dtype).removeprefix('torch.')}")
        return found[0].cpu()


@dataclass(frozen=True, slots=True)
class Dense:
    """A full tensor, bool (batch or 1, heads or 1, queries, keys)."""

    mask: Tensor
    words: str = "the dense mask"

    @property
    def batch(self) -> int:
        return self.mask.shape[0]

    @property
    def heads(self) -> int:
        return self.mask.shape[1]

    @property
    def sizes(self) -> tuple[int, int]:
        return self.mask.shape[-2], self.mask.shape[-1]

    def rows(self, batch: int, heads: int, begin: int, end: int, keys: int) -> Tensor:
        own = self.mask[batch if self.batch > 1 else 0, :, begin:end]
        return own.cpu().expand(heads, end - begin, keys)


@dataclass(frozen=True, slots=True)
class Blocks:
    """A BlockMask as compiled FlexAttention reads it: FULL tiles whole, PARTIAL tiles by its mask_mod, others not at all."""

    block_mask: BlockMask
    full: Tensor  # bool (batch, heads, rows, cols)
    partial: Tensor
    words: str = "the BlockMask"

    @property
    def batch(self) -> int:
        return self.full.shape[0]

    @property
    def heads(self) -> int:
        return self.full.shape[1]

    @property
    def sizes(self) -> tuple[int, int]:
        queries, keys = self.block_mask.seq_lengths
        return int(queries), int(keys)

    @property
    def predicate(self) -> Function:
        return Function(self.block_mask.mask_mod, self.block_mask.kv_indices.device, "its mask_mod", self.batch, self.heads, self.sizes)

    def rows(self, batch: int, heads: int, begin: int, end: int, keys: int) -> Tensor:
        said = self.predicate.rows(batch, heads, begin, end, keys)
        return self.pairs(self.full, batch, begin, end, keys) | (self.pairs(self.partial, batch, begin, end, keys) & said)

    def pairs(self, tiles: Tensor, batch: int, begin: int, end: int, keys: int) -> Tensor:
        """Tiles as pairs, (heads or 1, end - begin, keys)."""
        height, width = self.block_mask.BLOCK_SIZE
        own = tiles[batch if self.batch > 1 else 0]
        return own[:, torch.arange(begin, end) // height][..., torch.arange(keys) // width]


# ------------------------------------------------------------------------------------------------ from what a caller gives


def function(mask_mod: Callable[..., Any], device: Any) -> Function:
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise InputError(f"device= is where the mask_mod is called, and torch finds no {device!r} here: {str(error).splitlines()[0]}") from None
    try:
        takes = inspect.signature(mask_mod).parameters.values()
    except (TypeError, ValueError):
        return Function(mask_mod, device)
    wanted = [p for p in takes if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(wanted) < 4 and any(p.kind is p.VAR_POSITIONAL for p in takes):
        return Function(mask_mod, device)
    if len(wanted) == 5:
        raise InputError("a function of five is a score_mod, which changes scores; a mask_mod takes (batch, head, query, key)")
    if len(wanted) != 4:
        raise InputError(f"a mask_mod takes (batch, head, query, key); this one takes {len(wanted)}: {', '.join(p.name for p in wanted) or 'nothing'}")
    return Function(mask_mod, device)


def as_tensor(other: Any) -> str:
    """What makes a tensor of an array or nested lists, as a remedy."""
    if type(other).__module__.partition(".")[0] == "numpy":
        return ": give torch.from_numpy(mask)"
    return ": give torch.tensor(mask)" if isinstance(other, list) else ""


def dense(mask: Tensor) -> Dense:
    """A dense mask, from bool (True = attend), or from what is added to scores: 0 = attend, -inf or the dtype's lowest = not."""
    if mask.ndim not in (2, 3, 4):
        raise InputError(f"a dense mask is (queries, keys), (heads, queries, keys) or (batch, heads, queries, keys); got shape {tuple(mask.shape)}")
    if mask.layout is not torch.strided or mask.is_meta:
        raise InputError(f"a dense mask is an ordinary tensor with values; got {'a meta tensor' if mask.is_meta else f'layout {mask.layout}'}")
    if mask.is_floating_point():
        never = (mask == float("-inf")) | (mask == torch.finfo(mask.dtype).min)
        odd = ~(never | (mask == 0))
        if bool(odd.any()):
            place = odd.nonzero()[0].tolist()
            raise InputError(
                f"a float mask is what is added to scores: 0 = attend, -inf = not; {mask[tuple(place)].item()!r} at {place} is neither. "
                "A bias of scores is no mask; a mask of ones and zeros is mask.bool()"
            )
        mask = ~never
    elif mask.dtype is not torch.bool:
        raise InputError(f"a dense mask is bool or float; got {str(mask.dtype).removeprefix('torch.')}. If 1 means attend, give mask.bool(). {CONVENTION}")
    return Dense(mask[(None,) * (4 - mask.ndim)])


def blocks(block_mask: BlockMask) -> tuple[Blocks, str]:
    """A BlockMask, and what is wrong with its lists in themselves, whatever the mask: empty if nothing is."""
    b = block_mask
    queries, keys = b.seq_lengths
    rows, cols = -(-queries // b.BLOCK_SIZE[0]), -(-keys // b.BLOCK_SIZE[1])
    faults: list[str] = []

    def read(name: str, counts: Tensor | None, indices: Tensor | None, down: int, across: int) -> Tensor | None:
        if counts is None or indices is None:
            return None
        counts, indices = counts.cpu().long(), indices.cpu().long()
        if counts.shape[-1] != down:
            raise InputError(
                f"{name} of the BlockMask has {counts.shape[-1]} rows of tiles; its lengths {queries} x {keys} and BLOCK_SIZE {b.BLOCK_SIZE} make {down}"
            )
        live = torch.arange(indices.shape[-1]) < counts[..., None]
        if bool((counts > indices.shape[-1]).any()) or bool((live & ((indices < 0) | (indices >= across))).any()):
            faults.append(f"{name} lists tiles that are not there")
        tiles = torch.zeros(*indices.shape[:-1], across, dtype=torch.int64)
        tiles.scatter_add_(-1, torch.where(live, indices, 0).clamp(0, max(0, across - 1)), live.long())
        if bool((tiles > 1).any()):
            faults.append(f"{name} lists a tile twice: its pairs would count twice")
        return tiles > 0

    partial = read("kv_indices", b.kv_num_blocks, b.kv_indices, rows, cols)
    assert partial is not None
    full = read("full_kv_indices", b.full_kv_num_blocks, b.full_kv_indices, rows, cols)
    full = torch.zeros_like(partial) if full is None else full
    if bool((full & partial).any()):
        faults.append("a tile is listed as FULL and as PARTIAL: its pairs would count twice")
    for name, by_key, by_query in (
        ("q_indices", read("q_indices", b.q_num_blocks, b.q_indices, cols, rows), partial),
        ("full_q_indices", read("full_q_indices", b.full_q_num_blocks, b.full_q_indices, cols, rows), full),
    ):
        if by_key is not None and not torch.equal(by_key.mT, by_query):
            faults.append(f"{name}, which the backward follows, is not the transpose of what the forward follows")
    return Blocks(block_mask, full, partial), "; ".join(faults)
