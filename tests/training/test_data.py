"""Data: read a window at a time, held out, tokenised; what changes or vanishes while a model trains is noticed."""

from __future__ import annotations

import os
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import RECIPE, learnt, lines, run

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.models.vocabulary import Bytes, read_vocabulary
from srt_masks.training import encode
from srt_masks.training.data import bits_per_byte, corpus
from srt_masks.training.encode import encoded
from srt_masks.training.evaluate import evaluate, score
from srt_masks.training.sources import FileSource, Held, Joined, fingerprint

TEXT = ("One text, of some lines, that says the same again and again; naïve — and so on.\n" * 90).encode()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_bytes(TEXT)
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    package = pytest.importorskip("tokenizers")
    made = package.Tokenizer(package.models.BPE())
    made.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = package.decoders.ByteLevel()
    alphabet = package.pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator([TEXT.decode()], package.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


# ------------------------------------------------------------------------------------------------ reading


def test_sources_end_to_end_are_one(tmp_path: Path):
    parts = [os.urandom(n) for n in (7, 1, 30)]
    for number, part in enumerate(parts):
        (tmp_path / str(number)).write_bytes(part)
    joined, whole = Joined([*(FileSource(tmp_path / str(n)) for n in range(3)), Held(b"end")]), b"".join(parts) + b"end"
    assert joined.size == len(whole)
    for start in range(len(whole)):
        for count in range(len(whole) - start + 1):
            assert joined.read(start, count) == whole[start : start + count], (start, count)


def test_windows_are_what_the_file_holds(text: Path):
    data = corpus([text], 16, held_out=0.25)
    cut = len(TEXT) - len(TEXT) // 4
    assert (len(data.train), len(data.held_out)) == (cut, len(TEXT) // 4)
    assert data.train.windows([0, 5], 9).tolist() == [list(TEXT[:9]), list(TEXT[5:14])]
    assert bytes(data.held_out.spread(16, 4)[-1].tolist()) == TEXT[-16:]
    assert data.held_out.spread(16, 4)[0].tolist() == list(TEXT[cut : cut + 16])
    assert data.held_out.spread(16, 10**6).shape == (len(TEXT) // 4 // 16, 16)
    draws = data.draw(500, 16, torch.Generator().manual_seed(0))["x"]
    assert all(bytes(row) in TEXT[:cut] for row in draws.tolist()) and len(draws.unique(dim=0)) > 50


def test_held_out_files_of_their_own(text: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.write_bytes(b"something else entirely")
    data = corpus([text], 16, validation=[other])
    assert len(data.train) == len(TEXT) and bytes(data.held_out.windows([0], 23)[0].tolist()) == b"something else entirely"
    assert data.name.endswith("held out: " + str(other))
    with pytest.raises(srt.InputError, match="23 held out are too few for windows of 24"):
        corpus([text], 24, validation=[other])


def test_a_file_larger_than_memory_is_read_where_it_is_asked(tmp_path: Path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)
        file.seek(2**40 - 20)
        file.write(b"the end of it, here.")
    if os.stat(path).st_blocks * 512 > 2**30:
        pytest.skip("this file system has no sparse files")
    data = corpus([path], 20)
    assert bytes(data.held_out.spread(20, 64)[-1].tolist()) == b"the end of it, here."
    assert data.draw(4, 20, torch.Generator())["x"].shape == (4, 20) and len(data.fingerprint(20)) > 100


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(srt.InputError, match="is a pipe or a device"):
            corpus([path], 16)


def test_a_fingerprint_tells_contents_apart(text: Path, tmp_path: Path):
    assert fingerprint(Held(TEXT)) == fingerprint(FileSource(text))
    assert len({fingerprint(Held(x)) for x in (TEXT, TEXT[:-1], TEXT[1:] + b"x", b"a" + TEXT[1:], b"", b"a")}) == 6


# ------------------------------------------------------------------------------------------------ what changes meanwhile


def grown(path: Path) -> None:
    path.write_bytes(TEXT + b"more")


def cut_short(path: Path) -> None:
    os.truncate(path, 100)


def rewritten(path: Path) -> None:
    path.write_bytes(TEXT[::-1])
    os.utime(path, (1, 1))


def replaced(path: Path) -> None:
    path.with_name("other").write_bytes(TEXT)
    os.replace(path.with_name("other"), path)


@pytest.mark.parametrize(
    ("change", "words"),
    [(Path.unlink, "is no longer there"), (grown, "was changed"), (cut_short, "was changed"), (rewritten, "was changed"), (replaced, "was changed")],
)
def test_a_file_that_changes_or_vanishes_is_noticed_and_the_run_goes_on_when_it_is_back(change, words: str, text: Path, tmp_path: Path):
    recipe = replace(RECIPE, steps=5, save_every=2)

    def watch(report):
        if report.step == 3:
            change(text)

    with pytest.raises(srt.InputError, match=words) as error:
        run(tmp_path / "out", [text], recipe, watch=watch)
    assert str(text) in str(error.value) and "Put it back as it was, then resume" in str(error.value)
    assert [line["step"] for line in learnt(tmp_path / "out")] == [1, 2, 3]
    srt.load_model(tmp_path / "out" / "model.safetensors")
    text.write_bytes(TEXT)
    run(tmp_path / "out", None, recipe, begin="resume")  # of the same files
    run(tmp_path / "whole", [text], recipe)
    assert learnt(tmp_path / "out") == learnt(tmp_path / "whole")


def test_a_file_cut_short_between_a_look_and_a_read(text: Path):
    source = FileSource(text)
    os.truncate(text, 100)
    with pytest.raises(srt.InputError, match=r"cut short while it was read: byte 100 of 7,"):
        source.read(95, 10)


# ------------------------------------------------------------------------------------------------ evaluation


def test_the_score_is_that_of_the_last_row_of_each_byte(text: Path, tmp_path: Path):
    spec = srt.parse("layout repeat { token, reason }\nattend causal\npredict token -> index + 1 weight 1 / 2\npredict reason -> index + 1")
    torch.manual_seed(1)
    model = srt.build_model(spec, dim=8, depth=1, heads=2, num_tokens=256)
    windows = torch.tensor(list(TEXT[:120])).reshape(10, 12)
    found = score(model, [{"x": part} for part in windows.split(4)], bits_per_byte())
    last = -model.log_probs(windows)[:, 1:].double().mean()
    torch.testing.assert_close(found.measured, (last / torch.log(torch.tensor(2.0))).item())
    parts = model(windows, return_parts=True)
    torch.testing.assert_close(found.loss, parts.loss.item())
    torch.testing.assert_close(dict(found.parts), {n: p.item() for n, p in parts.parts.items()})
    assert (found.windows, found.words) == (10, 12) and model.training
    srt.save_model(model, tmp_path / "model.safetensors")
    (tmp_path / "some").write_bytes(TEXT[:125])
    again = evaluate(tmp_path, [tmp_path / "some"], words=12, quiet=True)
    torch.testing.assert_close(again.measured, found.measured)
    assert again.windows == 10
    two = evaluate(tmp_path, [tmp_path / "some"], words=12, windows=2, quiet=True)
    torch.testing.assert_close(two.measured, score(model, [{"x": windows[[0, 5]]}], bits_per_byte()).measured)


def test_eval_says_bits_and_parts(text: Path, tmp_path: Path, capsys):
    run(tmp_path / "out", [text], replace(RECIPE, steps=2))
    assert main(["eval", str(tmp_path / "out"), "--data", str(text), "--windows", "5"]) == 0
    said = capsys.readouterr().out
    assert "bits per byte" in said and "5 windows of 8 data tokens" in said and "\n  reason  " in said
    assert main(["eval", str(tmp_path / "out"), "--data", str(text), "--format", "json", "--param", "horizon=1", "--words", "9"]) == 0
    assert '"words": 9' in capsys.readouterr().out
    for arguments, words in (
        (["--data", "none"], "cannot read none"), (["--words", "1"], "words is 2 or more"), (["--words", "1000000"], "too few for a window"),
        (["--windows", "0"], "error: windows is 1 or more; got --windows=0\n"),
        (["--param", "nothing=1"], "nothing"), (["--param", "reasons=2"], "model.safetensors, a range or a table, and was 1 in training: it cannot be 2 now"), (["--device", "abacus"], "device is auto"),
    ):  # fmt: skip
        assert main(["eval", str(tmp_path / "out"), "--data", str(text), *arguments]) == 2
        assert words in (said := capsys.readouterr().err) and "evaluating" not in said


# ------------------------------------------------------------------------------------------------ tokens


def test_tokens_are_those_of_the_tokenizer(tokenizer: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encode, "AT_ONCE", 1000)
    vocabulary = read_vocabulary(tokenizer)
    data = encoded([text], 16, vocabulary, tmp_path / "out", 0.1)
    pieces = [data.train, data.held_out]
    held = [vocabulary.decode(p.windows([0], len(p))[0].tolist()) for p in pieces]
    assert b"".join(held) == TEXT and 0.09 < len(held[1]) / len(TEXT) < 0.11
    assert data.num_tokens == vocabulary.num_tokens > 256 and data.bytes_per_token == len(held[1]) / len(data.held_out) > 2
    written = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    encoded([text], 16, vocabulary, tmp_path / "out", 0.1)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == written and len(written) == 2
    encoded([text], 16, vocabulary, tmp_path / "out", 0.2)
    assert len(list((tmp_path / "out").iterdir())) == 4
    inside = TEXT.index("—".encode(), len(TEXT) // 2) + 1
    share = (len(TEXT) - inside + 0.5) / len(TEXT)
    assert len(TEXT) - int(len(TEXT) * share) == inside
    data = encoded([text], 16, vocabulary, tmp_path / "out", share)
    assert vocabulary.decode(data.held_out.windows([0], 8)[0].tolist()).startswith(b" and so on")


def test_long_lines_are_cut_between_characters(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encode, "AT_ONCE", 10)
    data = ("é€𝄞" * 30).encode()
    pieces = list(encode._pieces(Held(data), 0, len(data)))
    assert b"".join(p for _, p in pieces) == data and all(p.decode() for _, p in pieces)
    assert all(data[encode._at_character(Held(data), n) :].decode() for n in range(len(data) - 4))


def test_a_run_on_tokens(tokenizer: Path, text: Path, tmp_path: Path, capsys):
    result = run(tmp_path / "out", [text], replace(RECIPE, steps=3), tokenizer=tokenizer)
    model = srt.load_model(result.checkpoint)
    assert model.config.num_tokens == read_vocabulary(tokenizer).num_tokens != 256
    found = evaluate(tmp_path / "out", [text], quiet=True)  # by the tokenizer in the file
    assert abs(found.measured - lines(tmp_path / "out")[-1]["held_out_bits_per_byte"]) < 0.3
    data, each = encode.tokens_of([text], read_vocabulary(tokenizer), tmp_path)
    assert found.windows == len(data) // 8 and each == len(TEXT) / len(data)
    assert main(["sample", str(tmp_path / "out"), "--prompt", "One text", "--count", "3", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.startswith("One text")
    run(tmp_path / "out", None, replace(RECIPE, steps=4), begin="resume")  # of the same tokens
    assert [line["step"] for line in learnt(tmp_path / "out")] == [1, 2, 3, 4]
    with pytest.raises(srt.InputError, match="other data"):
        run(tmp_path / "out", [tokenizer], replace(RECIPE, steps=5), begin="resume")


def test_what_is_no_tokenizer_or_no_text(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "bad.json").write_text('{"model": 3}')
    (tmp_path / "bytes").write_bytes(TEXT + b"\xff\xfe" + TEXT)
    for path, words in ((tmp_path / "bad.json", "no tokenizer.json"), (tmp_path / "bytes", "no tokenizer.json"), (tmp_path / "none", "cannot read")):
        with pytest.raises(srt.InputError, match=words):
            read_vocabulary(path)
    with pytest.raises(srt.InputError, match=r"bytes, from byte 0: a tokenizer reads text: byte \d+ is not UTF-8"):
        run(tmp_path / "out", [tmp_path / "bytes"], tokenizer=tokenizer)
    assert not list((tmp_path / "out").iterdir())
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(srt.InputError, match="takes the package tokenizers: pip install tokenizers"):
        read_vocabulary(tokenizer)


def test_bytes_are_a_vocabulary():
    assert Bytes().encode(b"\x00\xff") == [0, 255] and Bytes().decode([0, 255]) == b"\x00\xff"


# ------------------------------------------------------------------------------------------------ boards


def test_a_board_gets_every_number_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said, purged = [], []

    class SummaryWriter:
        def __init__(self, folder, purge_step=None):
            purged.append(purge_step)

        def add_scalar(self, name, value, step):
            said.append((name, value, step))

        def close(self):
            said.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    recipe = replace(RECIPE, steps=4, validate_every=2)
    (tmp_path / "events.out.tfevents.1.another").write_bytes(b"of a run before")
    run(tmp_path, recipe=recipe, tensorboard=True)
    assert not list(tmp_path.glob("events*"))
    assert [(n, s) for n, _, s in said[:-1] if n == "loss"] == [("loss", step) for step in range(1, 5)]
    assert [(v, s) for n, v, s in said[:-1] if n == "held_out_bits_per_byte"] == [
        (x["held_out_bits_per_byte"], x.get("step", 4)) for x in lines(tmp_path) if "held_out_bits_per_byte" in x
    ]
    assert said[-1] == "closed" and [x["step"] for x in lines(tmp_path) if x.get("event") == "validation"] == [2]
    run(tmp_path, recipe=replace(recipe, steps=5), tensorboard=True, begin="resume")
    assert purged == [None, 5]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(srt.InputError, match="take its package: pip install tensorboard"):
        run(tmp_path, recipe=recipe, tensorboard=True)
