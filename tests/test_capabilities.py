"""The table of what backends serve, held to: every cell is tried, and is found honoured, or raises the error that stands in it.

The cells come from the table: a row that is added is tried. Honoured means that results and gradients are those of the reference, and, where
the feature changes anything, not those of the nearest call without it. Without a card `triton` runs in Triton's interpreter.
"""

from __future__ import annotations

import copy
import json
import pickle
import re
import runpy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import ROOT
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.features.asking import GROUPS, capabilities
from srt_masks.features.example import BACKENDS, Effect, Example, Feature, Memory, Use
from srt_masks.features.table import Capabilities

pytest.importorskip("triton")

from srt_masks.kernels import dispatch, fit, target
from srt_masks.kernels.backend import Operands

FEATURES = {feature.name: feature for group in GROUPS for feature in group.features}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}
DIFFERENT = 1e-3  # by more than this a result is another, in float64
Results = dict[str, Tensor]


@pytest.fixture(scope="module")
def table() -> Capabilities:
    return capabilities(device="cpu")


# ------------------------------------------------------------------------------------------------ one call


def tensors(example: Example, dtype: torch.dtype, device: str, values_of: Memory | None = None) -> list[Tensor]:
    """q, k and v as they lie in the example's memory; their numbers are such as `values_of` can hold, unless given that memory."""
    generator = torch.Generator().manual_seed(7)
    head_dim = example.head_dim or 16
    shapes = [
        (example.batch, example.heads, example.queries, head_dim),
        (example.batch, example.key_heads, example.keys, head_dim),
        (example.batch, example.key_heads, example.keys, example.value_dim or head_dim),
    ]
    plain = [torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype) for shape in shapes]
    if (values_of or example.memory) is Memory.EXPANDED:
        plain = [x[:, :, :1].expand(x.shape).contiguous() for x in plain]
    match example.memory:
        case Memory.TURNED:
            return [x.transpose(1, 2).contiguous().transpose(1, 2) for x in plain]
        case Memory.SLICED:
            wide = [x.new_full((*x.shape[:2], x.shape[2] + 3, 2 * x.shape[3]), float("nan")) for x in plain]
            for x, around in zip(plain, wide, strict=True):
                around[:, :, 2:-1, ::2] = x
            return [around[:, :, 2:-1, ::2] for around in wide]
        case Memory.EXPANDED:
            return [x[:, :, :1].expand(x.shape) for x in plain]
        case Memory.POISONED:
            dead = ~srt.dense(srt.parse(example.text), steps=example.keys).attend[0, 0].any(0)
            assert bool(dead.any()) and not bool(dead.all())
            return [plain[0], *(x.masked_fill(dead.to(device)[:, None], float("nan")) for x in plain[1:])]
        case Memory.PLAIN:
            return plain


def weighted(out: Tensor) -> Tensor:
    """A function of the output whose gradient is another number everywhere."""
    return (out * torch.linspace(0.5, 1.5, out.numel(), dtype=torch.float64).view(out.shape).to(out.dtype).to(out.device)).sum()


def plain_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What derivatives of every order are judged by: dense, and differentiated by torch alone."""
    scores = q.shape[-1] ** -0.5 * q @ k.transpose(-1, -2)
    return scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), float("-inf")).softmax(-1) @ v


def calling(example: Example, backend: str) -> Callable[..., Any]:
    """The example's call of q, k and v, and of the twins of k and v where the text has any."""
    attend = srt.compile(srt.parse(example.text), backend=backend, **example.options)
    if example.use is Use.COPIED:
        attend = copy.deepcopy(pickle.loads(pickle.dumps(attend)))
    return lambda q, k, v, **more: attend(q, k, v, **example.call, **more)


