"""Limits of time: of a claim, of what is done when its time is over, and of all claims of a text that is compiled. Nothing hangs, and nothing passes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
import warnings
from collections import OrderedDict

import pytest

import srt_masks as srt
from srt_masks.proofs import guard, known
from srt_masks.proofs.guard import UnprovedWarning
from srt_masks.proofs.verdict import Outcome

HARD = "param n = 7\nattend causal\nassert q.pos * q.pos * q.pos + n * n != k.pos * k.pos + 77777777777 or q.pos % n == k.pos // n"


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("SRT_MASKS_CACHE", str(tmp_path))
    monkeypatch.setattr(known, "_MEMORY", OrderedDict())


# ------------------------------------------------------------------------------------------------ a claim


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        # Four hundred layers, each of 500 rows: 20 seconds.
        ("attend k.pos == q.pos - 1 assert no flow where q.pos == 400 and k.pos == 0", "a call was found that may break it, and was not run: no answer within 0.5 s"),
        # Who reaches whom, among so many: 20 seconds, for each place a row may have.
        ("layout a * 2400 attend k.pos == q.pos - 2 or k.pos == 3 assert flow where k.pos < q.pos", "no answer within 0.5 s"),
    ],
    ids=["running what was found", "searching a large call"],
)  # fmt: skip
def test_what_reference_layers_and_searches_take_is_in_the_time(text: str, reason: str):
    begun = time.process_time()
    (verdict,) = srt.prove(srt.parse(text), seconds=0.5)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, reason)
    assert "give it more time: --seconds 5, or srt_masks.prove(spec, seconds=5)" in verdict.remedies
    assert time.process_time() - begun < 8


@pytest.mark.parametrize(("text", "params"), [
    ("param rows = 5000 layout a * rows attend k.pos <= q.pos + 1 assert causal", "--param rows=..."),
    ("param prompts = 4000 param words = 900 layout prompt * prompts, word * words data word attend k is prompt or causal predict word -> index", "--param prompts=... --param words=..."),
])  # fmt: skip
def test_what_is_too_large_to_be_run_is_neither_refuted_nor_an_error(text: str, params: str):
    (verdict,) = srt.prove(srt.parse(text))
    assert verdict.outcome is Outcome.UNKNOWN and not verdict
    assert re.fullmatch(r"a call of \d,\d00 tokens was found that may break it, too large to be run", verdict.reason)
    assert verdict.remedies == (f"prove it of a smaller layout: {params}, or srt_masks.parse(text, params=...)",)
    with pytest.warns(UnprovedWarning, match="too large to be run; prove it of a smaller layout"):
        srt.compile(srt.parse(text))


def test_building_a_question_keeps_to_the_time_as_well():
    """250,000 comparisons of each of 500 rows a table names: minutes, were only z3 told when to stop."""
    text = "input t: int[500] per token\nattend causal and any(q.t[i] == k.pos for i in range(500))\nassert every query attends"
    begun = time.process_time()
    (verdict,) = srt.prove(srt.parse(text), seconds=0.5)
    assert not verdict
    assert time.process_time() - begun < 30


def ran(script: str) -> str:
    """What a process of its own prints; signals and forks are no matter of the others."""
    began = f"import os, signal, threading, time\nimport srt_masks as srt\nhard = srt.parse({HARD!r})\n"
    return subprocess.run([sys.executable, "-W", "ignore", "-c", began + textwrap.dedent(script)], capture_output=True, text=True, timeout=120).stdout


def test_one_interrupt_ends_a_proof():
    found = ran("""
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it runs in the background ignore it
        srt.prove(srt.parse("attend causal\\nassert k.pos <= q.pos"))
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            srt.prove(hard, seconds=60)
        except KeyboardInterrupt:
            print("interrupted")
        """)
    assert found == "interrupted\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_the_child_of_a_process_that_proves_can_prove():
    found = ran("""
        thinking = threading.Thread(target=srt.prove, args=(hard,), kwargs={"seconds": 3})
        thinking.start()
        time.sleep(0.5)
        if os.fork() == 0:
            signal.alarm(60)
            print(srt.prove(srt.parse("attend causal\\nassert k.pos <= q.pos"))[0].outcome, flush=True)
            os._exit(0)
        os.wait()
        """)
    assert found == "proved\n"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 10**400, True, "3"])
def test_seconds_are_a_number_of_them(seconds):
    spec = srt.parse("attend causal\nassert k.pos <= q.pos")
    for ask in (lambda: srt.prove(spec, seconds=seconds), lambda: srt.equivalent(spec, spec, seconds=seconds)):
        with pytest.raises(srt.InputError, match=r"seconds is a number above 0, of at most 604,800 \(a week\); got"):
            ask()


# ------------------------------------------------------------------------------------------------ all claims of a text


def test_all_claims_of_a_text_hold_up_a_compile_so_long_and_no_longer(monkeypatch):
    """Forty hard ones are not forty times ten seconds, and those that are none of it are proved, wherever they stand."""
    hard, easy = HARD.splitlines()[-1], "assert k.pos <= q.pos"
    text = "\n".join(
        [*HARD.splitlines()[:-1], *(hard.replace("777", str(800 + i)) for i in range(10)), easy, *(hard.replace("777", str(700 + i)) for i in range(10)), easy]
    )
    monkeypatch.setattr(guard, "ALTOGETHER", 2.0)
    begun = time.monotonic()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        srt.compile(srt.parse(text))
    assert time.monotonic() - begun < 10
    found = [str(w.message) for w in said if w.category is UnprovedWarning]
    assert len(found) == 20 and not any(easy in x for x in found)
    assert all("no answer within its share of the 2 s for all claims of the text; prove it before: `srt-masks prove`" in x for x in found), found
    with pytest.raises(srt.SpecError, match="no answer within its share of the 2 s"):
        srt.compile(srt.parse(text), proofs="strict")
