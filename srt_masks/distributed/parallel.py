"""`data_parallel` and `fully_sharded`: a model on several ranks, each with its share of a batch, by torch's own DDP and FSDP2.

A loss is a weighted mean over all that is predicted, and ranks may differ in how much that is: each adds what it has to the sums, and all divide by the
same. So a step is that of one process on the joined batch.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from ..models.losses import Sums
from ..models.transformer import SpecTransformer
from .ranks import Ranks
from .share import Share, joined


class Parallel(nn.Module):
    """A model on several ranks. Every rank calls it at the same time, with its own sequences, or with the same ones where ranks share them."""

    def __init__(self, share: Share, wrapped: nn.Module, ranks: Ranks):
        super().__init__()
        self.share, self.wrapped, self.ranks = share, wrapped, ranks

    @property
    def model(self) -> SpecTransformer:
        return self.share.model

    def forward(
        self, x: Tensor | None = None, *, targets: Tensor | None = None, huber: float | None = None, return_parts: bool = False, return_loss: bool = True,
        **options: Any,
    ) -> Any:  # fmt: skip
        """The loss of all ranks' sequences together, the same on every rank; with `return_parts` a `Loss`. Its gradient is that of one process on the
        joined batch. `options` are those of a call of the model. Raises InputError as that does."""
        errors, counts = self.wrapped(x, targets=targets, huber=huber, **options)
        loss = joined(Sums(errors, counts), self.ranks.add_up, self.ranks.world).loss(self.model.name_of)
        return loss if return_parts else loss.loss


def data_parallel(model: SpecTransformer, ranks: Ranks, *, tile: int | None = None) -> Parallel:
    """Every rank has all weights, and gradients are averaged as they are made (torch's DistributedDataParallel). Ranks begin with the weights of the
    first. `tile`: where ranks share sequences, how many rows are dealt at once; that of the backend unless given."""
    share = Share(model.to(ranks.device), ranks.context, tile)
    # A head for numbers is there beside that for words, and one call is of one of them; embeds= may stand where numbers would be embedded.
    unused = model.config.regression is not None or model.config.numbers is not None
    wrapped = DistributedDataParallel(share, find_unused_parameters=unused)
    return Parallel(share, wrapped, ranks)


def fully_sharded(model: SpecTransformer, ranks: Ranks, *, tile: int | None = None) -> Parallel:
    """Every rank has its part of the weights, gradients and the optimiser's state, and gathers a block's weights when it needs them (torch's FSDP2).
    Ranks must begin with the same weights: build the model after `torch.manual_seed`. Make the optimiser afterwards. `tile` as in `data_parallel`."""
    share, mesh = Share(model.to(ranks.device), ranks.context, tile), ranks.everyone
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(share, mesh=mesh)
    return Parallel(share, share, ranks)
