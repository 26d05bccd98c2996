"""A question that the runs of an experiment answer: which arms, in which figure; as a table by seed, as differences of pairs, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .pages import Runs, by_seed, paired, values
from .picture import picture


@dataclass(frozen=True, slots=True)
class Question:
    """`arms` and `pairs` of them by what they are, in words, in the order in which they are shown; `figure` is the key of the number in a line of results,
    and `counted` what it is, in words. `steps`: of runs of so many alone."""

    title: str
    arms: Mapping[str, str]
    figure: str = "held_out"
    counted: str = "error over variance"
    pairs: Mapping[tuple[str, str], str] = field(default_factory=dict)
    steps: int | None = None
    mark: tuple[float, str] | None = (1.0, "knows nothing")
    log: bool = False
    zero: bool = True

    def of(self, runs: Runs) -> Runs:
        """The runs that it is about."""
        return [run for run in runs if run["name"] in self.arms and self.steps in (None, run["steps"])]

    def table(self, runs: Runs) -> str:
        return by_seed(self.of(runs), self.figure, self.arms)

    def differences(self, runs: Runs) -> str:
        return paired(self.of(runs), self.figure, self.pairs)

    def picture(self, runs: Runs) -> str | None:
        """SVG; None where no arm has run."""
        own = self.of(runs)
        # A picture has no type of code.
        figures = {about.replace("`", ""): list(found.values()) for arm, about in self.arms.items() if (found := values(own, arm, self.figure))}
        return picture(self.title, self.counted, figures, log=self.log, zero=self.zero, mark=self.mark) if figures else None


def pictures_of(questions: Mapping[str, Question], runs: Runs) -> dict[str, str]:
    """By the name of its file, those of the questions whose arms have run."""
    return {f"{name}.svg": drawn for name, question in questions.items() if (drawn := question.picture(runs)) is not None}
