"""The command line: what each command prints and where, exit codes, files left as they were, and messages that speak of flags."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import srt_masks
from srt_masks import schemes
from srt_masks.cli import in_flags, main

REASONING = "examples/self_reasoning.mask"
TEXTS = {
    "heads": "attend causal and (head == 0 or window(2))",
    "layers": "attend causal and (layer == 0 or window(2))",
    "fixed": "layout word * 3, note\nattend full",
    "given": "layout given { word, note }\nattend k.step <= q.step",
    "inputs": "input doc: int per token\ninput open: bool per key\ninput w: float\nattend causal and same(doc) and k.open\nscale k by w",
    "steps": "layout repeat { a, b }\ninput doc: int per step\nattend same(doc)",
    "claims": "attend full\nassert no flow where k.pos > q.pos\n",
    "wrong": "attend causl\nstop z where k is a\n",
    "broken": "attend (causal\n",
}
INPUTS = ["--input", "doc=[0, 0, 1]", "--input", "open=[true, true, false]", "--input", "w=0.5"]
GIVEN = '{"role": ["word", "note", "word"], "step": [0, 0, 1], "slot": [0, 0, 0]}'


@pytest.fixture
def files(tmp_path: Path) -> SimpleNamespace:
    """Every text as a file."""
    for name, text in TEXTS.items():
        (tmp_path / f"{name}.mask").write_text(text)
    return SimpleNamespace(root=tmp_path, **{name: str(tmp_path / f"{name}.mask") for name in TEXTS})


@pytest.fixture
def run(capsys):
    """A command's exit code, output and errors."""

    def command(*arguments: str) -> SimpleNamespace:
        try:
            code = main(arguments)
        except SystemExit as left:  # the parser of the command line leaves by itself
            code = left.code
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return command


def typed(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))


# ------------------------------------------------------------------------------------------------ exit codes, errors