def results(call: Callable[..., Any], example: Example, data: list[Tensor]) -> Results:
    """Everything that comes of a call, used as the example says, by name."""
    leaves = {n: x.detach().requires_grad_(example.use is not Use.K_ALONE or n == "k") for n, x in zip("qkv", data, strict=True)}
    twins: dict[str, Tensor] = {}
    if srt.parse(example.text).checked.has_hidden_rules:
        twins = {f"hidden_{n}": x.detach().clone().requires_grad_() for n, x in zip("kv", data[1:], strict=True)}
    match example.use:
        case Use.LSE:
            _, lse = call(*leaves.values(), return_lse=True)
            return {"lse": lse.detach(), **gradients(lse.square().sum(), leaves)}
        case Use.AUTOCAST:
            with torch.autocast(data[0].device.type, torch.bfloat16):
                out = call(*leaves.values())
        case Use.CHECKPOINT | Use.CHECKPOINT_REENTRANT:
            out = checkpoint(call, *leaves.values(), use_reentrant=example.use is Use.CHECKPOINT_REENTRANT)
        case Use.COMPILE:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # where it breaks the graph, torch says so
                out = torch.compile(call, backend="eager")(*leaves.values())
        case Use.FUNC_GRAD:
            return dict(zip(("dq", "dk", "dv"), torch.func.grad(lambda *x: weighted(call(*x)), (0, 1, 2))(*data), strict=True))
        case Use.FUNC_VMAP:
            return {"out": torch.func.vmap(lambda *x: call(*(t[None] for t in x))[0])(*data)}
        case Use.FUNC_JVP:
            return dict(zip(("out", "tangent"), torch.func.jvp(call, tuple(data), tuple(x.cos() for x in data)), strict=True))
        case Use.DOUBLE_BACKWARD:
            first = torch.autograd.grad(weighted(call(*leaves.values())), list(leaves.values()), create_graph=True)
            return gradients(torch.stack([g.square().sum() for g in first]).sum(), leaves)
        case _:
            out = call(*leaves.values(), **twins)
    assert out.dtype is (torch.bfloat16 if example.use is Use.AUTOCAST else data[0].dtype)
    return {"out": out.detach(), **gradients(weighted(out), leaves | twins)}


def gradients(of: Tensor, leaves: dict[str, Tensor]) -> Results:
    of.backward()
    return {f"d{n}": torch.zeros_like(x) if x.grad is None else x.grad for n, x in leaves.items() if x.requires_grad}


# ------------------------------------------------------------------------------------------------ one cell


def close(a: Results, b: Results, tolerance: float) -> bool:
    """Whether what both have is the same; what only one has, the caller meant."""
    assert a.keys() & b.keys()
    pairs = [(a[n].cpu().double(), b[n].cpu().double()) for n in a.keys() & b.keys()]
    return all(torch.allclose(x, y, rtol=tolerance, atol=tolerance * max(1.0, y.abs().nan_to_num(0, 0, 0).max().item() if y.numel() else 0)) for x, y in pairs)


def honour(feature: Feature, backend: str, dtype: torch.dtype = torch.float64, device: str = "cpu") -> None:
    """Fails unless a backend does what the feature says."""
    example, without = feature.example, feature.without
    dtype = getattr(torch, example.dtype) if example.dtype else torch.float32 if example.use is Use.AUTOCAST else dtype
    tolerance = TOLERANCE[torch.bfloat16 if example.use is Use.AUTOCAST else dtype]
    found = results(calling(example, backend), example, tensors(example, dtype, device))
    judge = plain_causal if example.use in (Use.FUNC_JVP, Use.FUNC_VMAP, Use.DOUBLE_BACKWARD) else calling(replace(example, use=Use.BACKWARD), "reference")
    straight = replace(
        example, memory=Memory.PLAIN, use=example.use if example.use in (Use.LSE, Use.K_ALONE, Use.FUNC_JVP, Use.DOUBLE_BACKWARD) else Use.BACKWARD
    )
    truth = results(judge, straight, tensors(straight, dtype, "cpu", example.memory))
    assert close(found, truth, tolerance), f"{backend}: {feature.name} is not what the reference makes of it"
    if feature.effect is Effect.CHANGES:
        bare = results(calling(without, "reference"), without, tensors(without, dtype, "cpu"))
        assert not close(found, bare, max(DIFFERENT, 2 * tolerance)), f"{backend}: {feature.name} is dropped"


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_a_cell_is_honoured_or_raises_what_it_says(backend: str, name: str, table: Capabilities):
    feature, row = FEATURES[name], table[name]
    refusal = row[backend].refusal
    if refusal is None:
        return honour(feature, backend)
    dtype = getattr(torch, feature.example.dtype) if feature.example.dtype else torch.float64
    with pytest.raises(Exception, match=f"^{re.escape(refusal.reason)}") as raised:
        results(calling(feature.example, backend), feature.example, tensors(feature.example, dtype, "cpu"))
    assert type(raised.value).__name__ == refusal.error


