"""What the page says of the runs: `python -m experiments.reasoning_tokens.page` makes it again of results/runs.jsonl."""

from __future__ import annotations

from pathlib import Path

from ..pages import Runs, origin, remake
from ..question import Question, pictures_of

ARMS = {
    "a_nobody": "A: later steps train nobody",
    "b_reasons": "B: they train reasoning tokens alone",
    "c_all": "C: they train all",
    "d_unread": "D: as B, and no later step reads them",
    "e_not_soon-1": "E: as B, but for the next step",
    "e_not_soon-2": "E: as B, but for the next 2 steps",
    "e_not_soon-4": "E: as B, but for the next 4 steps",
    "f_words": "F: they train words alone",
}
PAIRS = {
    ("b_reasons", "a_nobody"): "B - A: reasoning tokens may be trained",
    ("b_reasons", "d_unread"): "B - D: and may be read",
    ("b_reasons", "c_all"): "B - C: words may not be trained",
    ("f_words", "c_all"): "F - C: reasoning tokens may not be trained",
    ("e_not_soon-1", "b_reasons"): "E, 1 - B: the next step does not train them",
    ("e_not_soon-2", "b_reasons"): "E, 2 - B: the next 2 do not",
    ("e_not_soon-4", "b_reasons"): "E, 4 - B: the next 4 do not",
    ("e_not_soon-4", "f_words"): "E, 4 - F",
}
ERROR = Question("Who may be trained by later steps?", ARMS, counted="error over variance, of the reasoning rows", pairs=PAIRS)


def blocks(runs: Runs) -> dict[str, str]:
    return {"table": ERROR.table(runs), "differences": ERROR.differences(runs), "origin": origin(runs)}


def pictures(runs: Runs) -> dict[str, str]:
    return pictures_of({"error": ERROR}, runs)


if __name__ == "__main__":
    remake(Path(__file__).parent, blocks, pictures)