@pytest.mark.parametrize(("arguments", "code", "words"), [
    ("check examples/self_reasoning.mask", 0, ""), ("check {wrong}", 1, "did you mean `causal`"), ("check zoo:cauzal", 2, "did you mean `causal`"), ("check {root}", 2, "cannot read"),
    ("check {root}/none.mask", 2, "No such file"), ("check {root}/bytes", 2, "no text"), ("check examples/self_reasoning.mask --param horizon", 2, "wants NAME=NUMBER"),
    ("check examples/self_reasoning.mask --param nothing=3", 2, "no param"), ("check examples/self_reasoning.mask --param horizon=inf", 2, "whole number"),
    ("check examples/self_reasoning.mask --format yaml", 2, "invalid choice"), ("nonsense", 2, "invalid choice"), ("", 2, "required"), ("check", 2, "required"),
    ("show examples/self_reasoning.mask --steps 900", 2, "too many to draw"), ("show examples/self_reasoning.mask --steps 0", 2, "nothing to draw"),
    ("show examples/self_reasoning.mask --head 7", 2, "head is from 0 to 0"), ("emit examples/self_reasoning.mask --stage plan --steps -1", 2, "0 or more"),
    ("emit examples/self_reasoning.mask --stage nonsense", 2, "invalid choice"), ("emit {wrong} --stage ir", 1, "causl"), ("emit {broken} --stage tree", 1, "error["),
    ("plan examples/self_reasoning.mask --steps 400000000", 2, "plan_memory"), ("plan examples/self_reasoning.mask --tile 100", 2, "tile is one of"),
    ("explain examples/self_reasoning.mask -1 0", 2, "0 or more"), ("explain examples/self_reasoning.mask 1", 2, "which pair? Give two positions"),
    ("explain examples/self_reasoning.mask 1 0 --flow --head 2", 2, "leave out QUERY, KEY, --head, or leave out --flow"),
    ("explain examples/self_reasoning.mask --flow --steps 5000", 2, "give fewer --steps, or smaller params"), ("explain {heads} --flow", 2, "give --heads"), ("explain {wrong} 0 0", 1, "causl"),
    ("test examples/self_reasoning.mask --law causality", 2, "no law is called"), ("test examples/self_reasoning.mask --examples 0", 2, "from 1; got 0"),
    ("test examples/self_reasoning.mask --backend cuda", 2, "backend is one of"),
    ("train examples/self_reasoning.mask --out /dev/null/runs --steps 1", 2, "cannot make the folder"),
    ("train examples/self_reasoning.mask --out {root}/r --data {root}/none", 2, "cannot read"), ("train examples/self_reasoning.mask --out {root}/r --learning-rate nan", 2, "learning rate"),
    ("train examples/self_reasoning.mask --out {root}/r --dim 30 --heads 4", 2, "no multiple of heads 4: give a --dim that is a multiple of --heads"), ("train {inputs} --out {root}/r", 2, "reads tensors (doc, open, w)"),
    ("train zoo:gemma3", 2, "`srt-masks zoo gemma-3 > gemma-3.mask`, and add a line there, such as `predict token -> index + 1`"),
    ("train examples/self_reasoning.mask --tile 7", 2, "--tile=7 says how rows of a shared sequence are dealt, and no sequence is shared: give --context-parallel"),
    ("train examples/self_reasoning.mask --step 10", 2, "unrecognized arguments: --step 10 (did you mean `--steps`?); see srt-masks train --help"),
    ("train examples/self_reasoning.mask --steps ten", 2, "invalid int value: 'ten'; see srt-masks train --help"), ("bench", 2, "required: SPEC; see srt-masks bench --help"),
    ("demo {inputs}", 2, "reads tensors (doc, open, w)"), ("demo {given}", 2, "does not repeat"), ("demo {fixed}", 2, "does not repeat"),
    ("sample {wrong}", 2, "broken"), ("sample {root}/none", 2, "no such file"),
    ("compare examples/self_reasoning.mask", 2, "compare takes two specs or more, and compares the others with the first: srt-masks compare examples/self_reasoning.mask OTHER.mask"),
    ("test {fixed} --steps 3", 2, "--steps=3 given; the layout"), ("test examples/self_reasoning.mask --steps 3 -1", 2, "steps is a number of time steps"),
    (f"bench {REASONING} --repeat 0", 2, "repeat is a whole number"), (f"bench {REASONING} --heads 0", 2, "heads is a whole number"), (f"bench {REASONING} --steps 2 0", 2, "nothing to time"),
    (f"bench {REASONING} --device nope", 2, "device is one that torch has here"), ("bench {layers}", 2, "give --layers"), ("bench {inputs}", 2, "missing inputs"), ("bench {fixed} --steps 3", 2, "--steps"),
])  # fmt: skip
def test_exit_codes_and_one_clear_error(run, files, arguments: str, code: int, words: str):
    (files.root / "bytes").write_bytes(b"\xff\xfe\x00")
    said = run(*arguments.format(**vars(files)).split())
    assert said.code == code and words in said.err, said.err
    assert (code == 0) == (said.err == "")
    assert code != 2 or (said.err.count("error: ") == 1 and said.err.strip().count("\n") == 0)
    assert code == 0 or not said.out


# Every mistake about an argument: in Python `layers=`, on the command line `--layers`.
@pytest.mark.parametrize(("arguments", "flag"), [
    ("show {heads}", "--heads"), ("show {layers}", "--layers"), ("show {heads} --heads 2 --head 2", "--heads"), ("show {layers} --layers 2 --layer 2", "--layers"),
    ("show {fixed} --steps 2", "--steps"), ("show examples/self_reasoning.mask --steps 900", "--steps"), ("show {given}", "--given"),
    ("show {given} --steps 2 --given GIVEN", "--given"), ("show examples/self_reasoning.mask --given GIVEN", "--given"), ("show {given} --given 3", "--given"),
    ("show {inputs}", "--input 'doc=[...]' --input 'open=[...]' --input 'w=...'"), ("explain {heads} 1 0", "--heads"), ("explain {layers} 1 0", "--layers"),
    ("explain {layers} 1 0 --layers 2 --layer 2", "--layers"), ("explain {heads} 1 0 --heads 2 --head 3", "--heads"), ("explain {fixed} 1 0 --steps 2", "--steps"),
    ("explain examples/self_reasoning.mask 20 0 --steps 2", "--steps"), ("explain {given} 1 0", "--given"), ("explain {inputs} 1 0", "--input"),
    ("plan {heads}", "--heads"), ("plan {layers}", "--layers"), ("plan {layers} --layer 0", "--layers"), ("plan {given}", "--given"), ("plan {fixed} --steps 3", "--steps"), ("plan {inputs}", "--input"),
    ("emit {heads} --stage plan", "--heads"), ("emit {layers} --stage plan", "--layers"), ("emit {given} --stage plan", "--given"), ("emit {fixed} --stage plan --steps 3", "--steps"),
    ("emit {inputs} --stage plan", "--input"),
])  # fmt: skip
def test_messages_speak_of_flags(run, files, arguments: str, flag: str):
    words = [GIVEN if w == "GIVEN" else w for w in arguments.format(**vars(files)).split()]
    said = run(*words)
    assert said.code == 2 and flag in said.err and not said.out
    assert not re.search(r"(?<!-)\b(heads?|layers?|steps|given|inputs?)=", said.err), said.err


