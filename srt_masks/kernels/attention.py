"""`Attention`: a spec as a callable. It checks what it is given, plans, and hands both to a backend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..binding import Call, Sizes, batch_of, bind_call, check_tokens, layer_number
from ..compiler.choice import AUTO, LEAST_TILES, Ordering, every_candidate
from ..compiler.facts import lower_facts
from ..compiler.memory import PLAN_MEMORY
from ..compiler.order import NATURAL
from ..compiler.pipeline import Compiled, Plan, compile_checked
from ..compiler.plan import Geometry
from ..default_device import on_the_cpu
from ..diagnostics import BackendError, InputError, did_you_mean, listing
from ..grammar.checked import Checked, Layout
from ..query_ranges import bind_queries
from ..reference import attention as reference_attention
from ..reference import masks as reference_masks
from ..spec import Spec
from ..values import came, counted, number_of_scalar, odd, of_array, shape_of, whole_number
from . import op, traced
from .backend import Backend, Operands
from .cache import PlanCache
from .dispatch import backend_of, check_reference, pick, settle
from .facts import hold_facts_by_reference
from .planned import Found, Planned, PlannedCall, planned_call
from .planning import Asked, find_plan, rows_asking
from .reorder import places_of

TILES = (16, 32, 64, 128, 256, 512)
BACKENDS = ("auto", "reference", "tiled", "triton")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class Options:
    heads: int | None = None
    layers: int | None = None
    backend: str = "auto"
    tile: int | None = None
    precision: str = "ieee"
    plan_memory: int = PLAN_MEMORY
    order: str = AUTO


class Attention:
    """Attention by a spec, for any length, batch, number of heads and device. It has no parameters and no state but a cache
    of plans, `plans`, which counts those it made and found; it can be copied, pickled and shared between threads."""

    def __init__(self, spec: Spec, options: Options):
        self.spec = spec
        self.options = options
        self.compiled, self.twins = compile_checked(spec.checked)
        self.predicates = (self.compiled,) if self.twins is None else (self.compiled, self.twins)
        self.plans = PlanCache(options.plan_memory)
        self.facts = lower_facts(spec.checked)
        self.identity = traced.identify(self)

    def __reduce__(self):
        return Attention, (self.spec, self.options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Attention:
        return Attention(self.spec, self.options)

    def to(self, *args: Any, **kwargs: Any) -> Attention:
        """Returns itself: there is nothing to move."""
        return self

    def __repr__(self) -> str:
        return f"<Attention by {self.spec.filename}, backend {self.options.backend}>"

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, /, *, layer: int | None = None, lengths: Sequence[int] | Tensor | None = None,
        queries: range | Sequence[int] | Tensor | None = None, given: Any = None, scale: float | None = None, return_lse: bool = False,
        visited: Tensor | None = None, hidden_k: Tensor | None = None, hidden_v: Tensor | None = None, inputs: Mapping[str, Any] | None = None,
        **inputs_and_params: Any,
    ) -> Any:  # fmt: skip
        """out (batch, heads, queries, value_dim) in q's dtype; with `return_lse` also lse (batch, heads, queries), float32 (float64 for float64).

        q (batch, heads, queries, head_dim); k (batch, key_heads, keys, head_dim); v (batch, key_heads, keys, value_dim): float16,
        bfloat16, float32 or float64 of one dtype and device. `heads` is a multiple of `key_heads`. `scale` is 1 / sqrt(head_dim)
        unless given. `lengths` counts the tokens of each row of the batch. Under `queries where` q holds the rows of the tokens that ask, in
        order, and k and v those of all. `queries=range(a, b)` says that q holds positions a .. b of as many tokens as k has (for decoding and
        chunked prefill), a vector with a number for each row of the batch where each row's begin; the tokens of k may then end in mid-step. Where queries
        have a layout of their own that repeats, it ends with the last position that q holds, and so does what is given per query.
        `given` holds role, step and slot of every token of a `layout given`. `visited` (tokens,) int64 says that row i of q, k and v, and so of the
        results, is that of token visited[i]; inputs, `given=` and `lengths=` stay in the order of tokens. Rows that are laid out as `plan(...).visited`
        is are gathered no more; what to gather of any other order is worked out anew at every call. It is read on the CPU, where it had best lie.
        `hidden_k` and `hidden_v`, for a text with `stop hidden`, are k and v again, of equal value, projected from the detached hidden state: what the
        stopped pairs teach the projections. Inputs and value params of the spec are given by name, or in `inputs`; a param is a number, or a vector with
        one for each row of the batch. Raises InputError naming the argument that is wrong, BackendError where the backend cannot do it.
        """
        is_watched = traced.is_watched(q)
        if not is_watched and torch._C._is_tracing():
            raise BackendError("torch.jit.trace would fix the plan of this one call: torch.export and torch.compile keep the call, for any length")
        q, k, v, hidden_k, hidden_v = autocast(q, k, v, hidden_k, hidden_v)
        beside = {"layer": layer, "lengths": lengths, "queries": queries, "given": given, "scale": scale, "visited": visited, "inputs": inputs}
        beside |= inputs_and_params
        if not is_watched:
            traced.refuse_fakes({"k": k, "v": v, "hidden_k": hidden_k, "hidden_v": hidden_v, **beside})
        if self.options.backend == "reference":
            out, lse = self._reference(q, k, v, hidden_k, hidden_v, **beside)
        elif is_watched:
            out, lse = traced.attend(self.identity, q, k, v, hidden_k, hidden_v, beside)
        else:
            out, lse = op.run(self.planned_call(q, k, v, hidden_k, hidden_v, **beside), q, k, v, hidden_k, hidden_v)
        return (out, lse) if return_lse else out

    @on_the_cpu
    def plan(
        self, tokens: int | tuple[int, int], /, *, heads: int | None = None, layer: int | None = None, dtype: torch.dtype | None = None, head_dim: int = 64,
        lengths: Sequence[int] | Tensor | None = None, queries: range | Sequence[int] | Tensor | None = None, given: Any = None,
        inputs: Mapping[str, Any] | None = None, **inputs_and_params: Any,
    ) -> Plan:  # fmt: skip
        """The plan of a call on so many tokens: print it to see which tiles are visited. `heads` is 1, or what was compiled for.

        `dtype` (float32) and `head_dim` are for `triton`, whose tile depends on them; it is that of ungrouped heads. With two layouts
        `tokens` are those of queries and of keys, (24, 5), or of queries alone where keys have one length; with `queries where` it counts all
        tokens, and so it does with `queries=`: a range of positions that q is to hold, or one position for each row of the batch. Raises InputError.
        """
        checked, options = self.spec.checked, self.options
        tokens, keys = _tokens_of_axes(checked, tokens)
        heads = (options.heads or 1) if heads is None else counted("heads", heads, 1)
        if heads != (options.heads or heads):
            raise InputError(f"heads is {options.heads}, as compiled; got {heads}")
        traced.refuse_fakes({"lengths": lengths, "queries": queries, "given": given, "inputs": inputs, **inputs_and_params})
        batch = batch_of(checked, lengths, inputs, inputs_and_params, given)
        one_each = queries is not None and not isinstance(queries, range)
        if one_each and len(shape := shape_of(queries)) == 1:
            batch = max(batch, *shape)
        asking = bind_queries(queries, 1 if one_each and checked.asks is None else None, batch, tokens, "tokens")
        number = layer_number(checked, layer, options.layers)
        if dtype is not None and dtype not in DTYPES:
            raise InputError(f"dtype is torch.float16, bfloat16, float32 or float64; got {dtype!r}")
        head_dim = counted("head_dim", head_dim, 1)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        operands = Operands(dtype or torch.float32, head_dim, head_dim, 1, device)
        planner = pick("tiled" if options.backend == "reference" else options.backend, self.predicates, operands, tell=False)
        tile = options.tile or planner.tile(self.compiled, operands)
        call = self._call(Sizes(tokens, keys, heads, options.layers, batch), lengths, asking, given, inputs, inputs_and_params)
        rows = tokens if asking is None else max((len(r) for r in asking), default=0)
        asked = self._asked(call, rows, number, tile, 1, Ordering(options.order, planner.costs(operands, tile)))
        if checked.asks is not None:
            asked = replace(asked, geometry=replace(asked.geometry, queries=rows_asking(self.plans, asked)))
        return find_plan(self.plans, asked)

    # ------------------------------------------------------------------------------------------ arguments

    def _bind(
        self, q: Tensor, k: Tensor, v: Tensor, hidden_k: Tensor | None, hidden_v: Tensor | None, *, layer: Any = None, lengths: Any = None,
        queries: Any = None, given: Any = None, scale: Any = None, inputs: Any = None, **named: Any,
    ) -> tuple[Call, int, float]:  # fmt: skip
        """A call, its layer, and what scores are multiplied by. Raises InputError for anything that is wrong with it."""
        check_tensors(q, k, v)
        self._check_twins(k, v, hidden_k, hidden_v)
        call, number = self._bind_beside(q, k, layer, lengths, queries, given, inputs, named)
        return call, number, _scale(scale, q.shape[-1])

    def _bind_beside(
        self, q: Tensor, k: Tensor, layer: Any, lengths: Any, queries: Any, given: Any, inputs: Any, named: Mapping[str, Any]
    ) -> tuple[Call, int]:  # fmt: skip
        checked, options = self.spec.checked, self.options
        batch, heads, nq, _ = q.shape
        hint = f"; if q is (batch, tokens, heads, head_dim), give q.transpose(1, 2), and k and v so: {tuple(q.shape)} came"
        if options.heads is not None and heads != options.heads:
            raise InputError(f"this attention was compiled for {options.heads} heads; q has {heads}{hint}")
        one_axis, all_ask = checked.keys is None, checked.asks is None
        known = k.shape[2] if one_axis else checked.queries.fixed if not checked.queries.rows_per_step else None
        try:
            asking = bind_queries(queries, nq if all_ask else None, batch, known, "rows of k" if one_axis else "queries in the layout")
        except InputError as error:
            raise InputError(str(error) + (hint if isinstance(queries, range) and queries.stop - queries.start == heads != nq else "")) from None
        if asking is not None:
            tokens, what = known if known is not None else max((r.stop for r in asking), default=0), "rows of k" if one_axis else "positions of q"
        else:
            tokens, what = (nq, "rows of q") if all_ask else (k.shape[2], "rows of k")
        if one_axis and k.shape[2] != tokens:
            if all_ask and nq > k.shape[2]:
                raise InputError(
                    f"q has {nq} rows and k only {k.shape[2]}, and the spec has one layout for both: k and v hold every token that asks. Two sequences are "
                    "a `queries layout` and a `keys layout` in the text"
                )
            first = max(0, k.shape[2] - nq)
            raise InputError(
                f"q has {nq} rows and k has {k.shape[2]}, and the spec has one layout for both: which rows does q hold? "
                f"queries=range({first}, {first + nq}) says so of the last ones"
            )
        try:
            self._check_extents(tokens, what, None if one_axis else k.shape[2], asking)
        except InputError as error:
            swapped = _fits(checked, heads) and not _fits(checked, tokens)
            raise InputError(str(error) + (hint if swapped else "")) from None
        number = layer_number(checked, layer, options.layers)
        sizes = Sizes(tokens, k.shape[2], heads, options.layers, batch)
        try:
            return self._call(sizes, lengths, asking, given, inputs, named, q.device), number
        except InputError as error:
            try:
                self._call(replace(sizes, tokens=heads, keys=k.shape[1], heads=tokens), lengths, None, given, inputs, named, q.device)
            except InputError:
                raise error from None
            raise InputError(str(error) + hint) from None  # what came fits the tensors the other way round

    def _call(
        self, sizes: Sizes, lengths: Any, asking: tuple[range, ...] | None, given: Any, inputs: Mapping[str, Any] | None, named: Mapping[str, Any],
        device: torch.device | str = "cpu",
    ) -> Call:  # fmt: skip
        mid_step = asking is not None and not self._reads_length
        return bind_call(self.spec.checked, sizes, lengths, inputs, named, given, device=device, asking=asking, mid_step=mid_step)

    def _order(self, visited: Any, call: Call) -> Tensor:
        """`visited`, on the CPU; whether it is an order is seen where it is no known one. Raises InputError unless q, k and v hold all rows of one layout."""
        checked, tokens = self.spec.checked, call.sizes.tokens
        why = "queries= says which rows q holds" if call.asking is not None else "this text has two layouts" if checked.keys is not None else ""
        if why or checked.asks is not None:
            why = why or "here only some tokens ask (`queries where`)"
            raise InputError(f"visited= is for q, k and v that all hold every row of one layout, and {why}: leave it out")
        order = of_array(visited)
        if not isinstance(order, Tensor) or odd(order) or order.dtype is not torch.int64 or order.shape != (tokens,):
            raise InputError(f"visited is the token of each row of q, k and v: int64 of shape ({tokens},); got {came(visited)}")
        return order.cpu()

    def _check_extents(self, tokens: int, what: str, keys: int | None, asking: tuple[range, ...] | None) -> None:
        """Raises InputError unless the layouts have, or with queries= may begin with, so many tokens. `keys`: those of a layout of their own."""
        checked = self.spec.checked
        mid_step = asking is not None and not self._reads_length
        extents = [(checked.queries, tokens, what)]
        if checked.keys is not None and keys is not None:
            extents.append((checked.keys, keys, "rows of k"))
        for layout, count, name in extents:
            try:
                check_tokens(layout, count, checked.roles, name, mid_step)
            except InputError as error:
                raise InputError(str(error) + ("" if asking is None else _why_whole(layout, count, self._reads_length))) from None

    @property
    def _reads_length(self) -> bool:
        return self.compiled.reads_length or (self.twins is not None and self.twins.reads_length)

    def _check_twins(self, k: Tensor, v: Tensor, hidden_k: Tensor | None, hidden_v: Tensor | None) -> None:
        """Raises InputError unless hidden_k and hidden_v are there exactly where the text has `stop hidden`, and fit k and v."""
        if not self.spec.checked.has_hidden_rules:
            if hidden_k is not None or hidden_v is not None:
                raise InputError("hidden_k= and hidden_v= belong to a text with `stop hidden`, and this one has none: leave them out")
            return
        if hidden_k is None or hidden_v is None:
            raise InputError(
                "this spec has `stop hidden`, which acts on the state that k and v are projected from: give hidden_k= and hidden_v=, "
                "k and v projected once more from the detached state (srt_masks.build_model does)"
            )
        for name, twin, x in (("hidden_k", hidden_k, k), ("hidden_v", hidden_v, v)):
            if not isinstance(twin, Tensor) or twin.shape != x.shape or twin.dtype is not x.dtype or twin.device != x.device:
                came = f"{tuple(twin.shape)}, {twin.dtype}, {twin.device}" if isinstance(twin, Tensor) else type(twin).__name__
                raise InputError(f"{name} is {name[-1]} once more, from the detached state: {tuple(x.shape)}, {x.dtype}, {x.device}; got {came}")
            # Asking a GPU would wait for it; on the CPU the question costs nothing.
            if twin.device.type == "cpu" and not torch.equal(torch.nan_to_num(twin.detach()), torch.nan_to_num(x.detach())):
                raise InputError(f"{name} has the values of {name[-1]}, and these differ: project both from the same state, one of them detached")

    # ------------------------------------------------------------------------------------------ plans

    @on_the_cpu
    def planned_call(
        self, q: Tensor, k: Tensor, v: Tensor, hidden_k: Tensor | None = None, hidden_v: Tensor | None = None, /, *, visited: Any = None, **beside: Any
    ) -> PlannedCall:  # fmt: skip
        """A call, checked and planned; `beside` is what `__call__` takes beside q, k, v and their twins. Raises as that does."""
        call, layer, scale = self._bind(q, k, v, hidden_k, hidden_v, **beside)
        operands = Operands.of(q, k, v)
        found = self._found(call, q.shape[2], layer, operands)
        order = None if visited is None else self._order(visited, call)
        return planned_call(q, k, v, found.own, self.settled(found, operands), scale, found.twins, order)

    @on_the_cpu
    def found(self, q: Tensor, k: Tensor, v: Tensor, /, *, layer: int | None = None, lengths: Any = None, given: Any = None, inputs: Any = None) -> Found:
        """What a call on tensors of such shapes, dtype and device would be done by; of q, k and v nothing is read. Raises as the call does."""
        check_tensors(q, k, v)
        call, number = self._bind_beside(q, k, layer, lengths, None, given, inputs, {})
        return self._found(call, q.shape[2], number, Operands.of(q, k, v))

    def may_reorder(self, tokens: int) -> bool:
        """Whether a call on so many may visit them in another order than the caller's, by text, options and extent: what its plan says costs more to ask."""
        options = self.options
        if not self.compiled.candidates or options.backend == "reference" or options.order == NATURAL:
            return False
        return options.order != AUTO or tokens > (LEAST_TILES - 1) * (options.tile or TILES[0])

    def _found(self, call: Call, rows: int, layer: int, operands: Operands) -> Found:
        backend = pick(self.options.backend, self.predicates, operands)
        tile = self.options.tile or backend.tile(self.compiled, operands)
        asked = self._asked(call, rows, layer, tile, operands.heads_per_key, Ordering(self.options.order, backend.costs(operands, tile)))
        plan = find_plan(self.plans, asked)
        # A rule that never applies leaves no work for the twins.
        twins = None if self.twins is None else Planned(find_plan(self.plans, replace(asked, compiled=self.twins, like=plan, facts=None)), self.twins)
        return Found(backend, Planned(plan, self.compiled), twins)

    def settled(self, found: Found, operands: Operands) -> Backend:
        """The backend that does what was found."""
        if self.options.backend != "auto":
            return found.backend
        return settle(found.backend, [(p.plan, p.compiled) for p in (found.own, found.twins) if p is not None], operands)

    def _asked(self, call: Call, rows: int, layer: int, tile: int, heads_per_key: int, ordering: Ordering) -> Asked:
        sizes = call.sizes
        scalars = {"heads": sizes.heads, "layers": sizes.layers or 1, "layer": layer if self.spec.checked.speaks_of_layers else 0}
        # Where heads are alike they have one order whatever they share, and where there is one order nobody asks what it costs.
        geometry = Geometry(sizes.batch, sizes.heads, rows, sizes.keys, tile, call.lengths, call.asking, heads_per_key if self.compiled.speaks_of_head else 1)
        return Asked(self.compiled, call, geometry, scalars, ordering if self.compiled.candidates else None, facts=self.facts)

    # ------------------------------------------------------------------------------------------ the reference as a backend

    @on_the_cpu
    def _reference(
        self, q: Tensor, k: Tensor, v: Tensor, hidden_k: Tensor | None, hidden_v: Tensor | None, *, visited: Any = None, **beside: Any
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        traced.check_is_real(q)
        call, layer, scale = self._bind(q, k, v, hidden_k, hidden_v, **beside)
        order = None if visited is None else self._order(visited, call)
        if order is not None:
            places, order = places_of(order).to(q.device), order.to(q.device)
            q, k, v, hidden_k, hidden_v = (None if x is None else x[:, :, places] for x in (q, k, v, hidden_k, hidden_v))  # type: ignore[assignment]
        check_reference(q.device)
        sizes, call = call.sizes, call.copied()
        hold_facts_by_reference(self.spec.checked, call, layer)
        if not sizes.batch:  # no row to lay out, and no pair
            pick = [torch.ones(1, 1, device=q.device) > 0] * 5
        else:
            dense = reference_masks.dense(
                self.spec.checked, call.rows(), tokens=sizes.tokens, keys=sizes.keys, heads=sizes.heads,
                layers=sizes.layers or 1, lengths=call.lengths, has_batch=call.has_batch, asking=call.asking,
            )  # fmt: skip
            if dense.attend.shape[-2] != q.shape[2]:
                among = sizes.tokens if call.asking is None else max(len(r) for r in call.asking)
                raise InputError(f"q has {q.shape[2]} rows, and {dense.attend.shape[-2]} of the {among} tokens ask (`queries where`)")
            pick = [m.select(-4, layer).to(q.device) for m in (dense.attend, dense.gate_q, dense.gate_k, dense.gate_v, dense.gate_hidden)]
        hidden_k, hidden_v = (None if x is None else x.double() for x in (hidden_k, hidden_v))
        out, lse = reference_attention.attention(q.double(), k.double(), v.double(), *pick, hidden_k=hidden_k, hidden_v=hidden_v, scale=scale)
        if order is not None:
            out, lse = out[:, :, order], lse[:, :, order]
        return out.to(q.dtype), lse if q.dtype is torch.float64 else lse.float()


def compile_spec(
    spec: Spec, *, heads: int | None = None, layers: int | None = None, params: Mapping[str, int | float] | None = None,
    backend: str = "auto", tile: int | None = None, precision: str = "ieee", plan_memory: int = PLAN_MEMORY, order: str = AUTO,
) -> Attention:  # fmt: skip
    """A spec as a callable; see `Attention`. `plan_memory` is how many bytes one plan, and all that are kept, may take: a call that would need
    more is refused before it takes any. `order` is that in which tokens are visited, results always being in the caller's: "auto" takes another
    than "natural" where it saves work, and any that `attend.plan(...)` lists may be asked for by its name. Raises InputError for an option that
    is wrong, BackendError for a backend that is not there."""
    if not isinstance(spec, Spec):
        raise InputError(f"compile takes a Spec; got {type(spec).__name__}. For a text: srt_masks.parse(text); for a file: srt_masks.load(path)")
    if backend not in BACKENDS:
        raise InputError(f"backend is one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend not in ("auto", "reference"):
        backend_of(backend)  # raises where its package is missing
    if precision != "ieee":
        raise BackendError(f'precision={precision!r} is not served yet; precision="ieee" is')
    given, tile = tile, whole_number(tile)
    if given is not None and tile not in TILES:
        raise InputError(f"tile is one of {', '.join(map(str, TILES))} tokens; got {came(given)}")
    heads, layers = (None if n is None else counted(name, n, 1) for name, n in (("heads", heads), ("layers", layers)))
    plan_memory = counted("plan_memory", plan_memory, 1, "a whole number of bytes")
    if params is not None and not isinstance(params, Mapping):
        raise InputError(f"params maps names to numbers; got {type(params).__name__}")
    made = Attention(spec.with_params(**params) if params else spec, Options(heads, layers, backend, tile, precision, plan_memory, order))
    check_order(made.compiled, order)
    return made


def check_order(compiled: Compiled, order: str) -> None:
    """Raises InputError for an order that the text has not."""
    if order in (AUTO, NATURAL):
        return
    singles = [c.name for c in compiled.candidates]
    if order not in [c.name for c in every_candidate(compiled.candidates)]:
        others = f", or of this text {listing([f'`{n}`' for n in singles], 8)}, or two of them: `by a, then b`" if singles else ""
        why = f"; this text has no other orders{f': {compiled.must_stay}' if compiled.must_stay else ''}" if not singles else ""
        close = did_you_mean(order, singles) if isinstance(order, str) else ""
        raise InputError(f"order is `auto`{',' if others else ' or'} `natural`{others}{why}; got {order!r}{f': {close}' if close else ''}")


# ------------------------------------------------------------------------------------------------ helpers


def _scale(scale: Any, head_dim: int) -> float:
    """What scores are multiplied by. Raises InputError unless it is a finite number."""
    factor = head_dim**-0.5 if scale is None else number_of_scalar("scale", scale)
    if isinstance(factor, bool) or not isinstance(factor, int | float):
        raise InputError(f"scale is a number; got {factor!r}")
    try:
        if math.isfinite(factor):
            return float(factor)
    except OverflowError:
        raise InputError(f"scale is a finite number; got a whole one of {int(factor).bit_length():,} bits") from None
    raise InputError(f"scale is a finite number; got {factor!r}")


def _tokens_of_axes(checked: Checked, tokens: Any) -> tuple[int, int]:
    """Of queries and of keys, as `plan` is told them. Raises InputError for what no call has."""
    match tokens:
        case [queries, keys]:
            if checked.keys is None:
                raise InputError(f"tokens={tuple(tokens)} are those of queries and those of keys, and this text has one layout for both: give one number")
            queries, keys = (counted(name, n, 0, "a whole number of rows") for name, n in (("tokens of queries", queries), ("tokens of keys", keys)))
            check_tokens(checked.keys, keys, checked.roles, "keys")
            return queries, keys
    tokens = counted("tokens", tokens, 0, "a whole number of rows")
    if checked.keys is not None and checked.keys.rows_per_step:
        raise InputError(f"this spec has a layout of its own for keys, of any length: give the rows of both, plan(({tokens}, KEYS))")
    return tokens, tokens if checked.keys is None else checked.keys.fixed


def _why_whole(layout: Layout, tokens: int, reads_length: bool) -> str:
    """Why a layout has to be whole although queries= is given."""
    if tokens > layout.fixed and not layout.rows_per_step:
        return ""
    if not layout.ends_open:
        return ": with queries= a layout may end in mid-step where its repeat is its last part"
    return ": this text reads `length`, `steps` or the token at a position, for which the layout has to be whole" if reads_length else ""


def autocast(*tensors: Any) -> tuple[Any, ...]:
    """float32 tensors in the dtype of torch's autocast, where that is on for the device of the first; others as they are."""
    q = tensors[0]
    if isinstance(q, Tensor) and not q.is_meta and torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        return tuple(x.to(dtype) if isinstance(x, Tensor) and x.dtype is torch.float32 else x for x in tensors)
    return tensors


def check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raises InputError unless q, k and v fit each other."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor):
            hint = ": give torch.from_numpy(x)" if type(x).__module__ == "numpy" else ""
            raise InputError(f"{name} is a tensor; got {type(x).__name__}{hint}")
        if x.is_nested:
            raise InputError(f"{name} is an ordinary dense tensor; got a nested one: pad it, and give lengths=; or lay the rows in one (srt_masks.documents)")
        if x.layout is not torch.strided or x.is_meta:
            came = "a meta tensor, which holds no numbers" if x.is_meta else f"layout {str(x.layout).removeprefix('torch.')}: give {name}.to_dense()"
            raise InputError(f"{name} is an ordinary dense tensor; got {came}")
        if x.ndim != 4:
            hint = f": {name}.unsqueeze(0) adds a batch of one, {name}.unsqueeze(1) one head" if x.ndim == 3 else ""
            raise InputError(f"{name} is (batch, heads, tokens, head_dim); got shape {tuple(x.shape)}{hint}")
        if x.dtype not in DTYPES:
            raise InputError(f"{name} is float16, bfloat16, float32 or float64; got {str(x.dtype).removeprefix('torch.')}: {name}.float() makes one")
        if x.dtype is not q.dtype:
            raise InputError(
                f"q, k and v have one dtype; q is {str(q.dtype).removeprefix('torch.')}, {name} {str(x.dtype).removeprefix('torch.')}: give {name}.to(q.dtype)"
            )
        if x.device != q.device:
            raise InputError(f"q, k and v lie on one device; q on {q.device}, {name} on {x.device}: give {name}.to(q.device)")
        if x.shape[0] != q.shape[0]:
            hint = f": give {name}.expand({q.shape[0]}, -1, -1, -1)" if x.shape[0] == 1 else ""
            raise InputError(f"q, k and v have one batch; q has {q.shape[0]}, {name} {x.shape[0]}{hint}")
    if k.shape[:3] != v.shape[:3]:
        raise InputError(f"k and v have the same batch, heads and tokens; k is {tuple(k.shape)}, v {tuple(v.shape)}")
    if q.shape[-1] != k.shape[-1]:
        raise InputError(f"q and k have one head_dim; q has {q.shape[-1]}, k {k.shape[-1]}")
    if q.shape[-1] == 0:
        raise InputError("head_dim is at least 1; q has 0")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        swapped = k.shape[1] > q.shape[1] or q.shape[2] < q.shape[1]
        hint = "; if they are (batch, tokens, heads, head_dim), give q.transpose(1, 2), and k and v so" if swapped else ""
        raise InputError(f"the heads of q are a multiple of those of k; q has {q.shape[1]}, k {k.shape[1]}{hint}")


def _fits(checked: Checked, tokens: int) -> bool:
    try:
        check_tokens(checked.queries, tokens, checked.roles)
    except InputError:
        return False
    return True
