"""`from_config`: a Hugging Face config -> a spec of who attends to whom in every layer.

Settings are read by name, so transformers need not be installed. A setting that may shape the mask and is not understood is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..default_device import on_the_cpu
from ..diagnostics import InputError, Source, did_you_mean
from ..grammar.formatter import format_text
from ..spec import Spec, parse
from .families import ENCODERS, EVERY, LIMITED, NEVER_CAUSAL, Layers, Reach

# A name that may be about who attends to whom.
SHAPING = re.compile(
    r"attn|attention|window|chunk|causal|bidirect|prefix|sliding|layer_types?$|block|global|local|sparse|dilat|random|stride|landmark|sink|rope_layer"
    r"|index_top|lsh|hash|mamba|ssm|rwkv|recurren|linear_(key|num|conv)|conv_|memory|retriev"
)
# Names that look so and are about something else: sizes, biases, dropout, numbers of experts, how scores are scaled, how code runs.
NEUTRAL = re.compile(
    r"dropout|_drop|pdrop|bias|heads?$|head_(dim|size)|hidden_size|implementation|multiplier|softcap|scalar|scale|temperature|output_attentions|softmax|upcast"
    r"|chunk_size_feed_forward|num_local_experts|mlp_layer_types|sparse_step|sparse_pred|deterministic_flash|reference_compile|parallel_attn|attn_factor"
    r"|_attn_|attention_k_eq_v|router|mask_token|auxiliary|ffn|moe|embedding_layer|local_rope|global_rope|rope_theta|rope_local|pad_|norm|use_cache"
)
READ = {
    "layer_types", "sliding_window", "use_sliding_window", "max_window_layers", "sliding_window_pattern", "_sliding_window_pattern", "attention_chunk_size",
    "no_rope_layers", "no_rope_layer_interval", "local_attention", "global_attn_every_n_layers", "is_causal", "is_decoder", "use_bidirectional_attention",
    "attention_types", "attention_layers", "window_size",
}  # fmt: skip
SCORES = ("attn_logit_softcapping", "alibi", "use_alibi")  # they change scores, and leave the mask alone
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
NO_ATTENTION = ("falcon_mamba", "fnet", "mamba", "mamba2", "rwkv", "xlstm")
PARTS = ("text_config", "vision_config", "audio_config", "decoder", "encoder")


@on_the_cpu
def from_config(config: Any, *, causal: bool | None = None) -> Spec:
    """Who attends to whom in the model that a Hugging Face config describes, as a text: sliding windows, layer types, chunks, prefixes.

    `config` is a transformers config or a mapping with its settings (a config.json). The spec speaks of layers where they differ: compile it with
    `layers=config.num_hidden_layers`. `causal` says whether tokens see only what is before them, for a `model_type` that is not known.
    Padding is no part of it: give `lengths=` at the call. Changes of scores (soft caps, ALiBi) are named in a comment and are no part of it either.
    Raises InputError for a setting that may shape the mask and is not understood, for layers without attention, and for a config of several models.
    """
    return spec_of(config, causal)


def is_config(other: Any) -> bool:
    """Whether something is a config: it says what model it is of, or it is a mapping."""
    return isinstance(other, Mapping) or (not callable(other) and isinstance(getattr(other, "model_type", None), str))


def layers_of(config: Any) -> int:
    """How many layers a config has."""
    return _number_of_layers(_settings(config))


def spec_of(config: Any, causal: bool | None = None) -> Spec:
    if not is_config(config):
        hint = ". Of a config.json: json.load(file); of a name: transformers.AutoConfig.from_pretrained(name)" if isinstance(config, str | Path) else ""
        raise InputError(f"a Hugging Face config is wanted, or a mapping with its settings; got {type(config).__name__}{hint}")
    settings = _settings(config)
    kind = str(settings.get("model_type") or "config")
    text = _text(read_layers(settings, causal, isinstance(config, Mapping)), kind, [n for n in SCORES if settings.get(n)])
    return parse(format_text(Source(text)), filename=f"<{kind}>")


def _settings(config: Any) -> dict[str, Any]:
    if isinstance(config, Mapping):
        return dict(config)
    found = dict(config.to_dict()) if hasattr(config, "to_dict") else {n: v for n, v in vars(config).items() if not n.startswith("_")}
    # The object's own word goes before what it writes to a file, which may be in other units.
    return {
        n: getattr(config, n, v) for n, v in {**found, "sliding_window": None, "model_type": None}.items() if n in found or getattr(config, n, None) is not None
    }


# ------------------------------------------------------------------------------------------------ settings -> layers


def read_layers(settings: Mapping[str, Any], causal: bool | None, is_file: bool) -> Layers:
    """The mask of every layer. `is_file`: settings are those of a config.json, as they are before the config's own code has seen them."""
    kind = settings.get("model_type")
    prefix = kind == "paligemma"
    parts = [p for p in PARTS if settings.get(p) is not None]
    if parts and not prefix:
        raise InputError(
            f"this is the config of several models ({', '.join(parts)}), and which tokens are of which decides the mask: give one of them, as config.{parts[0]}"
        )
    if settings.get("is_encoder_decoder"):
        raise InputError(
            "this is the config of an encoder and a decoder, which attend by three masks: write a text for each by hand, and hold it to the model's own "
            "with srt_masks.equivalent; a decoder alone says is_encoder_decoder=False"
        )
    if kind in NO_ATTENTION:
        raise InputError(f"layers of {kind!r} have no attention, and so no mask")
    if prefix and settings.get("text_config") is not None:
        text = _settings(settings["text_config"])
        settings = {**text, "model_type": text.get("model_type") or kind, "use_bidirectional_attention": None}
    _refuse_unknown(settings)
    number = _number_of_layers(settings)
    reaches = _reaches(settings, number)
    is_causal = _is_causal(settings, causal)
    _check_said(settings)
    window, chunk = None, None
    if Reach.SLIDING in reaches:
        window = _window(settings, is_causal, is_file)
    if Reach.CHUNKED in reaches:
        chunk = _whole(settings, "attention_chunk_size")
    return Layers(tuple(reaches), is_causal, window, chunk, prefix)


