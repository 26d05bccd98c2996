"""What people have reported of other tools, by kind: which reports have a law here, and which wait, and for what."""

from __future__ import annotations

import re
from pathlib import Path

KINDS = {
    "A": "2356", "B": "24679", "C": "1368", "D": "1468", "E": "2468", "F": "1357", "G": "14", "H": "13", "I": "1457", "J": "1357", "K": "13", "L": "145",
    "M": "2", "N": "14579", "O": "13",
}  # fmt: skip
REPORTS = [kind + number for kind, numbers in KINDS.items() for number in numbers]

# Under its own name elsewhere: the file, and a test that is there.
ELSEWHERE = {
    "J5": ("test_backends.py", "test_checkpointing_copies_and_pickles_keep_the_rule"),
    "J7": ("test_backends.py", "test_the_second_order_raises_and_is_never_a_silent_zero"),
}
WAITING = {
    "A5": "the empty row is A2; that `assert every query attends` is refuted, naming a query, needs proofs",
    "D1": "a matrix of backends and capabilities, as one law",
    "D4": "the model builder beside the backends, as one law",
    "D6": "activation checkpointing in models",
    "D8": "two sources of masks, in a Hugging Face model",
    "L4": "sampling with a cache",
    "M2": "two ranks",
    "N1": "cross attention in words",
    "N4": "a positive claim",
    "N5": "sinks and registers, as one law",
    "N7": "models of ragged rows",
    "N9": "shared prompts, as one law",
}


def test_every_report_has_a_law_or_waits_for_something():
    folder = Path(__file__).parent
    here = {found for path in folder.glob("test_*.py") for found in re.findall(r"^def test_([A-O]\d)_", path.read_text(), re.M)}
    places = [here, set(ELSEWHERE), set(WAITING)]
    assert set().union(*places) == set(REPORTS) and sum(map(len, places)) == len(REPORTS)
    for name, test in ELSEWHERE.values():
        assert f"def {test}(" in (folder.parent / name).read_text(), test
