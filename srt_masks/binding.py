"""What a caller hands in, made regular before any floor sees it: lengths to steps, inputs cast and given a batch axis.

Every mistake raises InputError naming the argument, what was wanted and what came. Knows the checked tree and torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .diagnostics import InputError, did_you_mean, listing
from .grammar.checked import Checked, Layout, Type
from .grammar.constants import param_value

DTYPES = {Type.BOOL: torch.bool, Type.INT: torch.int64, Type.FLOAT: torch.float64}


@dataclass(frozen=True, slots=True)
class Sizes:
    """The extents of one call."""

    queries: int
    keys: int
    heads: int
    layers: int | None
    batch: int


@dataclass(frozen=True, slots=True)
class Call:
    """A call, checked: `inputs` as (batch or 1, *axes, *sizes); `given` are the caller's own values of them, in the spec's order."""

    sizes: Sizes
    lengths: tuple[int, ...] | None
    inputs: dict[str, Tensor]
    params: dict[str, int | float]
    given: tuple[Any, ...]


def bind_call(
    checked: Checked, sizes: Sizes, lengths: Any, inputs: Mapping[str, Any] | None, named: Mapping[str, Any], device: torch.device | str = "cpu"
) -> Call:
    """Everything a caller gives beside q, k and v, checked against the spec and the sizes. Raises InputError."""
    steps_of(checked.queries, sizes.queries, checked.roles)
    given, params = split_arguments(checked, inputs, named)
    rows = bind_lengths(checked, lengths, sizes)
    return Call(sizes, rows, bind_inputs(checked, given, sizes, device), bind_params(checked, params), tuple(given[i.name] for i in checked.inputs))


def batch_of(checked: Checked, lengths: Any, inputs: Mapping[str, Any] | None, named: Mapping[str, Any]) -> int:
    """The batch that `lengths`, or an input with a batch axis, speaks of; 1 if nothing does."""
    if isinstance(lengths, Sequence) or (isinstance(lengths, Tensor) and lengths.ndim == 1):
        return len(lengths)
    given = {**(inputs if isinstance(inputs, Mapping) else {}), **named}
    sizes = [1]
    for declared in checked.inputs:
        value = given.get(declared.name)
        if isinstance(value, Tensor) and value.ndim == len(declared.axes) + len(declared.sizes) + 1:
            sizes.append(value.shape[0])
    return max(sizes)


def steps_of(layout: Layout, tokens: int, roles: tuple[str, ...], what: str = "rows") -> int:
    """Time steps of so many tokens. Raises InputError where the layout cannot have that many."""
    text = layout.describe(roles)
    rows = layout.rows_per_step
    if not rows:
        if tokens != layout.fixed:
            groups = layout.fixed and tokens % layout.fixed == 0 and all(s.count == 1 for s in layout.sections)
            hint = f"; for {tokens // layout.fixed} such groups, one a time step, write `layout repeat {{ {text} }}`" if groups else ""
            raise InputError(f"{tokens} {what} given; the layout `{text}` has {layout.fixed}, always{hint}")
        return layout.longest(0)
    steps, rest = divmod(tokens - layout.fixed, rows)
    if tokens < layout.fixed:
        raise InputError(f"{tokens} {what} given; the layout `{text}` begins with {layout.fixed} that are always there")
    if rest:
        fixed = f" after {layout.fixed} that are always there" if layout.fixed else ""
        raise InputError(f"{tokens} {what} is {steps} steps and {rest} tokens{fixed}; this layout has {rows} a step ({text})")
    return steps


def resolve_tokens(checked: Checked, layout: Layout, steps: int | None) -> int:
    """Tokens of an axis for `steps=`. Raises InputError where it is needed and missing, or given and not wanted."""
    if layout.rows_per_step == 0:
        if steps is not None and checked.keys is None:
            raise InputError(f"steps={steps} given; the layout `{layout.describe(checked.roles)}` has one length, {layout.fixed} tokens")
        return layout.fixed
    if steps is None:
        raise InputError(f"how many time steps? The layout `{layout.describe(checked.roles)}` repeats: give steps=")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise InputError(f"steps is a whole number of time steps, 0 or more; got {steps!r}")
    if layout.tokens(steps) >= 2**31:
        raise InputError(f"steps={steps} makes {layout.tokens(steps):,} tokens; at most {2**31 - 1:,}")
    return layout.tokens(steps)


def resolve_heads(checked: Checked, heads: int | None) -> int:
    if heads is None and (checked.mentions("head") or checked.mentions("heads") or any("head" in i.axes for i in checked.inputs)):
        raise InputError("this spec speaks of heads: give heads=")
    if heads is not None and (isinstance(heads, bool) or not isinstance(heads, int) or heads < 1):
        raise InputError(f"heads is a whole number, 1 or more; got {heads!r}")
    return 1 if heads is None else heads


def mentions_layer(checked: Checked) -> bool:
    return checked.mentions("layer") or checked.mentions("layers") or any("layer" in i.axes for i in checked.inputs)


def resolve_layers(checked: Checked, layers: int | None) -> int:
    if layers is None and mentions_layer(checked):
        raise InputError("this spec speaks of layers: give layers=")
    if layers is not None and (isinstance(layers, bool) or not isinstance(layers, int) or layers < 1):
        raise InputError(f"layers is a whole number, 1 or more; got {layers!r}")
    return 1 if layers is None else layers


def bind_lengths(checked: Checked, lengths: Any, sizes: Sizes) -> tuple[int, ...] | None:
    """Tokens of each row of the batch, as numbers. Raises InputError if they do not fit the axis, the batch or the layout."""
    if lengths is None:
        return None
    if checked.keys is not None:
        raise InputError("lengths= counts the tokens of one layout; this spec has two: give an input per query or per key")
    if isinstance(lengths, Tensor) and lengths.ndim == 1 and not lengths.is_floating_point() and lengths.dtype is not torch.bool:
        lengths = lengths.tolist()
    if not isinstance(lengths, Sequence) or isinstance(lengths, str):
        came = _describe(lengths) if isinstance(lengths, Tensor) else repr(lengths)
        raise InputError(f"lengths is a vector of whole numbers, one a row; got {came}")
    for n in lengths:
        if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= sizes.queries:
            raise InputError(f"lengths counts the tokens of each row, from 0 to {sizes.queries}; got {n!r}")
        steps_of(checked.queries, n, checked.roles, "of a row's tokens (lengths)")
    if len(lengths) != sizes.batch:
        raise InputError(f"lengths has one number a row: wanted {sizes.batch}, got {len(lengths)}")
    return tuple(lengths)


def bind_params(checked: Checked, values: Mapping[str, Any]) -> dict[str, int | float]:
    """Values of every param, those given at the call in place of the text's. Structural ones cannot be given here."""
    bound: dict[str, int | float] = {p.name: p.value for p in checked.params}
    for param in checked.params:
        if param.name not in values:
            continue
        number = param_value(param.name, param.type, number_of_scalar(f"param `{param.name}`", values[param.name]))
        if param.structural and number != param.value:
            raise InputError(
                f"param `{param.name}` sizes the layout, a range or a table: set it with spec.with_params({param.name}={number!r}), not at the call"
            )
        bound[param.name] = number
    return bound


