"""`Config`: the sizes and choices of a model. With the spec, all that is needed to build it again."""

from __future__ import annotations

from dataclasses import dataclass

FEED_FORWARDS = ("gelu", "gated")
POSITIONS = ("learned", "rotary")


@dataclass(frozen=True, slots=True)
class Config:
    """What has a default came later: files that were saved before it have none of it."""

    dim: int
    depth: int
    heads: int
    num_tokens: int | None  # None: no token embedding and no token head, what comes in is `numbers=` or `embeds=`
    dim_head: int
    max_positions: int
    key_heads: int | None = None  # heads of keys and values, each shared by heads / key_heads query heads; None: `heads`
    feed_forward: str = "gelu"
    positions: str = "learned"
    tied: bool = False  # the token head is the token embedding
    own_weights: tuple[str, ...] = ()  # roles with weights of their own, in the order of the spec's
    regression: int | None = None  # numbers that the regression head predicts
    max_slots: int = 16  # slots of each role that a `layout given` may have
    numbers: int | None = None  # numbers of each data token, embedded by a linear layer
