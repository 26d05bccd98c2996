"""Property tests for specs: compare a backend with the dense reference, and strategies for hypothesis."""

from .compare import Comparison, check, compare

__all__ = ["Comparison", "check", "compare"]