@pytest.mark.gpu
@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("backend", ["tiled", "triton", "auto"])
def test_a_cell_on_a_card(backend: str, name: str):
    """The same on the card that is here, in float32."""
    feature = FEATURES[name]
    refusal = capabilities(device="cuda", dtype=torch.float32)[name][backend].refusal
    dtype = getattr(torch, feature.example.dtype) if feature.example.dtype else torch.float32
    if refusal is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `auto` says why it takes `tiled`
            return honour(feature, backend, torch.float32, "cuda")
    with pytest.raises(Exception, match=f"^{re.escape(refusal.reason)}"):
        results(calling(feature.example, backend), feature.example, tensors(feature.example, dtype, "cuda"))


# ------------------------------------------------------------------------------------------------ the check, checked


@pytest.mark.parametrize(("name", "how"), [
    ("stop v", "the gates are dropped"), ("lengths=", "an argument is dropped"), ("int per token", "an input is dropped"), ("scale=", "an argument is dropped"), ("visited=", "an argument is dropped"),
    ("return_lse=", "its gradient is zero"), ("strided", "strides are dropped"), ("float16", "the dtype is another"),
])  # fmt: skip
def test_a_cell_that_is_not_honoured_is_seen(name: str, how: str, monkeypatch):
    feature = FEATURES[name]
    honest = calling

    def faulty(example: Example, backend: str) -> Callable[..., Any]:
        if backend != "tiled":
            return honest(example, backend)
        match how:
            case "the gates are dropped" | "an argument is dropped" | "an input is dropped":
                return honest(replace(feature.without, use=example.use), backend)
            case "its gradient is zero":
                call = honest(example, backend)
                return lambda *x, **more: tuple(y + 0 * x[0].sum() for y in call(*(t.detach() for t in x), **more))
            case "strides are dropped":
                call = honest(example, backend)
                return lambda *x: call(*(torch.as_strided(t, t.shape, torch.empty(t.shape).stride()) for t in x))
            case _:
                call = honest(example, backend)
                return lambda *x: call(*x).double()

    monkeypatch.setitem(globals(), "calling", faulty)
    with pytest.raises(AssertionError):
        honour(feature, "tiled")


# ------------------------------------------------------------------------------------------------ the table