@pytest.mark.parametrize(("message", "said"), [
    ("give layers=", "give --layers"), ("give fewer steps=, or less", "give fewer --steps, or less"), ("steps=2 given", "--steps=2 given"), ("steps=(24, 5) given", "--steps=24x5 given"), ("or steps=(queries, keys) where", "or --steps=QUERIESxKEYS where"), ("capability=(9, 0) is", "--capability=9.0 is"), ("head= and layer=.", "--head and layer=."),
    ("give given={'role': [...]}", "give --given {'role': [...]}"), ("max_seconds= is", "--max-seconds is"), ("`x == 3 and steps==4`", "`x == 3 and steps==4`"),
    ("written as .svg, .png; `layout given { ... }`", "written as .svg, .png; `layout given { ... }`"), ("the tokens=  two", "the tokens=  two"),
])  # fmt: skip
def test_only_flags_of_the_command_become_flags(message: str, said: str):
    assert in_flags(message, {"layers", "steps", "head", "given", "max_seconds", "capability"}) == said


def test_the_version(run):
    assert run("--version").out == f"srt-masks {srt_masks.__version__}\n"


def test_a_reader_that_has_gone_is_no_error():
    gone, output = os.pipe()
    os.close(gone)
    done = subprocess.run([sys.executable, "-m", "srt_masks", "zoo"], stdout=output, stderr=subprocess.PIPE, timeout=60)
    os.close(output)
    assert (done.returncode, done.stderr) == (0, b"")


# ------------------------------------------------------------------------------------------------ check


def test_check_says_that_nothing_is_wrong(run, files):
    assert run("check", files.heads).out == f"{files.heads}: no mistakes\n"
    assert run("check", files.claims).out.splitlines()[1] == f"1 claim (`assert`) read, not proved here: srt-masks prove {files.claims}"
    assert f"2 claims (`assert`) read, not proved here: srt-masks prove {REASONING}" in run("check", REASONING).out
    assert run("check", files.claims, "--format", "json").out == "[]\n"
    assert run("check", "zoo:gemma 3").out.startswith("zoo:gemma-3: no mistakes")


def test_check_reports_every_mistake(run, files):
    said = run("check", files.wrong)
    assert said.code == 1 and not said.out and re.findall(r"error\[(.*?)\]", said.err) == ["unknown-name", "unknown-target", "unknown-role"]
    assert f"--> {files.wrong}:1:8" in said.err and "attend causl\n  |        ^^^^^ did you mean `causal`?" in said.err


def test_mistakes_for_programs(run, files):
    said = run("check", files.wrong, "--format", "json")
    found = json.loads(said.out)
    assert said.code == 1 and not said.err
    places = [(d["slug"], d["line"], d["column"], d["end_line"], d["end_column"]) for d in found]
    assert places == [("unknown-name", 1, 8, 1, 13), ("unknown-target", 2, 6, 2, 7), ("unknown-role", 2, 19, 2, 20)]
    assert found[0]["file"] == files.wrong and found[0]["label"] == "did you mean `causal`?" and found[1]["help"] == ["for example `stop k, v where ...`"]
    Path(files.wrong).write_text("attend causal and\n  (q.pos -\n  k.pos)\n")
    (spanning,) = json.loads(run("check", files.wrong, "--format", "json").out)
    assert (spanning["line"], spanning["end_line"]) == (2, 3) and spanning["slug"] == "type-mismatch"
    assert run("check", str(files.root / "none"), "--format", "json").code == 2  # not a mistake of a text