def _refuse_unknown(settings: Mapping[str, Any]) -> None:
    every = EVERY.get(str(settings.get("model_type")))
    # Of a family that is known, settings that are there for all its models and read by none are no news.
    unknown = sorted(
        n
        for n, v in settings.items()
        if v not in (None, False, 0, [], {}, "") and isinstance(n, str) and SHAPING.search(n) and not NEUTRAL.search(n) and n not in READ
    )
    if every is None or every.__name__ != "_neo":
        unknown += [n for n in ("attention_types", "attention_layers", "window_size") if settings.get(n)]
    if unknown:
        said = ", ".join(f"{n}={settings[n]!r}"[:60] for n in unknown)
        raise InputError(
            f"this config says {said}, and what that does to the mask is not known here. Write the text by hand (docs/language.md) and hold it to the model's "
            "own mask with srt_masks.equivalent; or leave out of the config what does not shape the mask"
        )


def _number_of_layers(settings: Mapping[str, Any]) -> int:
    for name in LAYERS:
        if (value := settings.get(name)) is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is a whole number, 1 or more; got {value!r}")
            return value
    if isinstance(settings.get("layer_types"), list | tuple) and settings["layer_types"]:
        return len(settings["layer_types"])
    raise InputError(f"how many layers? A config says so as one of {', '.join(LAYERS)}")


def _reaches(settings: Mapping[str, Any], number: int) -> list[Reach]:
    kinds = settings.get("layer_types")
    known = {r.value: r for r in Reach}
    if kinds is not None:
        if len(kinds) != number:
            raise InputError(f"layer_types has an entry for each of the {number} layers; got {len(kinds)}")
        for i, kind in enumerate(kinds):
            if kind not in known:
                raise InputError(f"layer_types[{i}] is {kind!r}, and only attention has a mask; known are {', '.join(known)}")
        return [known[kind] for kind in kinds]
    model = settings.get("model_type")
    if model in EVERY:
        return EVERY[model](settings, number)
    if settings.get("sliding_window") is None and settings.get("attention_chunk_size") is None:
        return [Reach.FULL] * number
    hint = did_you_mean(str(model), EVERY) if model else ""
    raise InputError(
        f"which layers slide? model_type {model!r} is not known here, and the config has no layer_types: give it, one of {', '.join(known)} for each layer"
        + (f"; {hint}" if hint else "")
    )