def test_names_are_one_each():
    assert len(FEATURES) == sum(len(group.features) for group in GROUPS) == len(capabilities(device="cpu"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("card", [(8, 6), (9, 0)])
def test_a_card_that_is_named_is_as_one_that_is_here(card: tuple[int, int], dtype: torch.dtype, monkeypatch):
    """What the table says of a card is what a call on it would do, where nothing spills: `pick` asks torch for the card there."""
    monkeypatch.setattr(fit, "problem", lambda *_: None)
    named = capabilities(capability=card, dtype=dtype)
    monkeypatch.setattr(target, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: card)
    for seen in (dispatch.why_tiled, target._target):
        seen.cache_clear()
    here = capabilities(dtype=dtype)
    assert here == named and here.capability == card
    for name in ("attend", "any, all over many", "lookup by a pair"):
        compiled = srt.compile(srt.parse(named[name].text)).compiled
        backend = dispatch.pick("auto", (compiled,), Operands(dtype, 64, 64, 1, torch.device("cuda")), tell=False)
        assert backend.name == named[name].auto
    for seen in (dispatch.why_tiled, target._target):
        seen.cache_clear()


def test_what_auto_takes_and_why():
    hopper, ampere, cpu = capabilities(capability=(9, 0)), capabilities(capability=(8, 0)), capabilities(device="cpu")
    assert hopper["attend"].auto == "triton" and hopper["attend"].why == ""
    assert ampere["attend"].auto == cpu["attend"].auto == "tiled"
    assert "sm_80 with bfloat16" in ampere["attend"].why and ampere["attend"]["triton"].served
    assert "for cpu" in cpu["attend"].why
    wide = hopper["head_dim 257"]
    assert wide.auto == "tiled" and not wide["triton"].served and wide["auto"].served and wide["triton"].refusal.reason == wide.why  # type: ignore[union-attr]
    assert not capabilities(device="mps")["attend"]["reference"].served and capabilities(device="mps")["attend"]["tiled"].served
    assert not capabilities(capability=(9, 0), head_dim=300)["attend"]["triton"].served
    assert hopper['precision="tf32"']["auto"].refusal.error == "BackendError"  # type: ignore[union-attr]


def test_it_prints_and_goes_to_programs():
    table = capabilities(capability=(9, 0))
    text = str(table)
    assert repr(table) == f"<Capabilities on cuda (sm_90), bfloat16, head_dim 64: {len(table)} features; print() shows them>"
    lines = {name: cells for name, *cells in (re.split(r"  +", line.strip()) for line in text.splitlines() if line.startswith("  "))}
    assert all(len(lines[row.name]) == 4 for row in table)
    number = re.search(r"\((\d+)\) BackendError: backend=\"triton\" takes a head_dim up to 256; got 257", text)
    assert number is not None and lines["head_dim 257"] == ["yes", "yes", f"no ({number[1]})", f"tiled ({number[1]})"]
    assert max(map(len, text.splitlines())) <= 110
    found = json.loads(table.to_json())
    assert found["capability"] == [9, 0] and found["dtype"] == "bfloat16" and len(found["features"]) == len(table)
    wide = next(f for f in found["features"] if f["name"] == "head_dim 257")
    assert wide["tiled"] == {"served": True} and wide["triton"]["error"] == "BackendError" and wide["auto"]["backend"] == "tiled"


@pytest.mark.parametrize(("arguments", "words"), [
    ({"device": "nowhere"}, "device is a torch.device or its name; got 'nowhere'"), ({"device": 1.5}, "got 1.5"), ({"device": "meta"}, "hold no numbers"),
    ({"device": "cpu", "capability": (9, 0)}, 'give device="cuda"'), ({"capability": 90}, r"two whole numbers, \(9, 0\) for sm_90; got 90"),
    ({"capability": (9,)}, "two whole numbers"), ({"capability": (9, 10)}, "two whole numbers"), ({"capability": (True, False)}, r"got \(True, False\)"), ({"dtype": torch.int8}, "got torch.int8"), ({"dtype": "float16"}, "got 'float16'"),
    ({"head_dim": 0}, "1 or more; got 0"), ({"head_dim": True}, "got True"),
])  # fmt: skip
def test_what_cannot_be_asked(arguments: dict[str, Any], words: str):
    with pytest.raises(srt.InputError, match=words):
        capabilities(**arguments)


def test_names_that_are_none():
    table = capabilities(device="cpu")
    with pytest.raises(srt.InputError, match=r"no feature is called 'stopv': did you mean `stop v`\?"):
        table["stopv"]
    with pytest.raises(srt.InputError, match="backend is one of auto, reference, tiled, triton; got 'cuda'"):
        table["attend"]["cuda"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the card that is here would be asked")
def test_without_a_card_one_has_to_be_named():
    with pytest.raises(srt.InputError, match=r"name one, for sm_90 capability=\(9, 0\)"):
        capabilities(device="cuda")


def test_the_page_is_made_of_the_table():
    code = runpy.run_path(str(ROOT / "docs" / "make_backends.py"))
    assert code["page"]() == (ROOT / "docs" / "backends.md").read_text(encoding="utf-8"), "the table has changed: python docs/make_backends.py"


def test_the_command_line(capsys):
    assert main(["capabilities", "--capability", "8.6", "--dtype", "float16", "--head-dim", "128", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["capability"], found["dtype"], found["head_dim"]) == ([8, 6], "float16", 128)
    assert main(["capabilities", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == f"{capabilities(device='cpu')}\n"
    assert main(["capabilities", "--device", "cpu", "--capability", "9.0"]) == 2
    assert "--capability is that of a CUDA card" in capsys.readouterr().err
    for card in ("9", "9.10", "0.5", "(9, 0)"):
        with pytest.raises(SystemExit):
            main(["capabilities", "--capability", card])
        assert "wants X.Y, for example 9.0 for sm_90" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="the card that is here would be asked")
def test_the_command_line_names_a_card_as_its_flag_takes_it(capsys):
    assert main(["capabilities", "--device", "cuda"]) == 2
    said = re.search(r"name one, for sm_90 (--capability=\S+)$", capsys.readouterr().err.strip())
    assert said is not None
    assert main(["capabilities", "--device", "cuda", said[1]]) == 0
    assert capsys.readouterr().out == f"{capabilities(capability=(9, 0))}\n"
