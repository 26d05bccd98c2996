"""`SpecTransformer`, the model that a spec describes.

Data flows one way: data tokens (`words`) are laid out as the spec says (`laid_out`), every row of the layout embeds its role and slot, data tokens also
their value (`ends`); blocks attend by the spec (`blocks`); heads say what each row predicts (`ends`), and what that is wrong by is a loss (`losses`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ..binding import ARGUMENTS as OF_ATTENTION
from ..compiler.choice import AUTO
from ..default_device import on_the_cpu
from ..diagnostics import InputError, did_you_mean
from ..kernels.attention import Attention, compile_spec
from ..kernels.traced import is_watched
from ..reference.masks import TokenTable
from ..spec import Spec
from ..surface import tokens as table_of
from ..values import counted
from .blocks import Block, initialise
from .config import Config
from .ends import Ends
from .groups import Groups
from .laid_out import LaidOut, Layouter
from .losses import Loss, Predicted, Sums, check_huber, cross_entropy, huber_error, predicted, squared_error
from .positions import Rotation
from .visiting import visited_alike
from .words import read_words

# Of a call, beside the flags.
ARGUMENTS = {
    "embeds",
    "numbers",
    "lengths",
    "padding",
    "given",
    "targets",
    "huber",
    "inputs",
    "return_loss",
    "return_parts",
    "return_hidden",
    "return_values",
    "all_rows",
}


class SpecTransformer(Ends):
    """A trainable transformer from a spec; see `build_model`."""

    def __init__(self, spec: Spec, config: Config, backend: str = "auto", order: str = AUTO):
        super().__init__(config)
        self.spec, self.config = spec, config
        self.attend = compile_spec(spec, heads=config.heads, layers=config.depth, backend=backend, order=order)
        # What a text calls as a call does, by name: the call's is meant.
        self._taken = ARGUMENTS & {*spec.inputs, *spec.params}
        self.layouter = Layouter(spec.checked, self.attend.compiled.program, config.heads, config.depth)
        slots = _slots_of_roles(spec, config.max_slots)
        # What says which row is what stays on the CPU, wherever the weights are, and is no state.
        self.first_slot = torch.tensor([0, *accumulate(slots)][:-1], device="cpu")
        self.slots = torch.tensor(slots, device="cpu")
        self.set_of_role = torch.tensor([config.own_weights.index(r) + 1 if r in config.own_weights else 0 for r in spec.roles], device="cpu")
        self.slot_embedding = nn.Embedding(max(1, sum(slots)), config.dim)
        own = len(config.own_weights)
        hidden_rules = spec.checked.has_hidden_rules
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.dim_head, hidden_rules, config.key_heads, config.feed_forward, own) for _ in range(config.depth)
        )
        self.own = nn.ModuleList(Ends(config) for _ in range(own))
        initialise(self, config.depth)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}  # of a model that is built anew

    @property
    def ends(self) -> list[Ends]:
        """The sets of embeddings, last norms and heads: the one that is shared, then those of roles with weights of their own."""
        return [self, *self.own]  # type: ignore[list-item]

    # ------------------------------------------------------------------------------------------ rows

    def rows_for(self, data_tokens: int) -> int:
        """Rows of a sequence with so many data tokens. Raises InputError where the layout has no such sequence."""
        return self.layouter.rows_for(data_tokens)

    @on_the_cpu
    def tokens(self, data_tokens: int | None = None, *, given: Any = None, inputs: Mapping[str, Any] | None = None, **inputs_and_params: Any) -> TokenTable:
        """Which rows are what, of one sequence of so many data tokens: role, slot, index, position id, target and weight of each, as `srt_masks.tokens`.

        `data_tokens` is left out where the layout has one length, or is `given`. Raises InputError.
        """
        layout, steps = self.spec.checked.queries, None
        if layout.rows_per_step and data_tokens is None:
            raise InputError(f"how many data tokens? The layout `{layout.describe(self.spec.roles)}` repeats: model.tokens(32)")
        if data_tokens is not None:
            data_tokens = counted("data_tokens", data_tokens, 0)
            rows = self.rows_for(data_tokens)
            steps = layout.steps(rows) if layout.rows_per_step else None
        named = {**(inputs or {}), **inputs_and_params}
        return table_of(self.spec, steps=steps, heads=self.config.heads, layers=self.config.depth, inputs=named, given=given)

    def lay_out(
        self, x: Any, *, embeds: Any = None, numbers: Any = None, lengths: Any = None, padding: str = "right", given: Any = None,
        inputs: Mapping[str, Any] | None = None, **inputs_and_params: Any,
    ) -> LaidOut:  # fmt: skip
        """A call, checked, and what each of its rows is. Raises InputError."""
        return self.layouter.lay_out(read_words(x, embeds, numbers, lengths, padding, self.config), given, inputs, inputs_and_params)

    # ------------------------------------------------------------------------------------------ passes

    def forward(
        self, x: Tensor | None = None, *, embeds: Tensor | None = None, numbers: Tensor | None = None, lengths: Sequence[int] | Tensor | None = None,
        padding: str = "right", given: Any = None, targets: Tensor | None = None, huber: float | None = None, return_loss: bool = False,
        return_parts: bool = False, return_hidden: bool = False, return_values: bool = False, all_rows: bool = False,
        inputs: Mapping[str, Any] | None = None, **inputs_and_params: Any,
    ) -> Any:  # fmt: skip
        """Logits (batch, predicted data tokens, num_tokens), each from the last row that predicts that token; with `all_rows` one for every row of the
        layout, in its order.

        x (batch, data tokens) whole numbers; `numbers` (batch, data tokens, numbers), floating, of a model built with numbers=. What a model embeds is
        added, and all of it is given: but for `embeds` (batch, data tokens, dim), which stand in the place of either or both, or are added too. `lengths`
        counts the data tokens of each row of these, behind which, or with `padding="left"` in front of which, they may hold anything; inputs along the
        layout are padded on the same side. A short row comes to what it comes to alone, and what is padding in a result is 0. `given` is that of a
        `layout given`.

        `return_values`: what the regression head says, (batch, predicted data tokens, regression), in place of logits. `return_hidden`: the final
        normalised state of every row, (batch, rows, dim). `return_loss`: the loss, a scalar in nats; `return_parts`: a `Loss`; with `targets`
        (batch, data tokens, regression), the numbers each data token stands for, the squared error of the regression head; with `huber` Huber's, which
        is half the squared one up to an error of `huber`, and straight beyond. Raises InputError.
        """
        given_now = {"embeds": embeds, "numbers": numbers, "targets": targets, "huber": huber, "lengths": lengths, "given": given}
        for name in self._taken:
            if given_now.get(name) is not None and name not in (inputs or {}):
                kind = "an input" if name in self.spec.inputs else "a param"
                raise InputError(f"`{name}` is an argument of the call, and {kind} of this text: give that of the text as inputs={{'{name}': ...}}")
        for name in inputs_and_params:
            known = {*self.spec.inputs, *self.spec.params, *OF_ATTENTION}  # of those of attention more is said where they are bound
            if name not in known and (near := did_you_mean(name, sorted(ARGUMENTS))):
                raise InputError(f"a call of a model has no argument `{name}`: {near}")
        if huber is not None:
            huber = check_huber(huber, targets)
        if return_hidden and targets is not None:
            raise InputError("targets= are of a loss, and return_hidden=True asks for states: leave one of them out")
        laid = self.lay_out(x, embeds=embeds, numbers=numbers, lengths=lengths, padding=padding, given=given, inputs=inputs, **inputs_and_params)
        if return_hidden:
            return laid.words.to_caller(self.states(laid), laid.own)
        if return_loss or return_parts or targets is not None:
            loss = self._loss(laid, targets, huber)
            return loss if return_parts else loss.loss
        read = self._head(return_values)
        if all_rows:
            sets = self._sets(laid)
            said = Groups.of(sets.flatten(), len(self.ends), laid.words.any.device).apply(read, self.states(laid).flatten(0, 1)).unflatten(0, sets.shape)
            return laid.words.to_caller(said, laid.own)
        if not self.spec.checked.predictions:
            raise InputError(f"this spec has no `predict`, so no row is trained to predict: {self._how_to_predict}, or give all_rows=True")
        last = self.predicted(laid).lasts
        counts = last.batch.bincount(minlength=laid.words.batch).tolist()
        if laid.words.lengths is None and not _alike(last.target.split(counts)):
            raise InputError("an input with a batch axis decides what is predicted, so rows differ: ask for all_rows=True, or for model.log_probs")
        said = self._say(read, laid, last)
        place = torch.cat([torch.arange(n, device="cpu") for n in counts]) if counts else last.target
        out = said.new_zeros(laid.words.batch, max(counts, default=0), said.shape[-1])
        out = out.index_put((last.batch.to(said.device), place.to(said.device)), said)
        return laid.words.to_caller(out, counts)

    def log_probs(self, x: Tensor, **options: Any) -> Tensor:
        """The logarithm, in nats, of the probability of each data token, by the last row that predicts it: (batch, data tokens), float32 (float64 for a
        float64 model). NaN where no row predicts it, and where x is padding: `nansum` is that of a text. `options` are those of a call."""
        laid = self.lay_out(x, **options)
        last = self.predicted(laid).lasts
        error = cross_entropy(self._say(self._head(False), laid, last), self._labels(laid, last))
        shift = torch.tensor([laid.words.count - n if laid.words.left else 0 for n in laid.words.own], dtype=torch.int64, device="cpu")
        places = (last.batch.to(error.device), (last.target + shift[last.batch]).to(error.device))
        return error.new_full((laid.words.batch, laid.words.count), torch.nan).index_put(places, -error)

    def next_logits(self, x: Tensor, **options: Any) -> Tensor:
        """Logits (batch, num_tokens) of the data token that follows each row of x, by the last row of these that predicts it: rows in front of it, in its
        own step, are none of them. `options` are those of a call. Raises InputError where none does."""
        laid = self.lay_out(x, **options)
        rows = laid.rows
        follows = (rows.target.expand(laid.words.batch, -1) == torch.tensor(laid.words.own, device="cpu")[:, None]) & rows.live
        if not bool(follows.any(1).all()):
            raise InputError(f"no row of this spec predicts the token that comes next{self._if_in_front()}")
        row = follows.shape[1] - 1 - follows.flip(1).int().argmax(1)
        return self.logits_of(laid, self.states(laid), torch.arange(laid.words.batch, device="cpu"), row)

    def _if_in_front(self) -> str:
        """What to do where rows of a step that stand in front of its data predict: a whole pass over what is known has not begun the step."""
        checked = self.spec.checked
        step = [role for s in checked.queries.sections if s.count is None for role, _ in s.rows]
        first = next((n for n, role in enumerate(step) if role in checked.data), 0)
        in_front = [role for role in step[:first] if any(p.role == role for p in checked.predictions)]
        if not in_front:
            return ": it cannot continue a text"
        return f" but those in front of it, in its own step (`{self.spec.roles[in_front[0]]}`): srt_masks.sample has them too, by its cache"

    def logits_of(self, laid: LaidOut, state: Tensor, batch: Tensor, row: Tensor) -> Tensor:
        """What the head says of some rows, (n, num_tokens): of their row of the batch and their place in it, each (n,). `state` is what `states` gave."""
        return self._read(self._head(False), state, self._sets(laid), batch, row)

    def states(self, laid: LaidOut, attend: Callable[..., Tensor] | None = None) -> Tensor:
        """The final normalised state of every row, (batch, rows, dim); of padding anything. `attend` stands in for the model's own attention, where
        some rows alone are laid out and others attend elsewhere."""
        visiting = self._as_visited(laid) if attend is None else laid
        state = self._states(visiting, attend)
        return state if visiting is laid else state.index_select(1, visiting.places_of(torch.arange(state.shape[1], device="cpu")).to(state.device))

    def _as_visited(self, laid: LaidOut) -> LaidOut:
        """The rows in the order in which every layer visits them, if that is one and not the text's: no layer gathers them then."""
        attend = self.attend
        # What somebody has put in its place is given rows as the text has them; so is what torch watches, which is to see no plan.
        if not isinstance(attend, Attention) or not attend.may_reorder(laid.rows.role.shape[1]) or laid.keep is not None or is_watched(laid.words.any):
            return laid
        visited = visited_alike(attend, self.config.depth, *self.stand_ins(laid), laid.beside)
        return laid if visited is None else laid.in_order(visited)

    def stand_ins(self, laid: LaidOut) -> tuple[Tensor, Tensor]:
        """q and k of a call as its plans know them, by shape, dtype and device: they hold one number."""
        words, config, dtype = laid.words, self.config, self.slot_embedding.weight.dtype
        device = words.any.device
        if torch.is_autocast_enabled(device.type) and dtype is torch.float32:
            dtype = torch.get_autocast_dtype(device.type)
        one = torch.empty(1, dtype=dtype, device=device)
        q, k = (one.expand(words.batch, heads, laid.rows.role.shape[1], config.dim_head) for heads in (config.heads, config.key_heads or config.heads))
        return q, k

    def _states(self, laid: LaidOut, attend: Callable[..., Tensor] | None) -> Tensor:
        """The same, in the order in which the rows come."""
        sets = self._sets(laid)
        groups = Groups.of(sets.flatten(), len(self.ends), laid.words.any.device)
        state = self._embedded(laid, sets, groups)
        of_layer = self._attend(laid, state, self.attend if attend is None else attend)
        for number, block in enumerate(self.blocks):
            # A block of one set of weights asks for nothing of groups.
            state = block(state, of_layer(number), groups) if self.own else block(state, of_layer(number))
        return groups.apply([e.norm for e in self.ends], state.flatten(0, 1)).unflatten(0, sets.shape)

    def _attend(self, laid: LaidOut, state: Tensor, attention: Callable[..., Tensor]) -> Callable[[int], Callable[..., Tensor]]:
        """Attention of each layer, positions rotated in where that is how they come in."""
        rotate = None
        if self.config.positions == "rotary":
            rotate = Rotation.of(laid.rows.position, self.config.dim_head, state.dtype, state.device)

        def of_layer(number: int) -> Callable[..., Tensor]:
            def attend(q: Tensor, k: Tensor, v: Tensor, **twins: Any) -> Tensor:
                if rotate is not None:
                    q, k = rotate(q), rotate(k)
                    twins = {n: rotate(t) if n == "hidden_k" else t for n, t in twins.items()}
                if laid.keep is not None:
                    k, v = laid.keep(number, k, v)
                    # Nothing is taught here, so the twins of keys and values are these.
                    twins = {n: k if n == "hidden_k" else v for n in twins}
                return attention(q, k, v, layer=number, **laid.beside, **twins)

            return attend

        return of_layer

    # ------------------------------------------------------------------------------------------ embeddings

    def _embedded(self, laid: LaidOut, sets: Tensor, groups: Groups) -> Tensor:
        """(batch, rows, dim): of role and slot, of the position, and of what data tokens hold."""
        words, device = laid.words, laid.words.any.device
        state = self.slot_embedding(self._kind(laid).to(device)).expand(words.batch, -1, -1)
        if self.config.positions == "learned":
            position = self.check_positions(laid.rows.position).to(device)
            if self.own:
                tables = [e.position_embedding for e in self.ends]
                state = state + groups.apply(tables, position.expand(words.batch, -1).flatten()).unflatten(0, sets.shape)  # type: ignore[arg-type]
            else:
                state = state + self.position_embedding(position)  # type: ignore[misc]
        batch, row, index = laid.places
        rows, data = (batch.to(device), row.to(device)), (batch.to(device), index.to(device))
        of_data = Groups.of(sets[batch, row], len(self.ends), device)
        if words.x is not None:
            embedded = of_data.apply([e.token_embedding for e in self.ends], words.x[data])  # type: ignore[arg-type]
            state = state.index_put(rows, embedded, accumulate=True)
        if words.numbers is not None:
            embedded = of_data.apply([e.number_embedding for e in self.ends], words.numbers[data].to(state.dtype))  # type: ignore[arg-type]
            # Autocast, which leaves embeddings alone, has linear layers say less exactly.
            state = state.index_put(rows, embedded.to(state.dtype), accumulate=True)
        if words.embeds is not None:
            state = state.index_put(rows, words.embeds[data].to(state.dtype), accumulate=True)
        return state

    def _kind(self, laid: LaidOut) -> Tensor:
        """The number of role and slot of each row, (batch or 1, rows). Raises InputError for a slot that the model has not learnt."""
        rows = laid.rows
        if self.spec.checked.queries.given is not None and bool((rows.live & (rows.slot >= self.slots[rows.role])).any()):
            raise InputError(
                f"given['slot'] goes up to {int(rows.slot[rows.live].max())}; this model has {self.config.max_slots} slots of each role: build it with a larger max_slots"
            )
        return self.first_slot[rows.role] + rows.slot

    def name_of(self, kind: int) -> str:
        """A kind of row in words: its role, and its slot where there are several."""
        # Of roles that begin at one number, all but the last have no slot.
        role = int((self.first_slot <= kind).sum()) - 1
        return f"{self.spec.roles[role]}[{kind - int(self.first_slot[role])}]" if int(self.slots[role]) > 1 else self.spec.roles[role]

    def _sets(self, laid: LaidOut) -> Tensor:
        """The set of weights of each row, (batch, rows), on the CPU."""
        return self.set_of_role[laid.rows.role].expand(laid.words.batch, -1)

    def check_positions(self, position: Tensor) -> Tensor:
        """The same. Raises InputError for one that the model has not learnt."""
        most = self.config.max_positions
        if self.config.positions == "learned" and position.numel() and (int(position.max()) >= most or int(position.min()) < 0):
            raise InputError(
                f"positions run from {int(position.min())} to {int(position.max())}; this model learned 0 to {most - 1}: build it with a larger max_positions, "
                'or with positions="rotary"'
            )
        return position

    # ------------------------------------------------------------------------------------------ heads and losses

    def _head(self, values: bool) -> list[Callable[[Tensor], Tensor]]:
        """The head of every set of weights."""
        if values and self.config.regression is None:
            raise InputError("this model has no regression head: build it with regression=, the numbers that each row predicts")
        if not values and self.config.num_tokens is None:
            raise InputError("this model has no token head (num_tokens is None): ask for return_values=True, or give targets= for its loss")
        return [e.values if values else e.logits for e in self.ends]

    def predicted(self, laid: LaidOut) -> Predicted:
        """The rows that are trained on a data token. Raises InputError for a text without `predict`."""
        if not self.spec.checked.predictions:
            raise InputError(f"this spec has no `predict`: it says nothing of a loss. For example {self._how_to_predict}")
        return predicted(laid.rows, self._kind(laid), laid.words.own)

    @property
    def _how_to_predict(self) -> str:
        return f"write `predict {self.spec.roles[self.spec.checked.data[-1]]} -> index + 1`"

    def _say(self, read: Sequence[Callable[[Tensor], Tensor]], laid: LaidOut, rows: Predicted, attend: Callable[..., Tensor] | None = None) -> Tensor:
        """What the head says of some rows, (n, ...)."""
        visiting = self._as_visited(laid) if attend is None else laid
        return self._read(read, self._states(visiting, attend), self._sets(visiting), rows.batch, visiting.places_of(rows.row))

    def _read(self, read: Sequence[Callable[[Tensor], Tensor]], state: Tensor, sets: Tensor, batch: Tensor, row: Tensor) -> Tensor:
        groups = Groups.of(sets[batch, row], len(self.ends), state.device)
        return groups.apply(read, state[batch.to(state.device), row.to(state.device)])

    def _labels(self, laid: LaidOut, rows: Predicted) -> Tensor:
        if laid.words.x is None:
            raise InputError("what is predicted are the tokens of x: give x= beside embeds=, or targets= for the regression head")
        return laid.words.x[rows.batch.to(laid.words.x.device), rows.target.to(laid.words.x.device)]

    def _loss(self, laid: LaidOut, targets: Tensor | None, huber: float | None) -> Loss:
        rows = self.predicted(laid)
        if not len(rows.row):
            raise InputError(f"nothing to predict: none of the {laid.words.count} data tokens of a row is a target; give longer rows")
        return self.sums(laid, rows, targets, huber).loss(self.name_of)

    def sums(
        self, laid: LaidOut, rows: Predicted, targets: Tensor | None = None, huber: float | None = None, attend: Callable[..., Tensor] | None = None
    ) -> Sums:
        """What the loss of some predicting rows is made of; `attend` as in `states`. Raises InputError for targets that do not fit."""
        kinds = self.slot_embedding.num_embeddings
        if targets is None:
            head = self._head(False)
            labels = self._labels(laid, rows)
            return Sums.of(cross_entropy(self._say(head, laid, rows, attend), labels), rows, kinds)
        head, wanted = self._head(True), (laid.words.batch, laid.words.count, self.config.regression)
        if not isinstance(targets, Tensor) or tuple(targets.shape) != wanted or not targets.is_floating_point():
            came = f"{str(targets.dtype).removeprefix('torch.')} of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
            raise InputError(f"targets is (batch, data tokens, regression) = {wanted}, floating; got {came}")
        targets = laid.words.to_front(targets, laid.words.own)
        wanted_of_rows = targets[rows.batch.to(targets.device), rows.target.to(targets.device)]
        said = self._say(head, laid, rows, attend)
        return Sums.of(squared_error(said, wanted_of_rows), rows, kinds, None if huber is None else huber_error(said, wanted_of_rows, huber))


def of_build_model(model: Any, asks: str) -> SpecTransformer:
    """The model, out of what torch.compile puts round it. Raises InputError, in which `asks` says who wants one, for anything else."""
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, SpecTransformer):
        return model
    inner = getattr(getattr(model, "module", None), "_orig_mod", getattr(model, "module", None))
    hint = ", round one: give its .module" if isinstance(inner, SpecTransformer) else ""
    raise InputError(f"{asks} takes a model of build_model; got {type(model).__name__}{hint}")


def _alike(parts: Sequence[Tensor]) -> bool:
    return all(torch.equal(parts[0], p) for p in parts[1:])


def _slots_of_roles(spec: Spec, max_slots: int) -> list[int]:
    """Slots of each role: the most that one step of any section has; of a layout that is given, `max_slots`."""
    if spec.checked.queries.given is not None:
        return [max_slots] * len(spec.roles)
    most = [0] * len(spec.roles)
    for section in spec.checked.queries.sections:
        here = [0] * len(spec.roles)
        for role, count in section.rows:
            here[role] += count
        most = [max(a, b) for a, b in zip(most, here, strict=True)]
    return most
