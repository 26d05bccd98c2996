"""srt_masks: say what attends to what and which gradients flow where, in a short text.

    spec = srt_masks.load("self_reasoning.mask")
    attend = srt_masks.compile(spec)
    out = attend(q, k, v)

Everything public is here; nothing is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import distributed, testing
    from .diagnostics import BackendError, Error, InputError, SpecError
    from .elsewhere.comparing import equivalent
    from .elsewhere.configs import from_config
    from .elsewhere.tables import from_dense
    from .explanation import explain
    from .features.asking import capabilities
    from .flows.measure import flow
    from .models import huggingface, nn
    from .models.builder import build_model
    from .models.checkpoint import load_model, save_model
    from .models.original import Transformer, stop_graddable_attn
    from .models.sample import sample
    from .packed import documents
    from .proofs.prove import prove
    from .schemes import zoo
    from .spec import Spec, load, parse
    from .surface import compile, dense, tokens
    from .training.comparison import compare

__version__ = "0.1.0"

_HOMES = {
    "Spec": "spec", "parse": "spec", "load": "spec",
    "compile": "surface", "dense": "surface", "tokens": "surface",
    "build_model": "models.builder", "save_model": "models.checkpoint", "load_model": "models.checkpoint",
    "sample": "models.sample", "compare": "training.comparison",
    "capabilities": "features.asking", "zoo": "schemes", "explain": "explanation", "flow": "flows.measure", "documents": "packed",
    "prove": "proofs.prove", "equivalent": "elsewhere.comparing", "from_config": "elsewhere.configs", "from_dense": "elsewhere.tables",
    "Transformer": "models.original", "stop_graddable_attn": "models.original",
    "Error": "diagnostics", "SpecError": "diagnostics", "InputError": "diagnostics", "BackendError": "diagnostics",
}  # fmt: skip
_MODULES = {"testing": "testing", "distributed": "distributed", "huggingface": "models.huggingface", "nn": "models.nn"}

__all__ = [
    "BackendError", "Error", "InputError", "Spec", "SpecError", "Transformer", "build_model", "capabilities", "compare", "compile", "dense", "distributed", "documents", "equivalent", "explain", "flow", "from_config", "from_dense", "huggingface", "load",
    "load_model", "nn", "parse", "prove", "sample", "save_model", "stop_graddable_attn", "testing", "tokens", "zoo",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
