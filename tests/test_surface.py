"""What a user touches: specs as values, the errors people meet first, the command line."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import srt_masks as srt
from srt_masks.cli import main

REASONING = "param reasons = 4\nparam horizon = 2\nlayout repeat { token, reason * reasons }\nattend causal\nstop k, v where k is reason and 0 < q.step - k.step <= horizon"


def test_a_spec_is_a_value():
    spec = srt.parse(REASONING)
    assert spec == srt.parse(REASONING) and hash(spec) == hash(srt.parse(REASONING)) and str(spec) == REASONING
    other = spec.with_params(reasons=2)
    assert other != spec and other.params == {"reasons": 2, "horizon": 2} and spec.params["reasons"] == 4
    assert other.with_params(horizon=5).params == {"reasons": 2, "horizon": 5}
    assert pickle.loads(pickle.dumps(other)) == other and copy.deepcopy(other) == other
    assert spec.roles == ("token", "reason") and "reasons=4" in repr(spec)
    assert {p.name: p.structural for p in spec.checked.params} == {"reasons": True, "horizon": False}
    with pytest.raises(AttributeError):
        spec.text = "x"  # type: ignore[misc]
    page = spec._repr_html_()
    assert "<svg" in page and "<pre>" in page


def test_a_spec_from_a_file(tmp_path: Path):
    path = tmp_path / "a.mask"
    path.write_text("\ufeffparam n = 3\nattend causal and window(n)\n", encoding="utf-8")
    assert srt.load(path, params={"n": 5}).params == {"n": 5}
    with pytest.raises(srt.SpecError, match=r"a\.mask:2:"):
        path.write_text("attend causal\nstop")
        srt.load(path)
    path.write_bytes(bytes(range(200, 256)))
    for bad in (path, tmp_path, tmp_path / "missing"):
        with pytest.raises(srt.InputError, match=r"cannot read|no text"):
            srt.load(bad)
    with path.open("wb") as file:
        file.truncate(10_000_000_000)
    with pytest.raises(srt.InputError, match="at most 1,000,000"):
        srt.load(path)


@pytest.mark.parametrize(("given", "words"), [
    ({"reason": 3}, "did you mean `reasons`"), ({"horizon": 1.5}, "whole number"), ({"horizon": "3"}, "a number"), ({"horizon": True}, "a number"), ({"horizon": 2**70}, "64 bits"), ({"horizon": float("inf")}, "64 bits"), ({"horizon": float("nan")}, "64 bits"),
])  # fmt: skip
def test_params_that_do_not_fit(given: dict, words: str):
    with pytest.raises(srt.InputError, match=words):
        srt.parse(REASONING, params=given)


def test_every_public_name_is_there_and_no_other():
    with pytest.raises(AttributeError, match="no attribute"):
        srt.nonsense  # noqa: B018
    assert set(srt.__all__) <= set(dir(srt)) and all(hasattr(srt, n) for n in srt.__all__)


def qkv(*shape: int, dtype=torch.float32, count: int = 3):
    return [torch.randn(shape, dtype=dtype) for _ in range(count)]


def refused(words: str, spec: str, *tensors, error=None, compile: dict | None = None, **options):
    with pytest.raises(error or srt.InputError, match=words):
        srt.compile(srt.parse(spec), **(compile or {}))(*tensors, **options)


def test_the_errors_people_meet_first():
    q = qkv(1, 2, 10, 8)
    refused(
        r"17 rows of q is 3 steps and 2 tokens; this layout has 5 a step \(token, reason \* 4\)|17 rows of q is 3 steps and 2 tokens; this layout has 5 a step \(repeat",
        REASONING,
        *qkv(1, 2, 17, 8),
    )
    refused(r"transpose\(1, 2\)", REASONING, *qkv(1, 10, 4, 8), compile={"heads": 4})
    refused(r"transpose\(1, 2\)", REASONING, *qkv(1, 10, 4, 8))
    refused("compiled for 3 heads; q has 2", REASONING, *q, compile={"heads": 3})
    refused("layout repeat", "layout token, reason * 4\nattend causal", *qkv(1, 2, 10, 8))
    refused(r"queries=range\(9, 10\)", "attend causal", q[0][:, :, :1], q[1], q[2])
    refused("dropout", "attend causal", *q, dropout=0.1)
    refused("did you mean `horizon`", REASONING, *q, horizn=3)
    refused("with_params", REASONING, *q, reasons=3)
    refused("speaks of layers", "attend causal and layer == 0", *q)
    refused("from 0 to 1", "attend causal and layer == 0", *q, compile={"layers": 2}, layer=2)
    refused("multiple of those of k", "attend causal", *qkv(1, 3, 4, 8, count=1), *qkv(1, 2, 4, 8, count=2))
    refused("one dtype", "attend causal", q[0], q[1].double(), q[2])
    refused("float16, bfloat16", "attend causal", *(x.long() for x in q))
    refused("q is a tensor; got list", "attend causal", [1], q[1], q[2])
    refused("batch, heads, tokens, head_dim", "attend causal", q[0][0], q[1], q[2])
    refused("one batch", "attend causal", q[0], *qkv(2, 2, 10, 8, count=2))
    refused("one head_dim", "attend causal", q[0], *qkv(1, 2, 10, 4, count=2))
    refused("has none: leave them out", "attend causal", *q, hidden_k=q[1])
    refused("64 bits", REASONING, *q, horizon=float("inf"))
    refused("dense tensor; got layout sparse_coo", "attend causal", torch.eye(4).expand(1, 1, 4, 4).contiguous().to_sparse(), *q[1:])
    refused("dense tensor; got a meta tensor", "attend causal", torch.empty(1, 1, 4, 4, device="meta"), *q[1:])
    refused("scale is a number", "attend causal", *q, scale="x")
    refused("layer is a whole number", "attend causal", *q, layer=-1)
    refused("vector of whole numbers", "attend causal", *q, lengths=3)
    attend = srt.compile(srt.parse("attend causal"), heads=4)
    assert attend.plan(8).geometry.heads == 4
    for options, words in (
        ({"dtype": "bfloat16"}, "dtype is torch"),
        ({"head_dim": "64"}, "head_dim is a whole"),
        ({"head_dim": 0}, "head_dim is a whole"),
        ({"heads": 2}, "4, as compiled"),
        ({"lengths": 3}, "vector"),
        ({"layer": True}, "layer is a whole"),
    ):
        with pytest.raises(srt.InputError, match=words):
            attend.plan(8, **options)
    with pytest.raises(srt.InputError, match="layout of its own for keys"):
        srt.compile(srt.parse("queries layout repeat { a }\nkeys layout repeat { b }\nattend full")).plan(8)
    assert srt.compile(srt.parse("param n = 3\nqueries layout repeat { a }\nkeys layout repeat n { b }\nattend full")).plan(8).geometry.keys == 3
    with pytest.raises(srt.InputError, match="backend is one of"):
        srt.compile(srt.parse("attend causal"), backend="cuda")
    with pytest.raises(srt.InputError, match="tile is one of"):
        srt.compile(srt.parse("attend causal"), tile=100)
    with pytest.raises(srt.InputError, match="takes a Spec"):
        srt.compile("attend causal")  # type: ignore[arg-type]


def test_inputs_that_do_not_fit():
    spec, q = (
        "input doc: int per token\ninput keep: bool per head\ninput t: int[n, 2]\ninput u: float[n]\nattend causal and same(doc) and keep and t[0, 0] > 0 and u[0] > 0.5",
        qkv(3, 2, 10, 8),
    )
    good = {"doc": torch.zeros(10).long(), "keep": torch.ones(2).bool(), "t": torch.ones(4, 2).long(), "u": torch.ones(4)}
    srt.compile(srt.parse(spec))(*q, **good)
    for name, value, words in (
        ("doc", None, "missing input `doc`"), ("doc", torch.zeros(9).long(), r"\(token 10\).*shape \(9,\)"), ("doc", torch.zeros(10), "declared int; got float32"),
        ("doc", torch.zeros(2, 10).long(), "batch axis is 1 or 3"), ("keep", torch.ones(2).long(), r"declared bool.*keep != 0"), ("keep", torch.ones(3).bool(), "head 2"),
        ("t", torch.ones(4, 3).long(), "size 2"), ("u", torch.ones(5), "size `n` is 4 in input `t` and 5 in `u`"), ("u", torch.ones(4, requires_grad=True), "requires grad"),
        ("t", torch.ones(2, 3, 4, 2).long(), "may have a batch axis"), ("u", "x", "is a tensor or an array of numbers; got 'x'"), ("doc", torch.zeros(10, device="meta").long(), "lies on meta"),
    ):  # fmt: skip
        given = {k: v for k, v in {**good, name: value}.items() if v is not None}
        refused(words, spec, *q, **given)
        refused(words, spec, *q, inputs=given)
    refused("given twice", spec, *q, inputs=good, doc=good["doc"])
    refused("maps names to tensors", spec, *q, inputs=5)
    refused("dense tensor", spec, *q, **{**good, "u": torch.ones(4).to_sparse()})
    with pytest.raises(srt.InputError, match="at most"):
        srt.tokens(srt.parse("attend causal"), steps=10**30)
    with pytest.raises(srt.InputError, match="at most 1,000,000"):
        srt.tokens(srt.parse("attend causal"), steps=10**8)
    for call in (
        lambda: srt.parse("attend causal", params=[1]),
        lambda: srt.compile(srt.parse("attend causal"), params=5),
        lambda: srt.load(None),
        lambda: srt.load("a\0b"),
    ):  # type: ignore[arg-type]
        with pytest.raises(srt.InputError):
            call()
    for lengths, words in (([1, 2], "wanted 3, got 2"), ([1, 2, 11], "from 0 to 10"), (torch.ones(3), "whole numbers"), ([1, 2, True], "from 0 to 10")):
        refused(words, "attend causal", *q, lengths=lengths)
    refused("3 of a row's tokens", REASONING, *q, lengths=[5, 10, 3])


def test_a_new_value_of_a_param_is_an_argument():
    attend = srt.compile(srt.parse(REASONING))
    data = [x.requires_grad_() for x in qkv(1, 1, 20, 4)]
    for horizon in (0, 1, torch.tensor(3)):
        fixed = srt.compile(srt.parse(REASONING, params={"horizon": int(horizon)}))
        w = torch.randn(1, 1, 20, 4)
        for a, b in zip(torch.autograd.grad(attend(*data, horizon=horizon), data, w), torch.autograd.grad(fixed(*data), data, w), strict=True):
            assert torch.equal(a, b)


def test_python_floats_keep_their_64_bits():
    spec = srt.parse("input w: float\ninput f: float per token\nattend k.f <= w")
    attend, f = srt.compile(spec), torch.full((4,), 0.7, dtype=torch.float64)
    assert attend.plan(4, w=0.7, f=f).to_dense().all() and attend.plan(4, w=0.7, f=[0.7] * 4).to_dense().all()


def test_autocast_casts():
    attend = srt.compile(srt.parse("attend causal"))
    data = [x.requires_grad_() for x in qkv(1, 1, 20, 4)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attend(*data)
    assert out.dtype is torch.bfloat16
    out.float().sum().backward()
    assert data[0].grad is not None and data[0].grad.dtype is torch.float32


# ------------------------------------------------------------------------------------------------ the command line


def run(*arguments: str, stdin: bytes = b""):
    done = subprocess.run([sys.executable, "-m", "srt_masks", *arguments], input=stdin, capture_output=True, timeout=120)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_reading_a_spec_from_standard_input():
    assert run("check", "-", stdin=b"attend causal")[0] == 0
    assert run("check", "-", stdin=b"\xef\xbb\xbfattend causal")[0] == 0
    assert run("check", "-", stdin=b"attend \xff")[0] == 2
    code, _, error = run("check", "-", stdin=b"attend causal\nstop z")
    assert code == 1 and "<stdin>:2:6" in error


def test_show_draws_three_marks(capsys):
    assert main(["show", "examples/self_reasoning.mask", "--param", "reasons=1", "--param", "horizon=1", "--steps", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [x.split()[-6:] for x in lines[3:9]] == [
        ["#", ".", ".", ".", ".", "."], ["#", "#", ".", ".", ".", "."], ["#", "o", "#", ".", ".", "."], ["#", "o", "#", "#", ".", "."], ["#", "#", "#", "o", "#", "."], ["#", "#", "#", "o", "#", "#"],
    ]  # fmt: skip
    assert "\x1b" not in "".join(lines) and "# sees and trains   o sees only   . nothing" in lines


def test_a_terminal_gets_colours():
    from srt_masks.view.picture import picture
    from srt_masks.view.terminal import render

    text = render(picture(srt.parse("attend causal"), steps=2), colour=True)
    assert text.count("\x1b[48;5;71m") == 4 and "\x1b[0m" in text


def test_plan_prints_what_is_visited(capsys):
    assert main(["plan", "examples/self_reasoning.mask", "--steps", "256"]) == 0
    assert "forward     45       10        0     45  100" in capsys.readouterr().out


def test_demo_runs_the_whole_way(tmp_path: Path, capsys):
    assert main(["demo", "examples/self_reasoning.mask", "--quick", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count(" ok") == 5 and "bits per byte" in said and "o sees only" in said
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "training.safetensors", "log.jsonl", "loss.png"}
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["data"].startswith("Python's reference")


def test_tokens_of_a_given_layout_are_counted_in_one_pass():
    """`index`, by the reference, of so many tokens that looking back from each would take minutes."""
    n = 100_000
    given = {"role": torch.arange(n) % 3 % 2, "step": torch.arange(n), "slot": torch.zeros(n, dtype=torch.int64)}
    table = srt.tokens(srt.parse("layout given { a, b }\ndata b\nattend causal"), given=given)
    assert table.index.tolist() == [(i + 2) // 3 - 1 for i in range(n)]
