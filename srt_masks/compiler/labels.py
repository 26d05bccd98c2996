"""What a box, a tile or a run is called: whether it is FULL, and the state of each gate on its attended pairs, in one byte."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

from numpy.typing import NDArray
from torch import Tensor

Labels = TypeVar("Labels", Tensor, NDArray)


class State(IntEnum):
    """A gate on the attended pairs of a box."""

    NONE = 0  # 0 on all of them: their work is skipped
    MIXED = 1
    ALL = 2  # 1 on all of them


PARTIAL = 1  # bit 0 of a label; FULL is 0
EMPTY = 255  # no label: a tile that turned out to hold no pair
SHIFTS = {"q": 1, "k": 3, "v": 5}  # two bits a gate


def state(label: Labels, gate: str) -> Labels:
    """The State of a gate in every label."""
    return (label >> SHIFTS[gate]) & 3