def test_check_reads_standard_input(run, monkeypatch):
    for text, code, words in (
        (b"attend causal", 0, ""),
        (b"\xef\xbb\xbfattend causal\r\n", 0, ""),
        (b"attend causal\nstop z", 1, "<stdin>:2:6"),
        (b"attend \xff", 2, "byte 7"),
    ):
        typed(monkeypatch, text)
        said = run("check", "-")
        assert said.code == code and words in said.err, text
    monkeypatch.setattr(sys, "stdin", None)
    assert run("check", "-").code == 2


# ------------------------------------------------------------------------------------------------ fmt

UGLY, NEAT = "attend   causal\nstop k where q.pos>3", "attend causal\nstop k where q.pos > 3\n"


@pytest.fixture
def ugly(tmp_path: Path) -> Path:
    path = tmp_path / "ugly.mask"
    path.write_text(UGLY)
    return path


def assert_alone(path: Path) -> None:
    """No file of a rewrite is left beside it."""
    assert not [p for p in path.parent.iterdir() if p.name.endswith(".tmp")]


def test_fmt_rewrites_in_place_and_says_nothing(run, ugly: Path):
    for _ in range(2):
        said = run("fmt", str(ugly))
        assert (said.code, said.out, said.err) == (0, "", "") and ugly.read_text() == NEAT
    assert_alone(ugly)
    before = ugly.stat()
    run("fmt", str(ugly))
    assert ugly.stat().st_ino == before.st_ino and ugly.stat().st_mtime_ns == before.st_mtime_ns  # what is right is not written


def test_fmt_only_looks(run, ugly: Path):
    said = run("fmt", "--check", str(ugly))
    assert said.code == 1 and said.out == f"{ugly} would change\n" and ugly.read_text() == UGLY
    said = run("fmt", "--diff", str(ugly))
    assert said.code == 1 and "-attend   causal\n" in said.out and "+attend causal\n" in said.out and f"--- {ugly}" in said.out and ugly.read_text() == UGLY
    ugly.write_text(NEAT)
    for flag in ("--check", "--diff"):
        said = run("fmt", flag, str(ugly))
        assert (said.code, said.out) == (0, "")


def test_fmt_of_several_files_does_those_that_are_right(run, files, ugly: Path):
    other = files.root / "other.mask"
    other.write_text(UGLY)
    said = run("fmt", str(ugly), files.broken, str(other))
    assert said.code == 1 and f"{files.broken}:" in said.err and not said.out
    assert ugly.read_text() == other.read_text() == NEAT and Path(files.broken).read_text() == TEXTS["broken"]
    said = run("fmt", "--check", str(ugly), files.broken)
    assert said.code == 1 and not said.out and "error[" in said.err


def test_fmt_prints_what_is_no_file(run, monkeypatch):
    typed(monkeypatch, UGLY.encode())
    assert run("fmt", "-").out == NEAT
    assert run("fmt", "zoo:causal").out == schemes.text_of("causal")


def test_fmt_leaves_byte_order_marks_and_line_ends_of_other_systems_behind(run, ugly: Path):
    ugly.write_bytes(b"\xef\xbb\xbf" + UGLY.replace("\n", "\r\n").encode())
    assert run("fmt", str(ugly)).code == 0 and ugly.read_bytes() == NEAT.encode()
    ugly.write_bytes(b"\xef\xbb\xbf" + NEAT.encode())
    assert run("fmt", "--check", str(ugly)).code == 1


def test_fmt_refuses_a_file_that_is_read_only(run, ugly: Path):
    ugly.chmod(0o444)
    said = run("fmt", str(ugly))
    assert said.code == 2 and "read-only" in said.err and ugly.read_text() == UGLY
    assert_alone(ugly)


def test_fmt_refuses_a_file_of_several_names(run, ugly: Path):
    os.link(ugly, ugly.with_name("same.mask"))
    said = run("fmt", str(ugly))
    assert said.code == 2 and "2 hard links" in said.err and ugly.read_text() == UGLY
    assert_alone(ugly)


def test_fmt_follows_a_link_and_keeps_it(run, ugly: Path):
    folder = ugly.parent / "elsewhere"
    folder.mkdir()
    link = folder / "link.mask"
    link.symlink_to(ugly)
    assert run("fmt", str(link)).code == 0
    assert link.is_symlink() and not ugly.is_symlink() and ugly.read_text() == NEAT
    assert [p.name for p in folder.iterdir()] == ["link.mask"]


