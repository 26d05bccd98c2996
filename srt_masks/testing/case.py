"""`Case`: a spec at one size, with inputs and a seed for q, k and v. What every law is tried on, and what a failure prints as code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from ..kernels.attention import Attention, compile_spec
from ..reference.masks import DenseMasks, Row
from ..spec import Spec
from ..surface import dense, lay_out_one

HEAD_DIM = 8


@dataclass(frozen=True, slots=True)
class Case:
    """One call on a spec. `inputs` and `given` are as `srt.compile(spec)(...)` takes them; q, k and v come from `seed`."""

    spec: Spec
    steps: int | None = None
    heads: int = 1
    key_heads: int | None = None
    layers: int | None = None
    batch: int = 1
    lengths: tuple[int, ...] | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] | None = None
    tile: int = 16
    seed: int = 0

    @property
    def sizes(self) -> dict[str, Any]:
        """The arguments of `srt.dense` and `srt.tokens`."""
        return {"steps": self.steps, "heads": self.heads, "layers": self.layers, "lengths": self.lengths, "inputs": self.inputs, "given": self.given}

    @property
    def depth(self) -> int:
        return self.layers or 1

    def masks(self) -> DenseMasks:
        """Every mask, always with a batch axis (of 1, where nothing tells the rows apart)."""
        found = dense(self.spec, **self.sizes)
        if found.attend.ndim > 4:
            return found
        return DenseMasks(*(getattr(found, f.name)[None] for f in fields(DenseMasks)))

    def row(self) -> Row:
        """The one row of the batch, laid out, for the reference. Raises InputError if there are several."""
        return lay_out_one(self.spec, **self.sizes)

    def tensors(self, dtype: torch.dtype = torch.float64, *, seed: int | None = None) -> list[Tensor]:
        """q, k, v and a gradient of the output, normally distributed."""
        generator = torch.Generator().manual_seed(self.seed if seed is None else seed)
        queries, keys = self.masks().attend.shape[-2:]
        own, others = (self.batch, self.heads, queries, HEAD_DIM), (self.batch, self.key_heads or self.heads, keys, HEAD_DIM)
        return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in (own, others, others, own)]

    def compile(self, backend: str = "auto") -> Attention:
        return compile_spec(self.spec, heads=self.heads, layers=self.layers, backend=backend, tile=self.tile)

    def call(self, attend: Attention, q: Tensor, k: Tensor, v: Tensor, layer: int = 0, **more: Any) -> tuple[Tensor, Tensor]:
        """out and lse. Where the text has `stop hidden`, k and v are their own twins unless others are given."""
        if self.spec.checked.has_hidden_rules and "hidden_k" not in more:
            more = {"hidden_k": k.detach(), "hidden_v": v.detach(), **more}
        named = {"lengths": self.lengths, "given": self.given, "inputs": dict(self.inputs), **more}
        return attend(q, k, v, layer=layer if self.layers else None, return_lse=True, **named)

    def code(self, law: str = "") -> str:
        """This case as code to paste; with a law's name, code that tries the law on it."""
        params = {n: v for n, v in self.spec.params.items() if v != _as_written(self.spec).params[n]}
        plain = {f.name: f.default for f in fields(self) if f.name not in ("spec", "inputs", "given")} | {"key_heads": self.heads}
        settings = [f"{n}={value!r}" for n, default in plain.items() if (value := getattr(self, n)) != default and value is not None]
        arguments = ["spec", *settings, *(f"{n}={n}" for n in ("inputs", "given") if getattr(self, n))]
        text = self.spec.text.strip().replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
        lines = ["import torch", "import srt_masks as srt", "", f'spec = srt.parse("""\\\n{text}\n"""{f", params={params}" if params else ""})']
        for name in ("inputs", "given"):
            if values := getattr(self, name):
                body = ", ".join(f"{n!r}: {_literal(v)}" for n, v in values.items())
                lines.append(f"{name} = {{{body}}}")
        lines.append(f"case = srt.testing.Case({', '.join(arguments)})")
        lines.append(f"srt.testing.LAWS[{law!r}](case)" if law else "")
        return "\n".join(lines).rstrip()

    def __repr__(self) -> str:
        return f"\n{self.code()}\n"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def _as_written(spec: Spec) -> Spec:
    from ..spec import parse

    return parse(spec.text)


def _literal(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    plain = {torch.bool: "", torch.int64: ""}.get(value.dtype, f", dtype={value.dtype}")
    if value.numel() == 0:
        return f"torch.zeros({tuple(value.shape)}, dtype={value.dtype})"
    return f"torch.tensor({value.tolist()}{plain})"
