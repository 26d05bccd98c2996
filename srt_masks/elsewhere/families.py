"""How models of the Hugging Face hub attend, by `model_type`: what their code does with the settings of a config.

Windows follow that code to the token: a causal `sliding_window` of n keeps the keys with q - k < n; a bidirectional one those with |q - k| <= n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..diagnostics import InputError


class Reach(Enum):
    """How far the tokens of a layer see."""

    FULL = "full_attention"
    SLIDING = "sliding_attention"
    CHUNKED = "chunked_attention"


@dataclass(frozen=True, slots=True)
class Layers:
    """The mask of every layer of a model. `window` counts the keys on one side, the query's own included; `prefix` says that the first tokens, as
    many as an input says, see each other."""

    reaches: tuple[Reach, ...]
    causal: bool
    window: int | None = None
    chunk: int | None = None
    prefix: bool = False


Settings = Mapping[str, Any]
_Every = Callable[[Settings, int], list[Reach]]  # settings, layers -> reach of each


def _some(setting: str, default: int, is_full: Callable[[int, int], bool]) -> _Every:
    """Sliding layers, but for those that a period picks."""

    def every(settings: Settings, layers: int) -> list[Reach]:
        if settings.get("sliding_window") is None and settings.get("local_attention") is None:
            return [Reach.FULL] * layers
        period = settings.get(setting)
        period = default if period is None else period
        if isinstance(period, bool) or not isinstance(period, int) or period < 1:
            raise InputError(f"{setting} is a whole number of layers, 1 or more; got {period!r}")
        return [Reach.FULL if is_full(i, period) else Reach.SLIDING for i in range(layers)]

    return every


def _everywhere(settings: Settings, layers: int) -> list[Reach]:
    return [Reach.FULL if settings.get("sliding_window") is None else Reach.SLIDING] * layers


def _nowhere(settings: Settings, layers: int) -> list[Reach]:
    return [Reach.FULL] * layers


def _upper(settings: Settings, layers: int) -> list[Reach]:
    """Sliding from `max_window_layers` on, if `use_sliding_window`."""
    if not settings.get("use_sliding_window") or settings.get("sliding_window") is None:
        return [Reach.FULL] * layers
    first = settings.get("max_window_layers", 28)
    return [Reach.SLIDING if i >= first else Reach.FULL for i in range(layers)]


def _rotary(settings: Settings, layers: int) -> list[bool]:
    """Which layers have rotary positions: `no_rope_layers` says 1 for those that have, in spite of its name."""
    given = settings.get("no_rope_layers")
    if given:
        if len(given) != layers:
            raise InputError(f"no_rope_layers has an entry for each of the {layers} layers; got {len(given)}")
        return [bool(x) for x in given]
    interval = settings.get("no_rope_layer_interval", 4)
    return [(i + 1) % interval != 0 for i in range(layers)]


def _lower(settings: Settings, layers: int) -> list[Reach]:
    """Every second layer below `max_window_layers` slides, if `use_sliding_window`."""
    if not settings.get("use_sliding_window") or settings.get("sliding_window") is None:
        return [Reach.FULL] * layers
    first = settings.get("max_window_layers", 28)
    return [Reach.SLIDING if i % 2 == 0 and i < first else Reach.FULL for i in range(layers)]


def _if_used(settings: Settings, layers: int) -> list[Reach]:
    return _everywhere(settings, layers) if settings.get("use_sliding_window") else [Reach.FULL] * layers


def _chunked(settings: Settings, layers: int) -> list[Reach]:
    chunk = settings.get("attention_chunk_size")
    return [Reach.CHUNKED if rotary and chunk is not None else Reach.FULL for rotary in _rotary(settings, layers)]


def _without_rotary(settings: Settings, layers: int) -> list[Reach]:
    sliding = settings.get("use_sliding_window") and settings.get("sliding_window") is not None
    return [Reach.SLIDING if sliding and not rotary else Reach.FULL for rotary in _rotary(settings, layers)]


def _lettered(settings: Settings, layers: int) -> list[Reach]:
    """EXAONE 4: every so many layers, or letters, L sliding and G full, repeated; with letters the last layer is full."""
    pattern = settings.get("sliding_window_pattern", 4)
    if isinstance(pattern, str):
        raise InputError("sliding_window_pattern in letters is not read; give layer_types, which the config works out of it")
    return _some("sliding_window_pattern", 4, lambda i, period: (i + 1) % period == 0)(settings, layers)


def _neo(settings: Settings, layers: int) -> list[Reach]:
    """GPT-Neo: [[["global", "local"], 12]], kinds of layers and how often they repeat."""
    kinds = settings.get("attention_layers") or [kind for kinds, count in settings["attention_types"] for _ in range(count) for kind in kinds]
    known = {"global": Reach.FULL, "local": Reach.SLIDING}
    if len(kinds) != layers or not set(kinds) <= set(known):
        raise InputError(f"attention_types wants `global` or `local` for each of the {layers} layers; got {kinds!r}")
    return [known[kind] for kind in kinds]


def _last_of(i: int, period: int) -> bool:
    return (i + 1) % period == 0


EVERY: dict[str, _Every] = {
    **dict.fromkeys(("mistral", "mixtral", "phi3", "phimoe", "starcoder2"), _everywhere),
    **dict.fromkeys(("qwen2", "qwen3"), _upper),
    "qwen2_moe": _lower,
    "qwen3_moe": _if_used,
    "gemma2": _some("", 2, _last_of),
    "gpt_oss": _some("", 2, _last_of),
    "gemma3_text": _some("sliding_window_pattern", 6, _last_of),
    "cohere2": _some("sliding_window_pattern", 4, _last_of),
    "olmo3": _some("", 4, _last_of),
    "exaone4": _lettered,
    "modernbert": _some("global_attn_every_n_layers", 3, lambda i, period: i % period == 0),
    "llama4_text": _chunked,
    "smollm3": _without_rotary,
    "gpt_neo": _neo,
    **dict.fromkeys(
        ("llama", "gpt2", "gptj", "gpt_neox", "gpt_bigcode", "codegen", "opt", "bloom", "falcon", "phi", "gemma", "olmo", "olmo2", "granite", "stablelm", "cohere",
         "deepseek_v2", "deepseek_v3", "glm", "glm4", "nemotron", "persimmon", "xglm", "biogpt", "paligemma"),
        _nowhere,
    ),
    **dict.fromkeys(
        ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "albert", "deberta", "deberta-v2", "ernie", "esm", "eurobert", "dinov2"),
        _nowhere,
    ),
}  # fmt: skip

# The setting without which nothing is limited, and which the models' own configs have a default for: a file that leaves it out does not say "no limit".
LIMITED = {
    **dict.fromkeys(("mistral", "gemma2", "gpt_oss", "gemma3_text", "cohere2", "olmo3", "exaone4"), "sliding_window"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "sliding_window"),  # where `use_sliding_window`
    "modernbert": "local_attention",
    "llama4_text": "attention_chunk_size",
}

# Whose tokens see both ways, unless `is_decoder`.
ENCODERS = frozenset(
    {
        "bert",
        "roberta",
        "xlm-roberta",
        "camembert",
        "electra",
        "distilbert",
        "albert",
        "deberta",
        "deberta-v2",
        "ernie",
        "esm",
        "eurobert",
        "dinov2",
        "modernbert",
    }
)

# Whose code never asks for `is_decoder`.
NEVER_CAUSAL = frozenset({"albert", "deberta", "deberta-v2", "dinov2", "distilbert", "eurobert", "modernbert"})
