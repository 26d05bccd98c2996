"""The command of an experiment: what it refuses to publish, where it keeps what, and how mistakes are told."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from experiments.command import command
from experiments.reasoning_tokens import run as reasoning_tokens


def given(monkeypatch: pytest.MonkeyPatch, words: str, main=lambda asked: None) -> argparse.Namespace:
    """What `main` gets of a command line."""
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(sys, "argv", ["run", *words.split()])
    command(
        lambda asked: seen.append(asked) or main(asked),
        "about",
        "name",
        steps=600,
        longer={3000: ("rules",)},
        seeds=(3, 7),
        groups=("rules", "dials"),
        more=("pair",),
    )
    return seen[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--quick", "--quick makes models that learn nothing"),
        ("--steps 599", "--steps 600 or 3000, not 599"),
        ("--seeds 2 3 8", "--seeds of 3 to 7, not 2 8"),
        ("--steps 3000", "has dials at 600 steps alone: --only rules"),
        ("--steps 3000 --only rules pair", "has pair at 600 steps alone: --only rules"),
    ],
)
def test_runs_of_no_protocol_are_not_published(words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        given(monkeypatch, f"--publish {words}")
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not given(monkeypatch, words).publish


def test_runs_of_the_protocol_are_published(monkeypatch: pytest.MonkeyPatch):
    for words in ("", "--steps 3000 --only rules", "--only dials pair", "--seeds 7 3"):
        assert given(monkeypatch, f"--publish {words}").publish


def test_runs_of_other_steps_have_a_folder_of_their_own(monkeypatch: pytest.MonkeyPatch):
    folders = [given(monkeypatch, f"--out there --steps {steps}").out for steps in (600, 3000, 50)]
    assert folders == [Path("there"), Path("there"), Path("there/50-steps")]


def test_a_command_ends_with_where_its_runs_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for words, place in (("", "runs/name"), ("--out there --steps 50", "there/50-steps"), ("--quick", "runs/name/quick")):
        given(monkeypatch, words, lambda asked: print("table"))
        assert capsys.readouterr().out == f"table\n\nruns  {Path(place)}\n"


@pytest.mark.parametrize(("words", "said"), [("--steps 0", "steps"), ("--jobs 0", "jobs"), ("--seeds -1", "seeds")])
def test_a_mistake_is_told_in_a_line(words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SystemExit, match=f"^error: .*{said}.*got .*{words.split()[1]}") as ended:
        given(monkeypatch, f"{words} --out {tmp_path}", reasoning_tokens.main)
    assert "\n" not in str(ended.value) and not any(tmp_path.iterdir())
