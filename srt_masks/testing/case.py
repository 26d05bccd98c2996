"""`Case`: a spec at one size, with inputs, params and a seed for q, k and v. What every law is tried on, and what a failure prints as code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..binding import Sizes, axis_extent, bind_call, bind_given
from ..kernels.attention import Attention, compile_spec
from ..kernels.facts import lay_out_call
from ..reference.masks import DenseMasks, Row
from ..spec import Spec, parse
from ..surface import dense, lay_out_one
from ..time_steps import Steps, tokens_of

HEAD_DIM = 8
MAPPINGS = ("inputs", "params", "given")


@dataclass(frozen=True, slots=True)
class Case:
    """One call on a spec. `inputs`, `lengths` and `given` are as `srt.compile(spec)(...)` takes them, `params` those given at the call in place of
    the text's; q, k and v come from `seed`."""

    spec: Spec
    steps: Steps | None = None
    heads: int = 1
    key_heads: int | None = None
    layers: int | None = None
    batch: int = 1
    lengths: tuple[int, ...] | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] | None = None
    tile: int | None = 16
    seed: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, Any]:
        """The arguments of `srt.dense` and `srt.tokens`."""
        inputs = {**self.inputs, **self.params}
        return {"steps": self.steps, "heads": self.heads, "layers": self.layers, "lengths": self.lengths, "inputs": inputs, "given": self.given}

    @property
    def depth(self) -> int:
        return self.layers or 1

    @property
    def extents(self) -> Sizes:
        """Tokens of both axes (all of them, whoever asks), heads, layers and batch."""
        checked = self.spec.checked
        tokens, keys = tokens_of(checked, self.steps, self.given)
        return Sizes(tokens, keys, self.heads, self.layers, self.batch)

    def extent(self, axis: str) -> int:
        """How long an axis of an input is: `token`, `step`, `head` ..."""
        return axis_extent(self.spec.checked, axis, self.extents, bind_given(self.spec.checked, self.given, self.extents))

    def resized(self, steps: Steps) -> Case:
        """The case with another number of time steps: inputs go on from their beginning where they are too short."""
        other = replace(self, steps=steps, lengths=None)
        inputs = dict(self.inputs)
        for declared in self.spec.checked.inputs:
            value = torch.as_tensor(inputs[declared.name])
            first = value.ndim - len(declared.axes) - len(declared.sizes)  # 1 where there is a batch axis
            for place, axis in enumerate(declared.axes, first):
                old, new = value.shape[place], other.extent(axis)
                if old == 0 < new:
                    value = value.new_zeros(*value.shape[:place], new, *value.shape[place + 1 :])
                elif old != new:
                    value = value.index_select(place, torch.arange(new) % max(1, old))
            inputs[declared.name] = value
        return replace(other, inputs=inputs)

    def masks(self) -> DenseMasks:
        """Every mask, always with a batch axis (of 1, where nothing tells the rows apart)."""
        found = dense(self.spec, **self.sizes)
        if found.attend.ndim > 4:
            return found
        return DenseMasks(*(getattr(found, f.name)[None] for f in fields(DenseMasks)))

    def row(self) -> Row:
        """The one row of the batch, laid out, for the reference. Raises InputError if there are several."""
        return lay_out_one(self.spec, **self.sizes)

    def rows(self) -> list[Row]:
        """Every row of the batch, laid out, for the reference, whatever the text states of its inputs."""
        checked = self.spec.checked
        call = bind_call(checked, self.extents, self.lengths, self.inputs, self.params, self.given)
        return [lay_out_call(checked, call, number) for number in range(self.batch)]

    def tensors(self, dtype: torch.dtype = torch.float64, *, seed: int | None = None, head_dim: int = HEAD_DIM) -> list[Tensor]:
        """q, k, v and a gradient of the output, normally distributed."""
        generator = torch.Generator().manual_seed(self.seed if seed is None else seed)
        queries, keys = self.extents.tokens, self.extents.keys
        if self.spec.checked.asks is not None:
            queries = self.masks().attend.shape[-2]
        own, others = (self.batch, self.heads, queries, head_dim), (self.batch, self.key_heads or self.heads, keys, head_dim)
        return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in (own, others, others, own)]

    def compile(self, backend: str = "auto") -> Attention:
        return compile_spec(self.spec, heads=self.heads, layers=self.layers, backend=backend, tile=self.tile)

    def call(self, attend: Attention, q: Tensor, k: Tensor, v: Tensor, layer: int = 0, **more: Any) -> tuple[Tensor, Tensor]:
        """out and lse. Where the text has `stop hidden`, k and v are their own twins unless others are given."""
        if self.spec.checked.has_hidden_rules and "hidden_k" not in more:
            more = {"hidden_k": k.detach(), "hidden_v": v.detach(), **more}
        named = {"lengths": self.lengths, "given": self.given, "inputs": dict(self.inputs), **self.params, **more}
        return attend(q, k, v, layer=layer if self.layers else None, return_lse=True, **named)

    def code(self, law: str = "", backend: str = "auto") -> str:
        """This case as code to paste; with a law's name, code that tries the law on it."""
        written = parse(self.spec.text).params
        params = {n: v for n, v in self.spec.params.items() if v != written[n]}
        plain = {f.name: f.default for f in fields(self) if f.name not in ("spec", *MAPPINGS)} | {"key_heads": self.heads}
        settings = [f"{n}={value!r}" for n, default in plain.items() if (value := getattr(self, n)) != default and (value is not None or n == "tile")]
        arguments = ["spec", *settings, *(f"{n}={n}" for n in MAPPINGS if getattr(self, n))]
        text = self.spec.text.strip().replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
        lines = ["import torch", "import srt_masks as srt", "", f'spec = srt.parse("""\\\n{text}\n"""{f", params={params}" if params else ""})']
        for name in MAPPINGS:
            if values := getattr(self, name):
                body = ", ".join(f"{n!r}: {_literal(v)}" for n, v in values.items())
                lines.append(f"{name} = {{{body}}}")
        lines.append(f"case = srt.testing.Case({', '.join(arguments)})")
        lines.append(f"srt.testing.LAWS[{law!r}](case{with_backend(backend)})" if law else "")
        return "\n".join(lines).rstrip()

    def __repr__(self) -> str:
        return f"\n{self.code()}\n"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def with_backend(backend: str) -> str:
    return "" if backend == "auto" else f", {backend!r}"


def _literal(value: Any) -> str:
    if isinstance(value, bool | int | float | str | list | tuple):
        return _finite(repr(value))
    value = torch.as_tensor(value)
    plain = {torch.bool: "", torch.int64: ""}.get(value.dtype, f", dtype={value.dtype}")
    if value.numel() == 0:
        return f"torch.zeros({tuple(value.shape)}, dtype={value.dtype})"
    return _finite(f"torch.tensor({value.tolist()}{plain})")


def _finite(text: str) -> str:
    """Python writes nan and inf as words it does not read."""
    return re.sub(r"(?<![\w'\"])(nan|inf)(?![\w'\"])", r"float('\1')", text)