def number_of_scalar(what: str, value: Any) -> Any:
    """A number given as a tensor without axes, as a Python number. Raises InputError if it has axes, or asks for a gradient."""
    if not isinstance(value, Tensor):
        return value
    if value.ndim != 0:
        raise InputError(f"{what} is one number; got {_describe(value)}")
    if value.requires_grad:
        raise InputError(f"{what} requires grad, and no gradient flows to it: give its .detach()")
    return value.item()


def layer_number(checked: Checked, layer: Any, layers: int | None) -> int:
    """The layer of a call. Raises InputError where the spec speaks of layers and it is missing, or where it is out of range."""
    if mentions_layer(checked):
        if layers is None:
            raise InputError("this spec speaks of layers: srt_masks.compile(spec, layers=...) says how many there are")
        if layer is None:
            raise InputError(f"this spec speaks of layers: give layer=, from 0 to {layers - 1}")
    if layer is None:
        return 0
    if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0 or (layers is not None and layer >= layers):
        raise InputError(f"layer is a whole number from 0{'' if layers is None else f' to {layers - 1}'}; got {layer!r}")
    return layer if layers is not None else 0


def split_arguments(checked: Checked, inputs: Mapping[str, Any] | None, named: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and params of a call, told apart by the text. Raises InputError for a name the text does not have."""
    if inputs is not None and not isinstance(inputs, Mapping):
        raise InputError(f"inputs maps names to tensors; got {type(inputs).__name__}")
    given = dict(inputs or {})
    params: dict[str, Any] = {}
    known_inputs = {i.name for i in checked.inputs}
    known_params = {p.name for p in checked.params}
    for name, value in named.items():
        if name in given:
            raise InputError(f"`{name}` is given twice: by name and in inputs=")
        given[name] = value
    for name in list(given):
        if name in known_params:
            params[name] = given.pop(name)
        elif name not in known_inputs:
            raise InputError(_unknown_argument(name, known_inputs | known_params))
    return given, params


def _unknown_argument(name: str, known: set[str]) -> str:
    reason = {
        "dropout": "dropout on attention weights is not part of the language",
        "dropout_p": "dropout on attention weights is not part of the language",
        "is_causal": "write `attend causal` in the text",
        "attn_mask": "declare it in the text: `input mask: bool per query, key` and `attend mask`",
        "softcap": "score changes are not part of the language",
    }.get(name)
    hint = did_you_mean(name, known)
    return f"unknown argument `{name}`: {reason or hint or 'this spec has ' + (listing(sorted(known)) or 'no inputs and no params')}"


def bind_inputs(checked: Checked, given: Mapping[str, Any], sizes: Sizes, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Every input as (batch or 1, *axes, *sizes), cast to bool, int64 or float64.

    Raises InputError for an input that is missing, or of the wrong type, shape, batch or device.
    """
    missing = [i for i in checked.inputs if i.name not in given]
    if missing:
        raise InputError(f"missing input `{missing[0].name}`: give {missing[0].name}=, {missing[0]}")
    named: dict[str, tuple[int, str]] = {}
    bound: dict[str, Tensor] = {}
    for declared in checked.inputs:
        name, value = declared.name, given[declared.name]
        if not isinstance(value, Tensor):
            try:
                # Python's floats have 64 bits, and keep them.
                wide = declared.type is Type.FLOAT and isinstance(value, int | float | list | tuple)
                value = torch.as_tensor(value, dtype=torch.float64 if wide else None)
            except (TypeError, ValueError, RuntimeError):
                raise InputError(f"input `{name}` is a tensor; got {type(value).__name__}") from None
        elif value.device.type != "cpu" and value.device != torch.device(device):
            raise InputError(f"input `{name}` lies on {value.device}; q, k and v lie on {device}")
        wrong = {
            Type.BOOL: value.dtype is not torch.bool,
            Type.INT: value.is_floating_point() or value.is_complex() or value.dtype is torch.bool,
            Type.FLOAT: not value.is_floating_point(),
        }[declared.type]
        if wrong:
            hint = {Type.BOOL: f" ({name} != 0 makes one)", Type.INT: "", Type.FLOAT: f" ({name}.float() makes one)"}[declared.type]
            raise InputError(f"input `{name}` is declared {declared.type.value}; got {_describe(value)}{hint}")
        if value.layout is not torch.strided:
            raise InputError(f"input `{name}` is an ordinary dense tensor; got layout {str(value.layout).removeprefix('torch.')}")
        if value.requires_grad:
            raise InputError(f"input `{name}` requires grad; masks and gates are constants of the backward: give {name}.detach()")
        wanted: list[int | str] = [_extent(checked, axis, sizes) for axis in declared.axes]
        wanted += declared.sizes
        batched = value.ndim == len(wanted) + 1
        if not batched and value.ndim != len(wanted):
            raise InputError(f"input `{name}` has the axes {_axes(declared.axes, wanted)}, and may have a batch axis before them; got {_describe(value)}")
        if batched and value.shape[0] not in (1, sizes.batch):
            raise InputError(f"input `{name}`: the batch axis is 1 or {sizes.batch}; got {_describe(value)}")
        for extent, found in zip(wanted, value.shape[int(batched) :], strict=True):
            if isinstance(extent, str):
                before = named.setdefault(extent, (found, name))
                if before[0] != found:
                    raise InputError(f"size `{extent}` is {before[0]} in input `{before[1]}` and {found} in `{name}`")
            elif extent != found:
                raise InputError(f"input `{name}` has the axes {_axes(declared.axes, wanted)}; got {_describe(value)}")
        value = value.to(device=device, dtype=DTYPES[declared.type])
        bound[name] = value if batched else value.unsqueeze(0)
    return bound


def _extent(checked: Checked, axis: str, sizes: Sizes) -> int:
    match axis:
        case "token" | "query":
            return sizes.queries
        case "key":
            return sizes.keys
        case "step":
            return checked.queries.longest(checked.queries.steps(sizes.queries))
        case "head":
            return sizes.heads
        case _:
            return sizes.layers or 1


def _axes(axes: tuple[str, ...], wanted: list[int | str]) -> str:
    return "(" + ", ".join(f"{a} {n}" for a, n in zip([*axes, *["size"] * len(wanted)], wanted, strict=False)) + ")"


def _describe(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
