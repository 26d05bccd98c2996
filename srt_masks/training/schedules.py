"""What changes from step to step: the learning rate, and params of the text that follow a curriculum."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from ..diagnostics import InputError, did_you_mean, listing
from ..spec import Spec

LEAST_RATE = 0.1  # of the learning rate, at the last step


def rate(step: int, steps: int, warm_up: int) -> float:
    """The share of the learning rate that a step (from 1) takes: a linear warm-up, then a cosine down to a tenth."""
    warm = min(warm_up, max(1, steps // 10))
    if step < warm:
        return step / warm
    return LEAST_RATE + (1 - LEAST_RATE) / 2 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@dataclass(frozen=True, slots=True)
class Schedule:
    """A param's value at some steps, in lines from each to the next: `horizon=0@0,16@1000`. Before the first and after the last it stays."""

    name: str
    points: tuple[tuple[int, int | float], ...]  # (step, value), by step

    def at(self, step: int) -> int | float:
        """The value at a step; whole where all of the schedule's are."""
        after = bisect_right([s for s, _ in self.points], step)
        if after in (0, len(self.points)):
            return self.points[min(after, len(self.points) - 1)][1]
        (first, low), (last, high) = self.points[after - 1], self.points[after]
        between = (high - low) * (step - first)
        if all(isinstance(v, int) for _, v in self.points):
            return int(low) + int(between // (last - first))
        return low + between / (last - first)

    def __str__(self) -> str:
        return f"{self.name}=" + ",".join(f"{value}@{step}" for step, value in self.points)


def read_schedule(text: str) -> Schedule:
    """`NAME=VALUE@STEP,VALUE@STEP,...`. Raises InputError for another form."""
    name, equals, rest = text.partition("=")
    points = []
    try:
        for item in rest.split(","):
            value, at, step = item.partition("@")
            points.append((int(step), int(value) if value.strip().lstrip("+-").isdecimal() else float(value)))
            if not at:
                raise ValueError
    except ValueError:
        points = []
    steps = [step for step, _ in points]
    if not equals or not name.strip() or not points or steps != sorted(set(steps)) or steps[0] < 0 or not all(math.isfinite(v) for _, v in points):
        raise InputError(f"a schedule is NAME=VALUE@STEP,VALUE@STEP, its steps ascending from 0 or more, for example horizon=0@0,16@1000; got {text!r}")
    return Schedule(name.strip(), tuple(points))


def check_schedules(spec: Spec, schedules: tuple[Schedule, ...]) -> None:
    """Raises InputError for a param that the text does not have, or whose value decides the shape of the layout: only arguments of a call can change."""
    names = [s.name for s in schedules]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"schedules: `{name}` has two; give one")
        if name not in spec.params:
            known = list(spec.params)
            raise InputError(f"schedules: this spec has no param `{name}`; {did_you_mean(name, known) or 'its params: ' + (listing(known) or 'none')}")
        if next(p for p in spec.checked.params if p.name == name).structural:
            raise InputError(f"schedules: the layout of this spec depends on `{name}`, so it cannot change while a model trains; a param that rules read can")
