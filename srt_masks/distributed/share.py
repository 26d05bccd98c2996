"""`Share`: a model as one rank runs it. Its sequences are its own; where several ranks work on the same ones, it runs its own rows of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from ..default_device import on_the_cpu
from ..diagnostics import InputError
from ..kernels.attention import compile_spec
from ..models.laid_out import LaidOut
from ..models.losses import Sums, check_huber
from ..models.transformer import SpecTransformer
from .attention import Exchange, SharedAttention
from .dealing import Dealer, Dealt


class Share(nn.Module):
    """What is wrapped for data parallel training: its forward gives the sums that this rank adds to a loss."""

    def __init__(self, model: SpecTransformer, context: DeviceMesh | None, tile: int | None):
        super().__init__()
        self.model, self.context = model, context
        self.dealer: Dealer | None = None
        if context is not None:
            o = model.attend.options
            attention = compile_spec(model.spec, heads=o.heads, layers=o.layers, backend=o.backend, tile=o.tile if tile is None else tile, order=o.order)
            self.dealer = Dealer(attention, model.config.depth, context.get_local_rank(), context.size())

    @on_the_cpu
    def forward(self, x: Tensor | None = None, *, targets: Tensor | None = None, huber: float | None = None, **options: Any) -> tuple[Tensor, Tensor]:
        """The errors and the counts of `Sums`, of this rank's part. Raises InputError as the model does."""
        if huber is not None:
            huber = check_huber(huber, targets)
        laid = self.model.lay_out(x, **options)
        rows, attend = self.model.predicted(laid), None
        if self.dealer is not None:
            dealt = self.deal(laid)
            rows = rows.at(dealt.rows, laid.rows.role.shape[1])
            laid, attend = laid.at(dealt.rows), self._attention(dealt)
        sums = self.model.sums(laid, rows, targets, huber, attend)
        return sums.errors, sums.counts

    @on_the_cpu
    def deal(self, laid: LaidOut) -> Dealt:
        """Who does what of a call. Raises InputError where there are fewer tiles than ranks."""
        assert self.dealer is not None
        return self.dealer.deal(*self.model.stand_ins(laid), dict(laid.beside))

    def _attention(self, dealt: Dealt) -> Callable[..., Tensor]:
        assert self.dealer is not None and self.context is not None
        device = self.model.slot_embedding.weight.device
        return SharedAttention(self.dealer.attention, dealt, Exchange(self.context, dealt.width, dealt.sent.to(device)))  # pyright: ignore[reportReturnType]


def joined(sums: Sums, add_up: Callable[[Tensor], Tensor], world: int) -> Sums:
    """The sums of all ranks, from each one's own; with a gradient that, averaged over ranks as data parallel training does, is that of all together.

    Raises InputError, on every rank, where nobody has anything to predict.
    """
    own = sums.errors
    both = add_up(torch.cat([own.detach().double(), sums.counts.to(own.device)]))
    errors, counts = both.tensor_split(2)
    if not bool((counts > 0).any()):
        raise InputError("nothing to predict, on any rank: no data token of the batch is a target; give longer rows")
    flowing = own * world
    return Sums(flowing + (errors.to(own.dtype) - flowing).detach(), counts.cpu())
