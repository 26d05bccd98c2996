"""The spec of a model, kept in its config: `save_pretrained` writes it, `from_pretrained` brings it back."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ...diagnostics import BackendError, InputError, Source
from ...grammar.parser import read
from ...grammar.syntax import Attend
from ...kernels.attention import Attention, compile_spec
from ...spec import Spec, parse
from ...surface import compile

KEY = "srt_masks"  # of the config, and the name the attention is registered under
KEPT = ("text", "params", "filename", "backend")


class Limits(NamedTuple):
    """What a model asks of its mask beside who is past and who is future, in rows: `window` back from the query (its own row among them), as
    far on both sides (`around`, not counting its own), the same `chunk`. A tuple, as torch.compile makes no frozen dataclass."""

    window: int | None = None
    around: int | None = None
    chunk: int | None = None


class Declared(NamedTuple):
    """An input, as the text declares it; `extents` are those without a batch axis."""

    text: str
    axes: tuple[str, ...]
    extents: int


class Served(NamedTuple):
    """An attention, and what has to be known of its spec to call it."""

    attend: Attention
    inputs: dict[str, Declared]
    params: tuple[str, ...]
    speaks_of_layers: bool
    rows_per_step: int
    fixed: int


_SERVED: dict[tuple[Any, ...], Served] = {}
MOST_SERVED = 64


def set_spec(model: Any, spec: Spec, *, backend: str = "auto") -> Any:
    """Makes the attention of a model of `transformers` follow the spec, and returns the model.

    The spec is written into the config of its decoder, so that `save_pretrained` saves it; `from_pretrained(path,
    attn_implementation="srt_masks")` brings both back. A config alone may be given, too, for `from_config`. `backend` as for `srt_masks.compile`. Raises
    InputError for a spec that such a model cannot follow, SpecError for one whose claims do not hold, BackendError for a model that follows none.
    """
    if not isinstance(spec, Spec):
        raise InputError(f"set_spec takes a model and a Spec; got {type(spec).__name__}. For a text: srt_masks.parse(text)")
    config = getattr(model, "config", model)
    if not hasattr(config, "get_text_config"):
        raise InputError(f"set_spec takes a model or a config of transformers; got {type(model).__name__}")
    check_usable(spec)
    if getattr(config, "is_encoder_decoder", False):
        raise BackendError(
            f"{type(model).__name__} is an encoder, and a decoder that looks at it: a spec is of one sequence, and cross attention is not served in models of "
            "transformers. Take a decoder or an encoder alone"
        )
    decoder = config.get_text_config(decoder=True)
    if model is not config:
        _check_asks(model, decoder)
    compile(spec, layers=decoder.num_hidden_layers, backend=backend)  # refuses what is wrong here and now, its claims too
    setattr(decoder, KEY, {"text": spec.text, "params": spec.params, "filename": spec.filename, "backend": backend})
    if model is not config:
        from .hook import NAME, register

        register()
        model.set_attn_implementation(NAME)
    return model


def _check_asks(model: Any, decoder: Any) -> None:
    """Raises BackendError for a model whose layers would not ask for the attention that is set: transformers only logs it, and goes on with the model's own."""
    name = type(model).__name__
    if not any("Attention" in type(module).__name__ for module in model.modules()):
        raise BackendError(f"{name} has no attention layers, so that a spec would change nothing of it")
    for module in model.modules():
        if getattr(module, "config", None) is decoder and hasattr(module, "set_attn_implementation") and not module._can_set_attn_implementation():
            raise BackendError(
                f"{name} attends by code of its own in the installed transformers, and asks for no attention that is registered: the spec would be ignored. "
                "Take a model whose layers do (Llama, Qwen, Gemma, Mistral, GPT-2, GPT-NeoX and most newer ones)"
            )


def spec_of(model: Any) -> Spec:
    """The spec of a model, or of a config. Raises InputError where it has none."""
    config = getattr(model, "config", model)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config(decoder=True)
    kept = _kept(config)
    return parse(kept["text"], params=kept["params"], filename=kept["filename"])