def _check_said(settings: Mapping[str, Any]) -> None:
    """Raises InputError where a limit is left out that the models' own configs have a default for."""
    model = str(settings.get("model_type"))
    name = LIMITED.get(model)
    if name is None or name in settings or settings.get("layer_types") is not None or (model.startswith("qwen") and not settings.get("use_sliding_window")):
        return
    raise InputError(f"layers of {model!r} are limited by {name}, and this config does not say it: give it, or None where nothing is")


def _is_causal(settings: Mapping[str, Any], causal: bool | None) -> bool:
    if causal is not None:
        if not isinstance(causal, bool):
            raise InputError(f"causal is True or False; got {causal!r}")
        return causal
    kind = settings.get("model_type")
    if settings.get("use_bidirectional_attention"):
        if kind != "gemma3_text":
            raise InputError(f"use_bidirectional_attention of {kind!r} is not known here: give causal=False if all its tokens see both ways")
        return False
    if settings.get("is_causal") is not None:
        return bool(settings["is_causal"])
    if kind in ENCODERS:
        return bool(settings.get("is_decoder")) and kind not in NEVER_CAUSAL
    if kind in EVERY:
        return True
    raise InputError(f"do the tokens of model_type {kind!r} see what comes after them? It is not known here: give causal=True or causal=False")


def _window(settings: Mapping[str, Any], is_causal: bool, is_file: bool) -> int:
    """Keys on one side, the query's own among them: `abs(q.pos - k.pos) < window`."""
    kind = settings.get("model_type")
    if kind == "gpt_neo":
        return _whole(settings, "window_size", 256)
    if kind == "modernbert":
        return _whole(settings, "local_attention", 128) // 2 + 1
    size = _whole(settings, "sliding_window")
    if kind == "gemma3_text" and settings.get("use_bidirectional_attention"):
        return size // 2 + 1 if is_file else size
    return size if is_causal else size + 1


def _whole(settings: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is a whole number of tokens, 1 or more; got {value!r}")
    return value


# ------------------------------------------------------------------------------------------------ layers -> text


def _text(layers: Layers, kind: str, scores: list[str]) -> str:
    number = len(layers.reaches)
    lines = [f"# {kind}: {number} layer{'s' if number > 1 else ''}"]
    lines += [f"# {name} changes scores, not the mask: it is no part of this text" for name in scores]
    near = {Reach.SLIDING: "window(sliding)", Reach.CHUNKED: "same(pos // chunk)"}
    if layers.window is not None:
        lines.append(f"param sliding = {layers.window}  # keys on one side, the query's own among them")
    if layers.chunk is not None:
        lines.append(f"param chunk = {layers.chunk}")
    if layers.prefix:
        lines.append("input prefix: int per sequence  # how many tokens see each other")
    kinds = [r for r in Reach if r in layers.reaches]
    limit = near.get(kinds[-1], "")
    for reach in reversed(kinds[:-1]):
        where = _where([i for i, r in enumerate(layers.reaches) if r is reach], number)
        limit = f"({near[reach]} if {where} else {limit})" if reach in near else f"({where} or {limit})"
    base = "causal" if layers.causal or layers.prefix else ""
    if not base and limit.startswith("("):
        limit = limit[1:-1]
    attend = " and ".join(x for x in (base, limit) if x) or "full"
    if layers.prefix:
        # Limits are not those of the prefix, which sees all of itself.
        attend = f"({attend}) or (q.pos < prefix and k.pos < prefix)" if limit else f"{attend} or k.pos < prefix"
    lines.append("attend " + attend)
    return "\n".join(lines)


def _where(chosen: list[int], number: int) -> str:
    """Layers, in words of the language: every so many, a beginning or an end, or a list."""
    if len(chosen) == 1 and number < 4:
        return f"layer == {chosen[0]}"
    if chosen == list(range(len(chosen))) and len(chosen) > 1:
        return f"layer < {len(chosen)}"
    if chosen == list(range(chosen[0], number)):
        return f"layer >= {chosen[0]}"
    for period in range(2, 13):
        if number >= 2 * period and chosen == list(range(chosen[0], number, period)) and chosen[0] < period:
            return f"layer % {period} == {chosen[0]}"
    return f"layer in {{{', '.join(map(str, chosen))}}}" if len(chosen) > 1 else f"layer == {chosen[0]}"
