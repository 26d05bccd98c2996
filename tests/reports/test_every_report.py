"""What people have reported of other tools, by kind: every report has a law that bears its name."""

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
    "D8": ("test_huggingface.py", "test_D8_packed_positions_keep_documents_apart_beside_a_mask_of_ones_or_a_cache"),
    "D1": ("test_capabilities.py", "test_a_cell_is_honoured_or_raises_what_it_says"),
    "J5": ("test_backends.py", "test_checkpointing_copies_and_pickles_keep_the_rule"),
    "M2": ("test_distributed.py", "test_M2_a_window_on_two_ranks_is_that_of_one"),
    "N7": ("test_ragged_models.py", "test_N7_F7_a_short_row_is_what_it_is_alone"),
    "J7": ("test_backends.py", "test_the_second_order_raises_and_is_never_a_silent_zero"),
}


def test_every_report_has_a_law():
    folder = Path(__file__).parent
    here = {found for path in folder.glob("test_*.py") for found in re.findall(r"^def test_([A-O]\d)_", path.read_text(), re.M)}
    assert here | set(ELSEWHERE) == set(REPORTS) and not here & set(ELSEWHERE)
    for name, test in ELSEWHERE.values():
        assert f"def {test}(" in (folder.parent / name).read_text(), test
