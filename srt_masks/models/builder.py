"""`build_model`: a spec and a few sizes -> a trainable transformer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..compiler.choice import AUTO
from ..diagnostics import InputError, did_you_mean, listing
from ..proofs.guard import hold
from ..spec import Spec
from ..values import counted
from .config import FEED_FORWARDS, POSITIONS, Config
from .transformer import SpecTransformer

ARGUMENTS = (
    "dim", "depth", "heads", "num_tokens", "dim_head", "max_positions", "key_heads", "feed_forward", "positions", "tied", "own_weights", "numbers",
    "regression", "max_slots", "backend", "order", "proofs",
)  # fmt: skip
FOREIGN = {
    "huber": "it is of a call: model(..., targets=, huber=)", "visited": "a model finds its order itself; order=\"natural\" keeps that of the layout",
    "vocab_size": "write num_tokens=", "layers": "write depth=", "n_layers": "write depth=", "num_layers": "write depth=", "num_heads": "write heads=",
    "n_heads": "write heads=", "d_model": "write dim=", "hidden_size": "write dim=", "max_seq_len": "write max_positions=", "head_dim": "write dim_head=",
    "kv_heads": "write key_heads=", "num_key_value_heads": "write key_heads=", "tie_word_embeddings": "write tied=", "rotary": 'write positions="rotary"',
    "rope": 'write positions="rotary"', "swiglu": 'write feed_forward="gated"', "in_features": "write numbers=", "input_size": "write numbers=", "input_dim": "write numbers=",
    "out_features": "write regression=", "output_size": "write regression=", "output_dim": "write regression=",
    "dropout": "dropout on attention weights is not part of the language, and the model has none", "causal": "write `attend causal` in the text",
}  # fmt: skip


def build_model(
    spec: Spec,
    *,
    dim: int,
    depth: int,
    heads: int,
    num_tokens: int | None = None,
    dim_head: int | None = None,
    max_positions: int = 2048,
    key_heads: int | None = None,
    feed_forward: str = "gelu",
    positions: str = "learned",
    tied: bool = False,
    own_weights: Iterable[str] = (),
    numbers: int | None = None,
    regression: int | None = None,
    max_slots: int = 16,
    backend: str = "auto",
    order: str = AUTO,
    proofs: str = "warn",
    **unknown: Any,
) -> SpecTransformer:
    """A pre-norm decoder whose attention, gradients, positions and loss are those of the spec.

    `num_tokens` is the size of the vocabulary, 256 for bytes; without it the model knows no tokens: `numbers=` or `embeds=` come in and the regression head
    says what it predicts. No row reads `targets=`, so that `predict token -> index` is no leak there; where they may be among what rows read, as in
    `index + 1` of a series that forecasts itself, a leak is warned of, and `assert no leak` in the text refuses it. `numbers`: how many numbers each data token
    has, beside its value in the vocabulary or alone; a linear layer embeds them.
    `dim_head` is dim / heads unless given. `key_heads` (`heads`) keys and values are shared by groups of query heads. `feed_forward` is "gelu", or
    "gated": SwiGLU with as many weights. `positions`, the ids that the text's `position` says, are "learned", from 0 to `max_positions` - 1, or
    "rotary". `tied`: the head is the token embedding. The rows of the roles of `own_weights` go through embeddings, norms, projections, feed-forwards and
    heads of their own: what is trained on them alone moves no weight of other rows. `regression`: a second head, of so many numbers, which `predict`
    trains on the `targets=` of a call. `max_slots`: of a `layout given`, the slots that each role may have. `backend` and `order` are those of `compile`:
    between the embeddings and the heads, rows of long texts stand in the order in which attention visits them, where that saves work; with
    order="natural" always in that of the layout, which is what hooks on blocks and norms may want to see (`return_hidden=` has it anyway).

    Called with x (batch, data tokens) it lays the tokens out as the spec says and returns logits or the loss, in nats; see `SpecTransformer.forward`.
    What the text claims is proved first, as `compile` does: `proofs` is "warn", "strict" or "off". Raises SpecError for a claim that does not hold,
    InputError for a size or a choice that does not fit, or a spec that describes no such model.
    """
    if not isinstance(spec, Spec):
        raise InputError(f"build_model takes a Spec; got {type(spec).__name__}")
    needed = {"dim": dim, "depth": depth, "heads": heads, "max_positions": max_positions, "max_slots": max_slots}
    dim, depth, heads, max_positions, max_slots = (counted(name, value, 1) for name, value in needed.items())
    others = {"num_tokens": num_tokens, "dim_head": dim_head, "key_heads": key_heads, "numbers": numbers, "regression": regression}
    num_tokens, dim_head, key_heads, numbers, regression = (None if value is None else counted(name, value, 1) for name, value in others.items())
    if dim_head is None:
        if dim % heads:
            raise InputError(f"dim {dim} is no multiple of heads {heads}: give dim_head=, or other sizes")
        dim_head = dim // heads
    for name in unknown:
        instead = FOREIGN.get(name) or did_you_mean(name, ARGUMENTS) or f"it takes {', '.join(ARGUMENTS)}"
        raise InputError(f"build_model has no argument `{name}`: {instead}")
    if key_heads is not None and heads % key_heads:
        raise InputError(f"heads {heads} is no multiple of key_heads {key_heads}: every key head is shared by as many query heads")
    for name, value, known in (("feed_forward", feed_forward, FEED_FORWARDS), ("positions", positions, POSITIONS)):
        if value not in known:
            raise InputError(f"{name} is {' or '.join(map(repr, known))}; got {value!r}")
    if num_tokens is None and (regression is None or tied):
        raise InputError("num_tokens= says how many tokens there are, 256 for bytes; a model without them has regression= for its one head, and tied=False")
    if not isinstance(tied, bool):
        raise InputError(f"tied is True or False; got {tied!r}")
    if positions == "rotary" and dim_head % 2:
        raise InputError(f'positions="rotary" turns pairs of numbers, so dim_head is even; got {dim_head}')
    checked = spec.checked
    if checked.keys is not None:
        raise InputError(
            "this spec has two layouts: it is the cross attention of two stacks of blocks, and a model is one; srt_masks.nn.Attention is a layer for a network of "
            "your own. As one stack: one layout of both, `layout source * n, repeat { target }`"
        )
    if checked.asks is not None:
        raise InputError(
            "where only some tokens ask (`queries where`), the states of the others come from elsewhere, and a model makes all of them: srt_masks.compile serves "
            "such a text in a network of your own. For a model in which every token asks, leave the statement out"
        )
    if not checked.data:
        raise InputError(
            f"this spec says nothing of data: say which tokens carry it; roles here: {listing(spec.roles)}. For example write `data {spec.roles[-1]}`"
        )
    if checked.position is None and not checked.queries.is_single_repeat:
        raise InputError("this layout is no single `repeat`, so the spec must say where tokens stand: for example write `position pos`")
    hold(spec, proofs, reads_targets=num_tokens is not None)
    own = _own_weights(spec, own_weights)
    sizes = Config(dim, depth, heads, num_tokens, dim_head, max_positions, key_heads, feed_forward, positions, tied, own, regression, max_slots, numbers)
    return SpecTransformer(spec, sizes, backend, order)


def _own_weights(spec: Spec, roles: Iterable[str]) -> tuple[str, ...]:
    """The roles in the order of the spec's. Raises InputError for one that the text does not have."""
    if isinstance(roles, str) or not isinstance(roles, Iterable):
        raise InputError(f'own_weights is a set of roles, such as {{"{spec.roles[0]}"}}; got {roles!r}')
    wanted = list(roles)
    for name in wanted:
        if name not in spec.roles:
            raise InputError(f"own_weights: no role is called {name!r}; {did_you_mean(str(name), spec.roles) or 'roles here: ' + listing(spec.roles)}")
    return tuple(r for r in spec.roles if r in wanted)
