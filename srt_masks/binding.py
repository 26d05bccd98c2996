"""What a caller hands in, made regular before any floor sees it: lengths to steps, inputs cast and given a batch axis.

Every mistake raises InputError naming the argument, what was wanted and what came. Knows the checked tree and torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from .diagnostics import InputError, did_you_mean, listing
from .grammar.checked import Checked, Layout, Type
from .grammar.constants import param_value
from .grammar.facts import Broken, holds
from .values import WHOLE, asks_for_gradient, came, check_constant, counted, dense_tensor, describe, of_array, shape_of, vector, whole_number

DTYPES = {Type.BOOL: torch.bool, Type.INT: torch.int64, Type.FLOAT: torch.float64}
NO_FLOAT64 = {"mps"}  # types of devices

GIVEN = ("role", "step", "slot")
MOST_GIVEN = 2**31 - 2  # steps and slots are counted in 32 bits, as tokens are; what is proved is proved of these


@dataclass(frozen=True, slots=True)
class Sizes:
    """The extents of one call. `tokens` are those of the layout that queries stand in; where only some ask, q holds fewer rows."""

    tokens: int
    keys: int
    heads: int
    layers: int | None
    batch: int


@dataclass(frozen=True, slots=True)
class Call:
    """A call, checked: `inputs` as (batch or 1, *axes, *sizes); `layout` the role, step and slot of a `layout given`, each (batch or 1,
    tokens); `row_params` the params that differ from row to row of the batch; `given` the caller's own values, by which a plan is known again;
    `asking` the positions that q holds, by row of the batch (None: all)."""

    sizes: Sizes
    lengths: tuple[int, ...] | None
    inputs: dict[str, Tensor]
    layout: dict[str, Tensor]
    params: dict[str, int | float]
    row_params: dict[str, tuple[int | float, ...]]
    given: tuple[Any, ...]
    asking: tuple[range, ...] | None = None

    @property
    def has_batch(self) -> bool:
        """Whether anything but q, k and v tells the rows of the batch apart."""
        return (
            bool(self.row_params)
            or self.lengths is not None
            or self.asking is not None
            or any(t.shape[0] > 1 for t in (*self.inputs.values(), *self.layout.values()))
        )

    def row(self, number: int) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, int | float]]:
        """Inputs, layout and params of one row of the batch, without a batch axis."""
        inputs, layout = ({n: t[number if t.shape[0] > 1 else 0] for n, t in tensors.items()} for tensors in (self.inputs, self.layout))
        return inputs, layout, {**self.params, **{n: values[number] for n, values in self.row_params.items()}}

    def rows(self) -> list[tuple[dict[str, Tensor], dict[str, Tensor], dict[str, int | float]]]:
        return [self.row(number) for number in range(self.sizes.batch)]

    def copied(self) -> Call:
        """With tensors of its own, on the CPU."""
        return replace(
            self, **{n: {k: t.to("cpu", copy=True) for k, t in tensors.items()} for n, tensors in (("inputs", self.inputs), ("layout", self.layout))}
        )


def bind_call(
    checked: Checked, sizes: Sizes, lengths: Any, inputs: Mapping[str, Any] | None, named: Mapping[str, Any], given: Any = None, *,
    device: torch.device | str = "cpu", needed: Collection[str] | None = None, by_name: bool = True, asking: tuple[range, ...] | None = None,
    mid_step: bool = False,
) -> Call:  # fmt: skip
    """Everything a caller gives beside q, k and v, checked against the spec and the sizes. `needed` are the inputs that have to be there (all,
    unless given); `by_name`: whether the caller takes them as arguments of their own; `mid_step`: whether tokens may end there. Raises InputError."""
    check_tokens(checked.queries, sizes.tokens, checked.roles, mid_step=mid_step)
    tensors, numbers = split_arguments(checked, inputs, named)
    rows = bind_lengths(checked, lengths, sizes, mid_step)
    layout = bind_given(checked, given, sizes)
    wanted = [i.name for i in checked.inputs] if needed is None else needed
    bound = bind_inputs(checked, tensors, sizes, device, layout, wanted, by_name, asking)
    params, row_params = bind_params(checked, numbers, sizes.batch)
    own = (*(tensors.get(i.name) for i in checked.inputs), *((given[n] for n in GIVEN) if layout else ()))
    return Call(sizes, rows, bound, layout, params, row_params, own, asking)


def batch_of(checked: Checked, lengths: Any, inputs: Mapping[str, Any] | None, named: Mapping[str, Any], given: Any = None) -> int:
    """The batch that `lengths`, or an input, a param or a given layout with a batch axis, speaks of; 1 if nothing does."""
    if lengths is not None and (rows := vector(lengths)) is not None:
        return len(rows)
    values = {**(inputs if isinstance(inputs, Mapping) else {}), **named}
    axes = {i.name: len(i.axes) + len(i.sizes) for i in checked.inputs} | {p.name: 0 for p in checked.params}
    sizes = [1]
    for name, value in values.items():
        shape = shape_of(value)
        if name in axes and len(shape) == axes[name] + 1:
            sizes.append(shape[0])
    if isinstance(given, Mapping):
        sizes += [shape[0] for value in given.values() if len(shape := shape_of(value)) == 2]
    return max(sizes)


def check_tokens(layout: Layout, tokens: int, roles: tuple[str, ...], what: str = "rows", mid_step: bool = False) -> None:
    """Raises InputError where the layout cannot have that many tokens; `mid_step`: nor begin with them."""
    rows = layout.rows_per_step
    if layout.given is not None or (rows and tokens >= layout.fixed and (tokens - layout.fixed) % rows == 0):
        return
    if mid_step and layout.ends_open and (rows or tokens <= layout.fixed):
        return
    text = layout.describe(roles)
    if not rows:
        if tokens != layout.fixed:
            groups = layout.fixed and tokens % layout.fixed == 0 and all(s.count == 1 for s in layout.sections)
            hint = f"; for {tokens // layout.fixed} such groups, one a time step, write `layout repeat {{ {text} }}`" if groups else ""
            raise InputError(f"{tokens} {what} given; the layout `{text}` has {layout.fixed}, always{hint}")
        return
    if tokens < layout.fixed:
        raise InputError(f"{tokens} {what} given; the layout `{text}` begins with {layout.fixed} that are always there")
    steps, rest = divmod(tokens - layout.fixed, rows)
    fixed = f" after {layout.fixed} that are always there" if layout.fixed else ""
    raise InputError(f"{tokens} {what} is {steps} steps and {rest} tokens{fixed}; this layout has {rows} a step ({text})")


def resolve_heads(checked: Checked, heads: int | None) -> int:
    """Heads of a call on masks alone: 1 unless given. Raises InputError where the spec speaks of heads and they are not given."""
    if heads is None and checked.speaks_of_heads:
        raise InputError("this spec speaks of heads: give heads=")
    return 1 if heads is None else counted("heads", heads, 1)


def resolve_layers(checked: Checked, layers: int | None) -> int:
    """Layers of a call on masks alone: 1 unless given. Raises InputError where the spec speaks of layers and they are not given."""
    if layers is None and checked.speaks_of_layers:
        raise InputError("this spec speaks of layers: give layers=")
    return 1 if layers is None else counted("layers", layers, 1)


def bind_lengths(checked: Checked, lengths: Any, sizes: Sizes, mid_step: bool = False) -> tuple[int, ...] | None:
    """Tokens of each row of the batch, as numbers. Raises InputError if they do not fit the axis, the batch or the layout."""
    if lengths is None:
        return None
    if checked.keys is not None:
        raise InputError("lengths= counts the tokens of one layout; this spec has two: give an input per query or per key")
    given = vector(lengths)
    if given is None:
        raise InputError(f"lengths is a vector of whole numbers, one a row; got {came(lengths)}")
    rows = []
    for length in given:
        n = whole_number(length)
        if n is None or not 0 <= n <= sizes.tokens:
            raise InputError(f"lengths counts the tokens of each row, from 0 to {sizes.tokens}; got {came(length)}")
        check_tokens(checked.queries, n, checked.roles, "of a row's tokens (lengths)", mid_step)
        rows.append(n)
    if len(rows) != sizes.batch:
        raise InputError(f"lengths has one number a row: wanted {sizes.batch}, got {len(rows)}")
    return tuple(rows)


def check_input_is_constant(name: str, value: Any) -> None:
    """Raises InputError for an input that a gradient is asked of, by a transform of torch.func too."""
    if asks_for_gradient(value):
        raise InputError(f"input `{name}` requires grad; masks and gates are constants of the backward: give {name}.detach()")


def bind_params(checked: Checked, values: Mapping[str, Any], batch: int) -> tuple[dict[str, int | float], dict[str, tuple[int | float, ...]]]:
    """Values of every param, those given at the call in place of the text's; and of those given as a vector, one for each row of the batch.

    Structural ones cannot be given here. Raises InputError, for values too against which the text states a fact.
    """
    bound: dict[str, int | float] = {p.name: p.value for p in checked.params}
    rows: dict[str, tuple[int | float, ...]] = {}
    for param in checked.params:
        if param.name not in values:
            continue
        what, value = f"param `{param.name}`", of_array(values[param.name])
        check_constant(what, value)
        if isinstance(value, Tensor) and value.ndim == 1 and not param.structural:
            if len(value) != batch:
                raise InputError(f"{what} is one number, or one for each of the {batch} rows of the batch; got {describe(value)}")
            rows[param.name] = tuple(param_value(param.name, param.type, x) for x in value.tolist())
            continue
        if isinstance(value, Tensor) and value.ndim:
            raise InputError(f"{what} is one number; got {describe(value)}")
        number = param_value(param.name, param.type, value)
        if param.structural and number != param.value:
            raise InputError(
                f"param `{param.name}` sizes the layout, a range or a table: set it with spec.with_params({param.name}={number!r}), not at the call"
            )
        bound[param.name] = number
    if values:
        _hold_facts_of_params(checked, bound, rows)
    return bound, rows


def _hold_facts_of_params(checked: Checked, bound: Mapping[str, int | float], rows: Mapping[str, tuple[int | float, ...]]) -> None:
    """Raises InputError for the first row of the batch in which a param is not what the text says of it. Its own values were held to it as it was read."""
    bodies = {let.name: let.body for let in checked.lets} if checked.facts_of_params else {}
    for fact in checked.facts_of_params:
        for number, own in enumerate(zip(*rows.values(), strict=True) if rows else [()]):
            here = {**bound, **dict(zip(rows, own, strict=True))}
            if not holds(fact, here, bodies):
                raise InputError(f"param {Broken(fact, (((), here[fact.name]),), row=number if rows else None)}: give another value, or change the text")


def bind_given(checked: Checked, given: Any, sizes: Sizes) -> dict[str, Tensor]:
    """Role (its number in the spec's roles), step and slot of every token of a `layout given`, each (batch or 1, tokens) int64; else nothing.

    Raises InputError unless given= is there exactly where the text wants it, with these three, of one length.
    """
    if checked.queries.given is None:
        if given is not None:
            raise InputError(f"given= belongs to `layout given {{ ... }}`; this layout is `{checked.queries.describe(checked.roles)}`")
        return {}
    tokens = tokens_given(checked, given)
    if tokens != sizes.tokens:
        raise InputError(f"given= describes {tokens} tokens; this call has {sizes.tokens}")
    bound = {}
    for name in GIVEN:
        what = f"given[{name!r}]"
        value = _role_numbers(checked, given[name]) if name == "role" else given[name]
        value = dense_tensor(what, "a vector of whole numbers, one a token", value)
        if value.numel() == 0:
            value = value.long()
        if value.ndim not in (1, 2) or value.dtype not in WHOLE:
            raise InputError(f"{what} has one whole number a token, (tokens,) or (batch, tokens); got {describe(value)}")
        if value.shape[-1] != tokens or (value.ndim == 2 and value.shape[0] not in (1, sizes.batch)):
            raise InputError(f"{what} wants {tokens} tokens, and a batch axis of 1 or {sizes.batch} if any; got {describe(value)}")
        most = len(checked.roles) - 1 if name == "role" else MOST_GIVEN
        if value.numel() and (int(value.min()) < 0 or int(value.max()) > most):
            meant = f" (the roles in order: {listing(checked.roles)})" if name == "role" else ""
            raise InputError(f"{what} is from 0 to {most}{meant}; got {int(value.min())} to {int(value.max())}")
        bound[name] = (value if value.ndim == 2 else value[None]).to("cpu", torch.int64)
    return bound


def tokens_given(checked: Checked, given: Any) -> int:
    """How many tokens `given=` lays out. Raises InputError where it does not map role, step and slot to one entry a token."""
    text = checked.queries.describe(checked.roles)
    if given is None:
        raise InputError(f"the layout is `{text}`: give given={{'role': [...], 'step': [...], 'slot': [...]}}, one entry a token")
    if not isinstance(given, Mapping) or set(given) != set(GIVEN):
        came = f"the keys {', '.join(map(str, given)) or 'none'}" if isinstance(given, Mapping) else type(given).__name__
        raise InputError(f"given= maps `role`, `step` and `slot` to one entry a token; got {came}")
    role = _listed(given["role"])
    if isinstance(role, Tensor):
        return shape[-1] if (shape := shape_of(role)) else 0
    if not isinstance(role, list | tuple):
        raise InputError(f"given['role'] is a list of role names, or a tensor of their numbers; got {type(role).__name__}")
    return len(role[0]) if role and isinstance(role[0], list | tuple) else len(role)


def _listed(role: Any) -> Any:
    """Roles in an array as a tensor of their numbers, or as lists of their names; all else as it came."""
    role = of_array(role)
    return role.tolist() if isinstance(role, np.ndarray) else role


def _role_numbers(checked: Checked, role: Any) -> Tensor:
    """Names of roles as numbers."""
    role = _listed(role)
    if isinstance(role, Tensor):
        return role
    rows = role if role and isinstance(role[0], list | tuple) else [role]
    if any(len(row) != len(rows[0]) for row in rows):
        raise InputError("given['role'] has rows of different lengths: pad them to one, and give lengths=")
    known = {name: number for number, name in enumerate(checked.roles)}

    def number(name: Any) -> int:
        found = known.get(name) if isinstance(name, str) else whole_number(name)
        if found is None:
            raise InputError(f"no role is called {name!r}; {did_you_mean(str(name), known) or 'roles here: ' + listing(known)}")
        return found

    numbers = torch.tensor([[number(name) for name in row] for row in rows], dtype=torch.int64).reshape(len(rows), -1)
    return numbers if rows is role else numbers[0]


def layer_number(checked: Checked, layer: Any, layers: int | None) -> int:
    """The layer of a call. Raises InputError where the spec speaks of layers and it is missing, or where it is out of range."""
    if checked.speaks_of_layers:
        if layers is None:
            raise InputError("this spec speaks of layers, and it was compiled without knowing how many: srt_masks.compile(spec, layers=...)")
        if layer is None:
            raise InputError(f"this spec speaks of layers: give layer=, from 0 to {layers - 1}")
    if layer is None:
        return 0
    number = whole_number(layer)
    if number is None or number < 0 or (layers is not None and number >= layers):
        raise InputError(f"layer is a whole number from 0{'' if layers is None else f' to {layers - 1}'}; got {came(layer)}")
    return number if layers is not None else 0


def split_arguments(checked: Checked, inputs: Mapping[str, Any] | None, named: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and params of a call, told apart by the text. Raises InputError for a name the text does not have."""
    if inputs is not None and not isinstance(inputs, Mapping):
        raise InputError(f"inputs maps names to tensors; got {type(inputs).__name__}")
    given = dict(inputs or {})
    params: dict[str, Any] = {}
    known_inputs = {i.name for i in checked.inputs}
    known_params = {p.name for p in checked.params}
    for name in given:
        if not isinstance(name, str):
            raise InputError(f"inputs maps names to tensors; got the name {name!r}")
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


ARGUMENTS = ("layer", "lengths", "queries", "given", "scale", "return_lse", "visited", "hidden_k", "hidden_v", "inputs")
_OWN_MASK = "declare it in the text: `input mask: bool per query, key` and `attend mask`"
_NO_SCORES = "score changes are not part of the language"
FOREIGN = {
    "dropout": "dropout on attention weights is not part of the language", "dropout_p": "dropout on attention weights is not part of the language",
    "is_causal": "write `attend causal` in the text", "causal": "write `attend causal` in the text", "window_size": "write `window(n)` in the text",
    "sliding_window": "write `causal and window(n)` in the text", "attn_mask": _OWN_MASK, "mask": _OWN_MASK, "attention_mask": _OWN_MASK, "block_mask": _OWN_MASK,
    "mask_mod": "say in the text who attends to whom", "key_padding_mask": "declare it in the text: `input valid: bool per key`, `attend k.valid`; or give lengths=",
    "cu_seqlens": "declare `input doc: int per token` and give srt_masks.documents(cu_seqlens=...)['doc']", "softmax_scale": "write scale=", "sm_scale": "write scale=",
    "enable_gqa": "grouped heads need no word: k and v with fewer heads are shared", "softcap": _NO_SCORES, "score_mod": _NO_SCORES, "alibi_slopes": _NO_SCORES,
    **{n: f"it belongs to srt_masks.compile(spec, {n}=...)" for n in ("backend", "order", "plan_memory", "precision", "tile")},
    "plan": "a call makes its plan itself, and keeps it", "heads": "q says how many there are", "steps": "q says how many there are", "layers": "srt_masks.compile(spec, layers=...) says how many there are",
}  # fmt: skip

PACKED = ("doc", "start", "position")  # the names that srt_masks.documents gives


def _unknown_argument(name: str, known: set[str]) -> str:
    hint = FOREIGN.get(name)
    if name in ARGUMENTS:
        hint = f"`{name}=` is an argument of a call on q, k and v, as in srt_masks.compile(spec)(q, k, v, {name}=...)"
    hint = hint or did_you_mean(name, known | {*ARGUMENTS})
    if name in PACKED and not known.isdisjoint(PACKED):
        hint = f"of what srt_masks.documents gives, this text declares {listing(sorted(known.intersection(PACKED)))}: give that alone"
    return f"unknown argument `{name}`: {hint or 'this spec has ' + (listing(sorted(known)) or 'no inputs and no params')}"


def bind_inputs(
    checked: Checked, given: Mapping[str, Any], sizes: Sizes, device: torch.device | str, layout: Mapping[str, Tensor], needed: Collection[str],
    by_name: bool, asking: tuple[range, ...] | None,
) -> dict[str, Tensor]:  # fmt: skip
    """Every input that is given or needed as (batch or 1, *axes, *sizes), cast to bool, int64 or float64.

    Raises InputError for an input that is missing, or of the wrong type, shape, batch or device.
    """
    declared_here = [i for i in checked.inputs if i.name in given or i.name in needed]
    missing = [i for i in declared_here if i.name not in given]
    if missing:
        names = ", ".join(f"`{i.name}`" for i in missing)
        # What is called like an argument of the call itself cannot be given by its name.
        beside = [i.name for i in missing if not by_name or i.name in ARGUMENTS]
        forms = [f"{i.name}=" for i in missing if i.name not in beside]
        if beside:
            forms.append("inputs={" + ", ".join(f"{name!r}: ..." for name in beside) + "}")
        raise InputError(f"missing input{'s' if len(missing) > 1 else ''} {names}: give {', '.join(forms)} ({'; '.join(map(str, missing))})")
    named: dict[str, tuple[int, str]] = {}
    bound: dict[str, Tensor] = {}
    for declared in declared_here:
        name, value = declared.name, given[declared.name]
        if isinstance(value, Tensor) and value.device.type != "cpu" and value.device != torch.device(device):
            raise InputError(f"input `{name}` lies on {value.device}; q, k and v lie on {device}")
        if not isinstance(value, Tensor) or value.requires_grad or torch._C._functorch.peek_interpreter_stack() or forward_ad._current_level >= 0:  # pyright: ignore[reportAttributeAccessIssue]
            check_input_is_constant(name, value)  # of which there is nothing to ask where no transform is at work
        # Python's floats have 64 bits, and keep them.
        wide = declared.type is Type.FLOAT and isinstance(value, int | float | list | tuple)
        value = dense_tensor(f"input `{name}`", "a tensor or an array of numbers", value, torch.float64 if wide else None)
        match declared.type:
            case Type.BOOL:
                wrong = value.dtype is not torch.bool
            case Type.INT:
                wrong = value.dtype not in WHOLE
            case _:
                wrong = not value.is_floating_point()
        if wrong:
            hint = {Type.BOOL: f" ({name} != 0 makes one)", Type.INT: "", Type.FLOAT: f" ({name}.float() makes one)"}[declared.type]
            raise InputError(f"input `{name}` is declared {declared.type.value}; got {describe(value)}{hint}")
        wanted: list[int | str] = [axis_extent(checked, axis, sizes, layout) for axis in declared.axes]
        wanted += declared.sizes
        batched = value.ndim == len(wanted) + 1
        if not batched and value.ndim != len(wanted):
            raise InputError(f"input `{name}` has the axes {_axes(declared.axes, wanted)}, and may have a batch axis before them; got {describe(value)}")
        if batched and value.shape[0] not in (1, sizes.batch):
            raise InputError(f"input `{name}`: the batch axis is {'1' if sizes.batch == 1 else f'1 or {sizes.batch}'}; got {describe(value)}")
        for extent, found in zip(wanted, value.shape[int(batched) :], strict=True):
            if isinstance(extent, str):
                before = named.setdefault(extent, (found, name))
                if before[0] != found:
                    raise InputError(f"size `{extent}` is {before[0]} in input `{before[1]}` and {found} in `{name}`")
            elif extent != found:
                # A layout of queries that repeats has no other end.
                open_end = asking is not None and "query" in declared.axes and checked.keys is not None and checked.queries.rows_per_step
                why = f": queries= ends at position {sizes.tokens - 1}, and with it what is given per query" if open_end else ""
                raise InputError(f"input `{name}` has the axes {_axes(declared.axes, wanted)}; got {describe(value)}{why}")
        # Plans are made on the CPU, so floats can go there at once where the device has no float64.
        place = "cpu" if declared.type is Type.FLOAT and torch.device(device).type in NO_FLOAT64 else device
        value = value.to(place).to(DTYPES[declared.type])
        bound[name] = value if batched else value.unsqueeze(0)
    return bound


def axis_extent(checked: Checked, axis: str, sizes: Sizes, layout: Mapping[str, Tensor]) -> int:
    """How long an axis of an input is in a call; `layout` is what was given of a `layout given`."""
    match axis:
        case "token" | "query":
            return sizes.tokens
        case "key":
            return sizes.keys
        case "step" if layout:
            return int(layout["step"].max()) + 1 if sizes.tokens else 0
        case "step":
            return checked.queries.longest(checked.queries.steps(checked.queries.whole(sizes.tokens)))
        case "head":
            return sizes.heads
        case _:
            return sizes.layers or 1


def _axes(axes: tuple[str, ...], wanted: list[int | str]) -> str:
    return "(" + ", ".join(f"{a} {n}" for a, n in zip([*axes, *["size"] * len(wanted)], wanted, strict=False)) + ")"
