"""`capabilities`: every feature is put to every backend, by the code that decides at a call. Nothing is attended to, and no card is needed."""

from __future__ import annotations

from functools import cache

import torch

from ..compiler.compiled import Compiled
from ..default_device import on_the_cpu
from ..diagnostics import BackendError, InputError
from ..kernels.attention import DTYPES, compile_spec
from ..kernels.backend import Operands
from ..kernels.dispatch import pick, refusal, why_tiled
from ..spec import parse
from .calls import ARGUMENTS, OPTIONS, TENSORS, TRANSFORMS
from .example import BACKENDS, Example, Feature, Group, Refusal
from .table import Capabilities, Cell, Row
from .texts import EXPRESSIONS, INPUTS, STATEMENTS

GROUPS: tuple[Group, ...] = (STATEMENTS, EXPRESSIONS, INPUTS, ARGUMENTS, TENSORS, OPTIONS, TRANSFORMS)


@on_the_cpu
def capabilities(
    *, device: torch.device | str | None = None, capability: tuple[int, int] | None = None, dtype: torch.dtype | None = None, head_dim: int = 64
) -> Capabilities:  # fmt: skip
    """What each backend serves and refuses, and what `auto` takes and why, for q, k and v on a device. Prints as a table.

    `device` is a torch.device or its name: the GPU, if there is one, else the CPU. `capability` is that of a CUDA card, (9, 0) for sm_90,
    which need not be here; of "cuda" without it the card at hand is asked. `dtype` is bfloat16 on cards and float32 elsewhere, `head_dim`
    64, where a row does not name its own. Raises InputError for a device, card, dtype or head_dim that is none.
    """
    place = _device(device, capability)
    card = _card(place, capability)
    dtype = dtype or (torch.bfloat16 if place.type == "cuda" else torch.float32)
    if dtype not in DTYPES:
        raise InputError(f"dtype is torch.float16, bfloat16, float32 or float64; got {dtype!r}")
    if isinstance(head_dim, bool) or not isinstance(head_dim, int) or head_dim < 1:
        raise InputError(f"head_dim is a whole number, 1 or more; got {head_dim!r}")
    asked = Operands(dtype, head_dim, head_dim, 1, place, None if card is None else 10 * card[0] + card[1])
    rows = tuple(_row(group.title, feature, asked) for group in GROUPS for feature in group.features)
    return Capabilities(place.type, card, _name(dtype), head_dim, rows)


def _device(device: torch.device | str | None, capability: tuple[int, int] | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if capability is not None or torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(f"device is a torch.device or its name; got {device!r}") from None
    if place.type == "meta":
        raise InputError("tensors on meta hold no numbers to attend to: name the device that they are to lie on")
    if capability is not None and place.type != "cuda":
        raise InputError(f'capability= is that of a CUDA card, and device={device!r} is none: leave one of them out, or give device="cuda"')
    return place


def _card(place: torch.device, capability: tuple[int, int] | None) -> tuple[int, int] | None:
    match capability:
        case None if place.type != "cuda":
            return None
        case None:
            if not torch.cuda.is_available():
                raise InputError("no CUDA card is here to be asked: name one, for sm_90 capability=(9, 0)")
            return torch.cuda.get_device_capability(place)
        case (int() as major, int() as minor) if not any(isinstance(x, bool) for x in (major, minor)) and major >= 1 and 0 <= minor <= 9:
            return major, minor
        case _:
            raise InputError(f"capability is two whole numbers, (9, 0) for sm_90; got {capability!r}")


def _row(group: str, feature: Feature, asked: Operands) -> Row:
    example = feature.example
    predicates, refused = _compiled(feature.name)
    if predicates is None:
        return Row(feature.name, group, feature.words, example.text, tuple(Cell(name, refused) for name in BACKENDS), "tiled")
    operands = _operands(example, asked)
    cells = tuple(Cell(name, _refusal(name, predicates, operands) or feature.refused.get(name)) for name in BACKENDS)
    auto = pick("auto", predicates, operands, tell=False).name
    return Row(feature.name, group, feature.words, example.text, cells, auto, why_tiled(predicates, operands) or "")


@cache
def _compiled(name: str) -> tuple[tuple[Compiled, ...] | None, Refusal | None]:
    """The example of a feature, compiled; or why compile refuses it, whatever the backend."""
    example = next(f for group in GROUPS for f in group.features if f.name == name).example
    try:
        return compile_spec(parse(example.text), **example.options).predicates, None
    except BackendError as error:
        return None, Refusal(type(error).__name__, str(error))


def _operands(example: Example, asked: Operands) -> Operands:
    dtype = asked.dtype if example.dtype is None else getattr(torch, example.dtype)
    head_dim = example.head_dim or asked.head_dim
    return Operands(dtype, head_dim, example.value_dim or head_dim, example.heads // example.key_heads, asked.device, asked.capability)


def _refusal(backend: str, predicates: tuple[Compiled, ...], operands: Operands) -> Refusal | None:
    error = refusal(backend, predicates, operands)
    return None if error is None else Refusal(type(error).__name__, str(error))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
