"""What people see of proofs: the command `prove`, verdicts printed, and what `compile` and `build_model` do with claims."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.proofs import guard, known
from srt_masks.proofs.guard import UnprovedWarning

PROVED = "attend causal and window(3)\nassert q.pos - k.pos < 3\nassert no flow where k.pos > q.pos\n"
REFUTED = "attend causal and window(3)\nassert every query attends\n  assert no flow where q.pos - k.pos > 2  # it flows in two hops\n"
OTHER_WIDTHS = "param width = 4\nattend causal and window(width)\nassert q.pos - k.pos < 8\n"
# True for all numbers that are tried, and z3 knows nothing of cubes of unknowns.
UNDECIDED = "input a: int per token\ninput b: int per token\nattend causal and k.a ** 3 + q.b ** 3 != 33\nassert every query attends\n"
AHEAD = "attend k.pos <= q.pos + 1\npredict token -> index + 1\n"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No proof is remembered, and nothing has been said."""
    monkeypatch.setenv("SRT_MASKS_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(guard, "_SAID", set())
    known.forget()
    yield
    known.forget()


@pytest.fixture
def prove(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """`srt-masks prove` of a text: exit code, output and errors."""

    def command(text: str, *arguments: str) -> SimpleNamespace:
        (tmp_path / "t.mask").write_text(text)
        code = main(("prove", str(tmp_path / "t.mask"), *arguments))
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return command


# ------------------------------------------------------------------------------------------------ the command


def test_a_line_for_each_claim(prove):
    said = prove(PROVED)
    assert said.code == 0 and not said.err
    assert [re.sub(r"[ \d]{7} ms", "", line) for line in said.out.splitlines()] == [
        "proved    line 2: assert q.pos - k.pos < 3            for any number of steps",
        "proved    line 3: assert no flow where k.pos > q.pos  for any number of steps",
    ]


def test_what_is_refuted_has_its_place_its_path_and_how_it_ran(prove):
    said = prove(REFUTED)
    assert said.code == 1
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["proved", "refuted"]
    assert lines[3] == "error[claim]: `assert no flow where q.pos - k.pos > 2` does not hold"
    assert lines[4].endswith("t.mask:3:3")
    at = next(i for i, line in enumerate(lines) if line.startswith("3 |"))
    # The carets stand under the claim and under nothing else.
    assert lines[at][4:] == "  assert no flow where q.pos - k.pos > 2  # it flows in two hops"
    carets = re.match(r"  \| ( *)(\^+) (.*)", lines[at + 1])
    assert carets and len(carets[1]) == 2 and len(carets[2]) == len("assert no flow where q.pos - k.pos > 2")
    assert carets[3] == "in a call of 4 tokens, row 3 (token, step 3) is reached by row 0 (token, step 0), in 2 hops: 3 <- 1 <- 0"
    assert lines[at + 2 :] == [
        "  = note: in a call with 4 tokens:",
        "  = note: row 1 (token of step 1) reads row 0 (token of step 0): line 1 `attend causal and window(3)`",
        "  = note: row 3 (token of step 3) reads row 1 (token of step 1): line 1 `attend causal and window(3)`",
        "  = note: run: another state of row 0 changes the output of row 3, through 2 reference layers",
    ]


def test_a_prediction_makes_a_claim_that_stands_where_it_does(prove):
    said = prove(AHEAD)
    assert said.code == 1 and said.out.startswith("refuted   assert no leak (there is a `predict`)")
    assert "t.mask:2:1" in said.out and "2 | predict token -> index + 1" in said.out


def test_what_is_not_decided_says_what_was_tried_and_what_may_be_done(prove):
    said = prove(UNDECIDED, "--seconds", "2")
    assert said.code == 1
    assert re.match(
        r"unknown   line 4: assert every query attends +\d+ ms  tried: \d+ draws of the inputs at every size up to \d+ tokens \([\d,]+ calls\)", said.out
    )
    assert "`assert every query attends` is not proved (unknown)" in said.out
    assert re.findall(r"= help: (.*)", said.out) == [
        "let every row see itself: `or q.pos == k.pos`",
        "say what is known of inputs: `input a: int per token given ...`",
        "give it more time: --seconds 20, or srt_masks.prove(spec, seconds=20)",
    ]


@pytest.mark.parametrize(("text", "help"), [
    ("attend causal\nassert no flow where k.pos >= q.pos\n", "leave the row itself out: `and q.pos != k.pos`"),
    ("attend causal\npredict token -> index\n", "a row knows its own word: predict a later one, as `predict token -> index + 1` does"),
    (OTHER_WIDTHS, "say what a call may give: `param width = 4 given ...`"),
    ("input rank: int per token\nattend k.rank <= q.rank\nassert k.pos <= q.pos\n", "if no such `rank` comes, say so: `input rank: int per token given ...`"),
    ("attend causal\nassert no grad where k.pos < q.pos\n", "this is about hidden states: weights of the rows that ask learn all the same"),
])  # fmt: skip
def test_a_refutation_says_what_may_be_done(prove, text, help):
    assert re.findall(r"= help: (.*)", prove(text).out) == [help]


def test_prediction_of_masked_words_is_told_what_it_may_do(prove):
    text = "input masked: bool per token\nattend full\npredict token -> index where masked\n"
    assert re.findall(r"= help: (.*)", prove(text).out) == [
        "a row knows its own word: predict a later one, as `predict token -> index + 1` does",
        "if those words are masked before the model has them, leave `predict` out: `model(x, all_rows=True)` gives what your loss takes",
    ]
    model = srt.build_model(srt.parse("attend full"), dim=8, depth=1, heads=1, num_tokens=5)
    assert model(torch.tensor([[0, 4, 1]]), all_rows=True).shape == (1, 3, 5)


def test_what_the_remedies_name_mends_it(prove):
    assert prove("attend causal\nassert no flow where k.pos >= q.pos and q.pos != k.pos\n").code == 0
    assert prove("attend causal\npredict token -> index + 1\n").code == 0
    assert prove(OTHER_WIDTHS.replace("= 4", "= 4 given 0 < width <= 8")).code == 0
    assert prove("input rank: int per token given rank == pos\nattend k.rank <= q.rank\nassert k.pos <= q.pos\n").code == 0


def test_json_says_all_of_it(prove):
    said = prove(REFUTED, "--format", "json")
    first, second = json.loads(said.out)
    assert said.code == 1
    assert (first["outcome"], first["line"], first["path"], first["call"]) == ("proved", 2, None, None)
    assert second["path"]["hops"] == [{"query": 1, "key": 0, "head": 0, "layer": 0}, {"query": 3, "key": 1, "head": 0, "layer": 1}]
    assert (second["path"]["source"], second["path"]["sink"], second["call"]["tokens"]) == (0, 3, 4)
    assert second["replay"] and len(second["lines"]) == 3 and second["holds_as_written"] is False
    assert json.loads(prove(OTHER_WIDTHS, "--format", "json").out)[0]["holds_as_written"] is True


def test_tensors_of_a_call_are_lists(prove):
    (verdict,) = json.loads(prove("input rank: int per token\nattend k.rank < q.rank\nassert every query attends\n", "--format", "json").out)
    rank = verdict["call"]["inputs"]["rank"]
    assert isinstance(rank, list) and verdict["lines"][0] == f"in a call with {len(rank)} token{'s' * (len(rank) > 1)}, rank = {rank}:"


def test_nothing_is_claimed(prove):
    said = prove("attend causal\n")
    assert said.code == 0 and said.out.rstrip().endswith("nothing is claimed. For example: assert no flow where k.pos > q.pos")
    assert json.loads(prove("attend causal\n", "--format", "json").out) == []


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_time_that_is_none_is_refused(prove, seconds):
    said = prove(PROVED, f"--seconds={seconds}")
    assert said.code == 2 and "seconds is a number above 0" in said.err


def test_a_wrong_text_is_refused_before_anything_is_proved(prove):
    said = prove("attend causal\nassert no flow where k.pso > q.pos\n")
    assert said.code == 1 and not said.out and "key has no attribute `pso`" in said.err


# ------------------------------------------------------------------------------------------------ two texts


@pytest.mark.parametrize(("other", "code", "words"), [
    ("attend 0 <= q.pos - k.pos <= 2\n", 0, "equal: no pair differs\nscope: any number of steps\n"),
    ("attend 0 <= q.pos - k.pos <= 3\n", 1, "different: they differ in who attends: query 3 and key 0, head 0 of layer 0, in a call of 4 tokens\n"),
    ("attend causal and window(3)\nstop k where q.pos - k.pos == 2\n", 1, "query 2 and key 0"),
])  # fmt: skip
def test_two_texts_are_one_mask_or_a_pair_differs(prove, tmp_path, other, code, words):
    (tmp_path / "other.mask").write_text(other)
    said = prove(PROVED, "--equals", str(tmp_path / "other.mask"))
    assert said.code == code and words in said.out
    plain = json.loads(prove(PROVED, "--equals", str(tmp_path / "other.mask"), "--format", "json").out)
    assert plain["equal"] is (code == 0) and (plain["pair"] is None) is (code == 0)


def test_each_of_two_texts_takes_the_params_that_it_has(prove, tmp_path):
    other = tmp_path / "other.mask"
    other.write_text("param m = 5\nattend causal and window(m)\n")
    said = prove("attend causal and window(9)\n", "--equals", str(other), "--param", "m=9")
    assert said.code == 1 and "with m = 8. With the params of the texts no pair differs" in re.sub(r"m = \d+", "m = 8", said.out)
    for params, words in (
        (["m=9", "m=8"], "--param m=... is given twice: give it once"), (["k=9"], "--param k: no spec here has such a param; their params: m"),
    ):  # fmt: skip
        said = prove("attend causal\n", "--equals", str(other), *(x for p in params for x in ("--param", p)))
        assert said.code == 2 and said.err.strip() == f"error: {words}"
    other.write_text("param n = 5\nattend causal and window(n)\n")
    text = "param n = 4\nattend causal and window(n)\n"
    assert "as written, they differ" in prove(text, "--equals", str(other)).out
    assert prove(text, "--equals", str(other), "--param", "n=9").code == 0


def test_standard_input_is_one_text(capsys):
    assert main(["prove", "-", "--equals", "-"]) == 2
    assert capsys.readouterr().err == "error: standard input can be read once: give the other spec as a file\n"


# ------------------------------------------------------------------------------------------------ in Python


def test_a_list_of_verdicts_can_be_read():
    assert repr(srt.prove(srt.parse(REFUTED))) == "[<proved, line 2: assert every query attends>, <refuted, line 3: assert no flow where q.pos - k.pos > 2>]"
    assert repr(srt.prove(srt.parse(AHEAD))) == "[<refuted: assert no leak>]"


def test_a_verdict_prints_as_two_lines_and_is_true_where_it_is_proved():
    first, second = srt.prove(srt.parse(REFUTED))
    assert first and not second
    assert re.fullmatch(r"refuted   line 3: assert .* > 2  \(any number of steps; \d+ ms\)\n          in a call of 4 tokens, .*", str(second))


@pytest.mark.parametrize(("spec", "options", "words"), [
    ("attend causal", {}, "prove takes a Spec; got str. For a text: srt_masks.parse(text)"),
    (srt.parse("attend causal"), {"seconds": True}, "seconds is a number above 0"),
])  # fmt: skip
def test_what_prove_takes(spec, options, words):
    with pytest.raises(srt.InputError, match=re.escape(words)):
        srt.prove(spec, **options)


def test_a_proof_is_found_once(tmp_path):
    (verdict, _) = srt.prove(srt.parse(PROVED))
    assert verdict and len(list((tmp_path / "kept").glob("proof_*.json"))) == 2
    known.forget()  # as in another process
    for file in (tmp_path / "kept").glob("proof_*.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "reason": "read from the folder"}))
    assert [v.reason for v in srt.prove(srt.parse(PROVED))] == ["read from the folder"] * 2
    assert srt.prove(srt.parse(PROVED.replace("window(3)", "window(2)")))[0].reason == "no attended pair breaks it", "another text, another proof"


def test_a_refutation_is_not_kept(tmp_path):
    srt.prove(srt.parse(AHEAD))
    assert not list((tmp_path / "kept").glob("proof_*"))


# ------------------------------------------------------------------------------------------------ what is compiled


def build(spec: srt.Spec, **options) -> object:
    return srt.build_model(spec, dim=8, depth=1, heads=2, num_tokens=5, **options)


MAKERS = pytest.mark.parametrize("make", [srt.compile, build], ids=["compile", "build_model"])


@MAKERS
@pytest.mark.parametrize("mode", ["warn", "strict"])
def test_what_is_refuted_is_refused(make, mode):
    with pytest.raises(srt.SpecError) as caught:
        make(srt.parse(REFUTED, filename="mine.mask"), proofs=mode)
    said = str(caught.value)
    assert "mine.mask:3:3" in said and "^ in a call of 4 tokens" in said and "error[claim]" in said
    assert len(caught.value.diagnostics) == 1, "what is proved is not spoken of"


@MAKERS
def test_a_refuted_prediction_is_refused(make):
    with pytest.raises(srt.SpecError, match="no leak"):
        make(srt.parse(AHEAD))


@MAKERS
def test_off_asks_nothing(make, monkeypatch):
    monkeypatch.setattr("srt_masks.proofs.prove.prove", lambda *_, **__: pytest.fail("nothing is proved"))
    make(srt.parse(REFUTED), proofs="off")


@pytest.mark.parametrize(
    ("make", "text"), [(srt.compile, OTHER_WIDTHS), (build, OTHER_WIDTHS), (srt.compile, UNDECIDED)], ids=["compile", "build_model", "unknown"]
)
def test_what_is_not_proved_is_said_once_and_refused_where_it_is_asked_for(make, text):
    spec = srt.parse(text, filename="mine.mask")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            make(spec)
    (warning,) = [w for w in said if w.category is UnprovedWarning]
    assert re.match(r"mine.mask, line \d: `assert .*` is not proved \((refuted for other values of params|unknown)\): ", str(warning.message))
    assert "; say what a call may give: `param width = 4 given ...`" in str(warning.message) or text == UNDECIDED
    assert warning.filename == __file__, "it points at the call"
    with pytest.raises(srt.SpecError, match=r"does not hold|is not proved"):
        make(spec, proofs="strict")


@MAKERS
@pytest.mark.parametrize("mode", ["warn", "strict", "off"])
def test_what_is_proved_is_not_spoken_of(make, mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(srt.parse(PROVED), proofs=mode)


@MAKERS
def test_a_switch_that_is_none_is_named(make):
    with pytest.raises(srt.InputError, match=re.escape('proofs is "warn", "strict" or "off"; got \'stict\': did you mean `strict`?')):
        make(srt.parse("attend causal"), proofs="stict")


def test_z3_is_imported_by_claims_alone():
    code = """
import sys, srt_masks as srt
for text in ("attend causal", "attend causal; assert causal"):
    srt.compile(srt.parse(text.replace("; ", chr(10))))
    print("z3" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "True"]
