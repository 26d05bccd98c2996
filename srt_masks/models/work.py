"""How much work a spec asks for: rows, pairs, tiles and multiplications of one sequence, counted before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..compiler.density import attended
from ..compiler.runs import Consumer
from .transformer import SpecTransformer


@dataclass(frozen=True, slots=True)
class Work:
    """Of one sequence, forward: `pairs` attended and `tiles` visited (of `tiles_of`, each `tile` wide) over all heads of all layers, `multiplications` of
    numbers in matrix products. A backward takes about twice as many, whatever the spec, but for what stop rules leave out."""

    rows: int
    pairs: int
    tile: int
    tiles: int
    tiles_of: int
    multiplications: int


def work_of(model: SpecTransformer, words: int) -> Work:
    """With so many data tokens. Raises InputError where the layout has no such sequence."""
    config, rows = model.config, model.rows_for(words)
    plans = [model.attend.plan(rows, heads=config.heads, layer=layer) for layer in range(config.depth)]
    pairs = sum(attended(plan).attended for plan in plans)
    tiles = sum(group.runs(Consumer.FORWARD).tiles * len(group.heads) for plan in plans for group in plan.groups)
    tile = plans[0].geometry.tile
    predicting = int((model.tokens(words).target >= 0).sum())
    linears = sum(m.weight.numel() for block in model.blocks for m in block.modules() if isinstance(m, nn.Linear))
    # With rules of the hidden state, q, k and v are projected once more from the detached one.
    linears += sum(b.attention.to_qkv.weight.numel() for b in model.blocks if b.attention.hidden_rules)  # type: ignore[union-attr]
    ends = config.dim * (predicting * (config.num_tokens or config.regression or 0) + words * (config.numbers or 0))
    return Work(rows, pairs, tile, tiles, (-(-rows // tile)) ** 2 * len(plans) * config.heads, rows * linears + ends + 2 * pairs * config.dim_head)
