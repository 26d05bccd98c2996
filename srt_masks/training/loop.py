"""The training loop: one step after another, as a generator. It writes nothing and asks for nothing but its session: whoever drives it logs, saves,
shows progress, or lets several runs take turns."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..default_device import on_the_cpu
from ..diagnostics import InputError
from .schedules import rate
from .session import Session
from .task import Tally, equal_parts, on, sequences


@dataclass(frozen=True, slots=True)
class Report:
    """What one step came to."""

    step: int  # from 1
    loss: float  # the weighted mean over all rows that predict, in nats where they predict tokens
    measured: float  # in the measure of the task: bits per byte of text
    norm: float  # of the gradient, before it was clipped
    learning_rate: float
    params: Mapping[str, int | float]  # those that follow a schedule
    tokens_per_second: float  # data tokens, of this step
    seconds: float  # since the first step of the run


def steps(session: Session) -> Iterator[Report]:
    """Take the steps that are left, one for each report that is asked for; between two of them the session is whole.

    Raises InputError if the loss is no longer finite, or the data have changed; the session is then as the step found it, but for gradients and the
    position in the data.
    """
    while session.step < session.recipe.steps:
        begin = time.perf_counter()
        report = _step(session, session.step + 1, begin)
        yield report


@on_the_cpu
def _step(session: Session, number: int, begin: float) -> Report:
    recipe, strategy = session.recipe, session.strategy
    learning_rate = recipe.learning_rate * rate(number, recipe.steps, recipe.warm_up)
    for group in session.optimiser.param_groups:
        group["lr"] = learning_rate
    values = session.values(number)
    session.optimiser.zero_grad(set_to_none=True)
    batch = strategy.share(session.task.draw(recipe.batch, recipe.words, session.generator))
    parts = equal_parts(on(session.device, batch), recipe.accumulate)
    tally = Tally.of(session.measure)
    for place, part in enumerate(parts):
        with strategy.passing(session.module, place == len(parts) - 1):
            with session.autocast():
                loss = session.module(**part, return_parts=True, inputs=values)
            # The sum, not the mean: parts, and ranks, may differ in what their rows weigh together.
            (loss.loss * loss.weight).backward()
        tally.add(loss, sequences(part))
    errors, weights, counted, count = strategy.mean(tally.sums).tolist()
    for parameter in session.model.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(1 / weights if weights else 0.0)
    norm = strategy.clip(session.model, recipe.clip)
    mean = errors / weights if weights else math.nan
    if not math.isfinite(mean) or not math.isfinite(norm):
        what = f"the loss became {mean}" if not math.isfinite(mean) else f"the gradient's norm became {norm}"
        raise InputError(
            f"{what} at step {number}: resume from the last checkpoint with a smaller learning_rate= than {recipe.learning_rate}; a comparison takes another out= with it"
        )
    session.optimiser.step()
    session.step = number
    seconds = time.perf_counter() - begin
    session.seconds += seconds
    measured = counted / max(count, 1) * session.measure.scale
    return Report(number, mean, measured, norm, learning_rate, values, recipe.batch * recipe.words / seconds, session.seconds)
