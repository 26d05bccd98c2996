"""What has to hold of the models, whatever came out: a rule changes no forward pass, and gradients are those of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

import srt_masks as srt
from srt_masks.models.transformer import SpecTransformer

from ..pages import write_runs
from .data import make
from .page import CONTROLS

COUNT, WORDS = 8, 24  # sequences that are looked at


def values_of(model: SpecTransformer) -> torch.Tensor:
    """What a model says of some fresh sequences, (COUNT, WORDS, 1)."""
    numbers, _ = make(COUNT, WORDS, torch.Generator().manual_seed(11))
    with torch.no_grad():
        return model(numbers=numbers.to(model.norm.weight.dtype), return_values=True)


def untrained(spec: srt.Spec, seed: int = 3, **sizes: int) -> SpecTransformer:
    """A model of a text before its first step; of one seed all texts have the same weights."""
    torch.manual_seed(seed)
    return srt.build_model(spec, **{"dim": 64, "depth": 2, "heads": 2, "numbers": 2, "regression": 1, "max_positions": WORDS, **sizes})


def gradients(model: SpecTransformer) -> dict[str, torch.Tensor]:
    """Of Huber's loss on some fresh sequences, by parameter, in the type of the weights."""
    numbers, targets = (t.to(model.norm.weight.dtype) for t in make(COUNT, WORDS, torch.Generator().manual_seed(11)))
    model.zero_grad()
    model(numbers=numbers, targets=targets, huber=1.0).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def difference(path: Path) -> tuple[float, float]:
    """The largest difference of any parameter's gradient between the reference and `tiled`, in float64, at the weights that are kept in `path`; and the
    largest gradient."""
    reference, tiled = (gradients(srt.load_model(path, backend=backend).double()) for backend in ("reference", "tiled"))
    if reference.keys() != tiled.keys():
        raise AssertionError(f"{path}: gradients of other parameters: {reference.keys() ^ tiled.keys()}")
    return max(float((reference[n] - tiled[n]).abs().max()) for n in tiled), max(float(g.abs().max()) for g in tiled.values())


def publish_controls(models: Mapping[str, Path]) -> None:
    """A line for each trained model, by the name of its text; the first is what the forward passes of the others are compared with."""
    lines, plain = [], None
    for name, path in models.items():
        said = values_of(untrained(srt.load_model(path).spec))
        plain = said if plain is None else plain
        apart, largest = difference(path)
        lines.append({"name": name, "forward_equal": torch.equal(said, plain), "difference": apart, "largest": largest, "dtype": "float64", "sequences": COUNT})
    write_runs(CONTROLS, lines)
