"""A model on several machines: data parallel, fully sharded, and sequences shared by their rows."""

from .parallel import Parallel, data_parallel, fully_sharded
from .ranks import Ranks, start

__all__ = ["Parallel", "Ranks", "data_parallel", "fully_sharded", "start"]