def test_fmt_keeps_the_mode(run, ugly: Path):
    ugly.chmod(0o640)
    assert run("fmt", str(ugly)).code == 0 and ugly.read_text() == NEAT and ugly.stat().st_mode & 0o777 == 0o640


def test_fmt_that_cannot_replace_leaves_nothing(run, ugly: Path, monkeypatch):
    def full(self: Path, other: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    said = run("fmt", str(ugly))
    assert said.code == 2 and "No space left" in said.err and ugly.read_text() == UGLY
    assert_alone(ugly)


# ------------------------------------------------------------------------------------------------ show


def rows(out: str) -> list[str]:
    """The marks of a picture in characters."""
    return ["".join(found[1].split()) for line in out.splitlines() if (found := re.fullmatch(r" *\d+ \w+ +((?:[#+o.] ?)+)", line))]


@pytest.mark.parametrize(("ending", "begin"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("html", b"<!doctype html"), ("SVG", b"<svg")])
def test_show_writes_a_file(run, files, ending: str, begin: bytes):
    path = files.root / f"picture.{ending}"
    assert run("show", REASONING, "--steps", "2", "--out", str(path)).out == f"{path}\n"
    assert path.read_bytes().lower().startswith(begin.lower())


def test_show_refuses_other_endings(run, files):
    for name in ("picture.jpg", "picture"):
        said = run("show", REASONING, "--out", str(files.root / name))
        assert said.code == 2 and "written as .svg, .html, .png" in said.err and not (files.root / name).exists()
    said = run("show", REASONING, "--out", str(files.root / "none" / "x.svg"))
    assert said.code == 2 and "cannot write" in said.err


def test_show_takes_inputs_and_finds_the_steps(run, files):
    assert rows(run("show", files.inputs, *INPUTS).out) == ["+..", "++.", "..."]
    assert len(rows(run("show", files.steps, "--input", "doc=[0, 1, 1]").out)) == 6
    assert rows(run("show", files.steps, "--input", "doc=[0, 1, 1]", "--steps", "3").out)[2] == "..####"
    assert run("show", files.steps, "--input", "doc=[0, 1, 1]", "--steps", "2").code == 2


def test_a_title_has_the_params_that_are_drawn(run):
    small = ("show", REASONING, "--steps", "2", "--param", "reasons=1")
    assert run(*small, "--input", "horizon=0").out == run(*small, "--param", "horizon=0").out
    assert run(*small, "--input", "horizon=0").out.startswith(f"{REASONING} with reasons = 1, horizon = 0\n")
    for twice, words in (
        (("--input", "horizon=0", "--param", "horizon=2"), "`horizon` is given twice, by --input and by --param"), (("--param", "horizon=0", "--param", "horizon=2"), "--param horizon=... is given twice"),
    ):  # fmt: skip
        said = run(*small, *twice)
        assert said.code == 2 and said.err == f"error: {words}: give it once\n"


def test_zero_and_one_stand_for_false_and_true(run, files):
    shown = run("show", files.inputs, *INPUTS).out
    assert run("show", files.inputs, "--input", "doc=[0,0,1]", "--input", "open=[1,1,0]", "--input", "w=0.5").out == shown
    assert run("show", files.inputs, "--input", "doc=[0,0,1]", "--input", "open=[true,1,0]", "--input", "w=0.5").out == shown


@pytest.mark.parametrize(("inputs", "words"), [
    (["doc=[0, 0.5, 1]"], "`doc` is declared int; got float"), (["doc=[0, true, 1]"], ""), (["doc=[true, true, false]"], "`doc` is declared int; got bool"),
    (["open=[2, 1, 0]"], "`open` is declared bool; got int64"), (["open=[0.5, 1, 0]"], "`open` is declared bool; got float"), (["open=[1.0, 1, 0]"], "`open` is declared bool"),
    (["w=[1, 2]"], "2"), (['w="x"'], "`w` is numbers in nested lists"), (["doc=[[0, 1], [0]]"], "all rows of one length"), (["doc=[0, null, 1]"], "`doc` is numbers"),
    (["docs=[0]"], "unknown argument `docs`: did you mean `doc`"), (["doc=[0, 0, 1]", "doc=[0, 0, 1]"], "--input doc=... is given twice: give it once"),
    (["doc=[0,"], "wants JSON"), (["doc"], "wants NAME=JSON"), (["=[1]"], "wants NAME=JSON"),
])  # fmt: skip
def test_an_input_is_as_declared(run, files, inputs: list[str], words: str):
    named = dict(item.split("=", 1) for item in INPUTS[1::2])
    rest = [f"{name}={value}" for name, value in named.items() if not any(i.startswith(f"{name}=") for i in inputs)]
    said = run("show", files.inputs, *(part for item in (*rest, *inputs) for part in ("--input", item)))
    assert (said.code == 0) if not words else (said.code == 2 and words in said.err), said.err


def test_an_input_that_is_missing(run, files):
    said = run("show", files.inputs, *INPUTS[2:])
    assert said.code == 2 and "missing input: give --input 'doc=[...]' (doc: int per token)" in said.err


def test_show_chooses_heads_and_layers(run, files):
    assert rows(run("show", files.heads, "--heads", "2", "--head", "1", "--steps", "3").out) == ["#..", "##.", ".##"]
    assert rows(run("show", files.layers, "--layers", "2", "--layer", "0", "--steps", "3").out) == ["#..", "##.", "###"]
    assert len(rows(run("show", files.heads, "--heads", "2", "--steps", "3").out)) == 6
    for flags in (("--head", "2", "--heads", "2"), ("--head", "-1", "--heads", "2")):
        assert "head is from 0 to 1" in run("show", files.heads, *flags).err


def test_show_of_layouts_of_one_length_and_given(run, files):
    assert rows(run("show", files.fixed).out) == ["####"] * 4
    assert "has one length, 4 tokens" in run("show", files.fixed, "--steps", "4").err
    assert rows(run("show", files.given, "--given", GIVEN).out) == ["##.", "##.", "###"]
    assert "no role is called 'wrod'; did you mean `word`?" in run("show", files.given, "--given", GIVEN.replace("word", "wrod")).err


# ------------------------------------------------------------------------------------------------ explain, plan, emit


def test_explain_says_what_flows_where(run, files):
    said = run("explain", REASONING, "--flow", "--param", "reasons=2", "--steps", "4")
    assert said.code == 0 and said.out.startswith(f"{REASONING} with reasons = 2, horizon = 16\n4 steps, 12 rows, any number of layers\n")
    found = json.loads(run("explain", REASONING, "--flow", "--format", "json").out)
    assert [r["distances"] for r in found["learns"] if r["returns"] == "never"] == [[[1, 16]], [[1, 16]]] and found["steps"] == 20
    inputs = ("--input", "doc=[0,0,1]", "--input", "open=[1,1,1]", "--input", "w=1")
    assert run("explain", files.inputs, "--flow", *inputs).out.splitlines()[1].startswith("3 steps, 3 rows")


def test_explain_answers(run, files):
    said = run("explain", REASONING, "6", "4", "--param", "reasons=2", "--param", "horizon=1")
    assert said.code == 0 and "Yes: the query sees the key" in said.out and "no gradient: stopped by line 21" in said.out
    found = json.loads(run("explain", REASONING, "6", "4", "--param", "reasons=2", "--param", "horizon=1", "--format", "json").out)
    assert found["sees"] is True and found["gates"] == {"q": 1.0, "k": 0.0, "v": 0.0, "hidden": 1.0} and found["query"]["role"] == "token"
    said = run("explain", files.heads, "4", "0", "--head", "1")
    assert "No: the query does not see the key (head 1, layer 0). `head == 0 or window(2)` is false." in said.out
    assert "Yes" in run("explain", files.layers, "4", "0", "--layers", "2", "--layer", "0").out


def test_explain_takes_the_steps_of_the_inputs(run, files):
    assert "`same(doc)` is true: 0 == 0" in run("explain", files.steps, "1", "0", "--input", "doc=[0, 1, 1]").out
    assert "beyond the last position, 5" in run("explain", files.steps, "6", "0", "--input", "doc=[0, 1, 1]").err
    assert "Yes" in run("explain", files.given, "1", "0", "--given", GIVEN).out


def test_explain_has_no_nan_for_programs(run, files):
    said = run("explain", files.inputs, "1", "0", *INPUTS[:4], "--input", "w=NaN", "--format", "json")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(said.out, parse_constant=refuse)["gates"]["k"] == "nan"


@pytest.mark.parametrize(("arguments", "words"), [
    ("{heads} --heads 2 --steps 64", "heads 2, 64 x 64 tokens"), ("{layers} --layers 2 --steps 64", "64 x 64 tokens"), ("{layers} --layers 2 --layer 1 --steps 64", "64 x 64 tokens"), ("{fixed}", "4 x 4 tokens"),
    ("{given} --given GIVEN", "3 x 3 tokens"), ("{inputs} INPUTS", "3 x 3 tokens"), ("examples/self_reasoning.mask --param reasons=1 --steps 8", "16 x 16 tokens"),
])  # fmt: skip
@pytest.mark.parametrize("command", ["plan", "emit --stage plan"])
def test_plans_of_every_kind_of_spec(run, files, command: str, arguments: str, words: str):
    extra = {"GIVEN": [GIVEN], "INPUTS": INPUTS}
    said = run(*command.split(), *(part for w in arguments.format(**vars(files)).split() for part in extra.get(w, [w])))
    assert said.code == 0 and "forward" in said.out and words in said.out, said


def test_plan_chooses_layer_length_and_tile(run, files):
    wide, narrow = (run("plan", files.layers, "--layers", "2", "--layer", str(layer), "--tile", "16", "--steps", "64").out for layer in (0, 1))
    assert re.search(r"forward +6 +4 +0 +6 +16\n", wide) and re.search(r"forward +0 +7 +0 +9 +16\n", narrow)
    assert "512 x 512 tokens" in run("plan", "zoo:causal").out and "64 x 64 tokens" in run("emit", "zoo:causal", "--stage", "plan").out


@pytest.mark.parametrize("stage", ["tree", "checked", "ir", "triton"])
@pytest.mark.parametrize("name", ["heads", "layers", "fixed", "given", "inputs", "steps"])
def test_every_stage_of_every_kind_of_spec(run, files, name: str, stage: str):
    said = run("emit", getattr(files, name), "--stage", stage)
    words = {"tree": "(Attend where=", "checked": "attend", "ir": "attend: ", "triton": "def attended("}[stage]
    assert said.code == 0 and words in said.out and not said.err


def test_emit_shows_a_tree_whose_names_are_wrong(run, files):
    assert "(Name name='causl')" in run("emit", files.wrong, "--stage", "tree").out
    assert run("emit", files.wrong, "--stage", "checked").code == 1


# ------------------------------------------------------------------------------------------------ test, zoo


def test_test_says_what_holds(run, files):
    said = run("test", files.heads, "--law", "formatting", "--law", "permutation", "--examples", "2")
    assert said.code == 0 and [line.split()[:2] for line in said.out.splitlines()] == [["formatting", "holds"], ["permutation", "holds"]]
    listed = run("test", files.heads, "--list")
    assert (
        listed.code == 0 and re.search(r"formatting +the canonical", listed.out) and re.search(r"packing +not here: ", listed.out) and "cases" not in listed.out
    )


def test_test_says_what_is_broken(run, files):
    said = run("test", files.claims, "--law", "claims", "--examples", "2")
    assert said.code == 1 and re.match(r"claims +BROKEN", said.out) and "srt.testing.LAWS['claims'](case)" in said.out


def test_zoo_lists_and_prints(run):
    listed = run("zoo").out
    assert all(e.slug in listed for e in schemes.entries()) and f"{len(schemes.entries())} schemes" in listed
    assert run("zoo", "Gemma 3").out == run("zoo", "zoo:gemma-3").out == schemes.text_of("gemma 3")
    every = json.loads(run("zoo", "--format", "json").out)
    assert [e["name"] for e in every] == [e.slug for e in schemes.entries()] and "text" not in every[0]
    one = json.loads(run("zoo", "causal", "--format", "json").out)
    assert one["text"] == schemes.text_of("causal") and one["source"].startswith("Vaswani") and one["words"].startswith("Each token")


@pytest.mark.parametrize(("name", "words"), [
    ("bert", "did you mean `bert padding`?"), ("llama", "did you mean `llama 4 chunks`?"), ("xl", "`prefix lm`, `transformer-xl`, `xlnet`?"), ("gema 3", "did you mean `gemma 3`?"), ("", "the zoo has no ``"),
])  # fmt: skip
def test_zoo_suggests(run, name: str, words: str):
    for arguments in (("zoo", name), ("check", f"zoo:{name}")):
        said = run(*arguments)
        assert (said.code, said.out) == (2, "") and words in said.err
