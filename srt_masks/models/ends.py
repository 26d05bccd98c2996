"""What stands at both ends of the blocks: embeddings of tokens, numbers and positions, the last norm, and the heads."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .config import Config


class Ends(nn.Module):
    """One set of them. A role with weights of its own has its own: a shared head would carry its loss into what other rows say."""

    def __init__(self, config: Config):
        super().__init__()
        self.token_embedding = None if config.num_tokens is None else nn.Embedding(config.num_tokens, config.dim)
        self.number_embedding = None if config.numbers is None else nn.Linear(config.numbers, config.dim)
        self.position_embedding = nn.Embedding(config.max_positions, config.dim) if config.positions == "learned" else None
        self.norm = nn.RMSNorm(config.dim)
        self.to_logits = None if config.tied or config.num_tokens is None else nn.Linear(config.dim, config.num_tokens, bias=False)
        self.to_values = None if config.regression is None else nn.Linear(config.dim, config.regression)

    def logits(self, state: Tensor) -> Tensor:
        """(..., dim) -> (..., num_tokens). The head must be there."""
        if self.to_logits is not None:
            return self.to_logits(state)
        assert self.token_embedding is not None
        return F.linear(state, self.token_embedding.weight)

    def values(self, state: Tensor) -> Tensor:
        """(..., dim) -> (..., regression). The head must be there."""
        assert self.to_values is not None
        return self.to_values(state)
