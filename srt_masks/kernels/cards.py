"""Which cards the Triton kernels have rows of configs for, and which of them stands in for a card that is not among them.

A card is its compute capability: 90 is sm_90; 0 is Triton's interpreter.
"""

from __future__ import annotations

# Bytes of shared memory that one block of threads may have (CUDA C programming guide, table of compute capabilities).
SHARED_BYTES = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024, 120: 99 * 1024}
CARDS = tuple(SHARED_BYTES)
INTERPRETER = 0


def stand_in(capability: int) -> int | None:
    """The card whose configs serve a capability: itself, or the nearest older one of its generation (a 103 is served as a 100): it has the same matrix
    instructions, and no more shared memory. None: a generation that was never compiled for, or one older than all."""
    if capability == INTERPRETER:
        return INTERPRETER
    return max((c for c in CARDS if c // 10 == capability // 10 and c <= capability), default=None)