def served_by(config: Any, limits: Limits) -> Served:
    """What a layer of this config attends by: one for all layers, and all models, of the same text, params and limits."""
    key = _key(config, limits)
    prepare(*key)
    return _SERVED[key]


def _kept(config: Any) -> dict[str, Any]:
    kept = getattr(config, KEY, None)
    if kept is None:
        raise InputError("this model has no spec: srt_masks.huggingface.set_spec(model, spec) gives it one, and save_pretrained saves it")
    if not isinstance(kept, dict) or set(kept) != set(KEPT) or not isinstance(kept["params"], dict):
        raise InputError(f"`{KEY}` of the config holds {', '.join(KEPT)}, as set_spec writes them; got {kept!r:.120}")
    return kept


def _key(config: Any, limits: Limits) -> tuple[Any, ...]:
    kept = _kept(config)
    return kept["text"], tuple(kept["params"].items()), kept["filename"], kept["backend"], config.num_hidden_layers, limits


@torch.compiler.assume_constant_result  # or torch.compile would read the text along with the model
def prepare(text: str, params: tuple[tuple[str, Any], ...], filename: str, backend: str, layers: int, limits: Limits) -> bool:
    """Sees to it that `served_by` finds what these say."""
    key = (text, params, filename, backend, layers, limits)
    if key not in _SERVED:
        spec = parse(text, params=dict(params), filename=filename)
        check_usable(spec)
        checked = spec.checked
        while len(_SERVED) >= MOST_SERVED:
            _SERVED.pop(next(iter(_SERVED)))
        _SERVED[key] = Served(
            compile_spec(limited(spec, limits), layers=layers, backend=backend),
            {i.name: Declared(str(i), i.axes, len(i.axes) + len(i.sizes)) for i in checked.inputs},
            tuple(spec.params), checked.speaks_of_layers, checked.queries.rows_per_step, checked.queries.fixed,
        )  # fmt: skip
    return True


def check_usable(spec: Spec) -> None:
    """Raises InputError where a model of transformers has not what the spec needs."""
    checked = spec.checked
    if checked.keys is not None:
        raise InputError("this spec has two layouts, and the layers of these models one sequence: cross attention is not served")
    if checked.asks is not None:
        raise InputError("under `queries where` only some tokens ask, and in these models all do: leave the statement out")
    if checked.queries.given is not None:
        raise InputError("a `layout given` comes with each call, and these models have no place for it: write the layout in the text")
    if checked.has_hidden_rules:
        raise InputError("`stop hidden` needs k and v projected twice, and these models project them once: write `stop k, v`, or use srt_masks.build_model")


def limited(spec: Spec, limits: Limits) -> Spec:
    """The spec with limits beside its own mask. Their sizes are value params, so that two sizes share what is compiled."""
    asked = {
        "window": (limits.window, "q.pos - k.pos < {}"),
        "around": (limits.around, "abs(q.pos - k.pos) <= {}"),
        "chunk": (limits.chunk, "q.pos // {0} == k.pos // {0}"),
    }
    sizes, conditions = {}, []
    for kind, (size, condition) in asked.items():
        if size is not None:
            name = f"model_{kind}"
            while name in spec.text:
                name += "_"
            sizes[name] = size
            conditions.append(condition.format(name))
    if not sizes:
        return spec
    statements = read(Source(spec.text, spec.filename)).tree.statements
    span = next(s.span for s in statements if isinstance(s, Attend))
    own = spec.text[span.start : span.end].removeprefix("attend")
    head = "".join(f"param {name} = {size}\n" for name, size in sizes.items())
    # The closing bracket stands on a line of its own: a comment may end the line before.
    text = f"{head}{spec.text[: span.start]}attend ({own}\n) and {' and '.join(conditions)}{spec.text[span.end :]}"
    return parse(text, params=spec.params, filename=spec.filename)
