"""How well a model says what it has not seen: in the measure of its task (bits per byte, of text), and by the parts of the loss, by role and slot."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..default_device import on_the_cpu
from ..diagnostics import InputError
from ..models.checkpoint import load_model
from ..models.tensor_files import read_about
from ..models.vocabulary import read_vocabulary, vocabulary_of
from .data import bits_per_byte
from .encode import tokens_of
from .session import Session, device_of
from .task import Batch, Measure, Tally, on, parts_of, sequences

AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Score:
    """`measured` is in `measure`: of text bits per byte of the last row that predicts each data token, never the mean over rows. `loss` is the weighted
    mean, and `parts` the plain means by role and slot, in nats a row; of numbers squared errors."""

    measured: float
    loss: float
    parts: Mapping[str, float]
    windows: int  # sequences that were looked at
    words: int  # data tokens of each
    measure: Measure


@torch.no_grad()
@on_the_cpu
def score(
    model: Any, batches: Iterable[Batch], measure: Measure, *, values: Mapping[str, int | float] | None = None,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext, mean: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Score:  # fmt: skip
    """Of sequences of one length, on the model's device, batch after batch. `values` are params of the call; `mean` is over the processes that share
    them."""
    tally = Tally.of(measure)
    parts: dict[str, float] = {}
    windows = words = 0
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            count = sequences(batch)
            windows, words = windows + count, next(value.shape[1] for value in batch.values() if isinstance(value, Tensor))
            with context():
                loss = model(**batch, return_parts=True, inputs=values)
            tally.add(loss, count)
            for name, part in loss.parts.items():
                parts[name] = parts.get(name, 0.0) + part.item() * count
    finally:
        model.train(was_training)
    errors, weights, counted, count = mean(tally.sums).tolist()
    parts = {name: part / windows for name, part in parts.items()}
    return Score(counted / max(count, 1) * measure.scale, errors / weights if weights else 0.0, parts, windows, words, measure)


@on_the_cpu
def held_out_score(session: Session) -> Score:
    """Of what a run is judged by, with the params of its last step."""
    batch = session.task.unseen(session.recipe.words)
    whole, rest = divmod(sequences(batch), AT_ONCE)
    parts = parts_of(batch, [AT_ONCE] * whole + [rest] * (rest > 0))
    return score(
        session.module, (on(session.device, part) for part in parts), session.measure, values=session.values(session.step), context=session.autocast,
        mean=session.strategy.mean,
    )  # fmt: skip


def model_file(checkpoint: str | Path) -> Path:
    """The file of a model, given it or the folder of its run."""
    return Path(checkpoint) / "model.safetensors" if Path(checkpoint).is_dir() else Path(checkpoint)


@on_the_cpu
def evaluate(
    checkpoint: str | Path, files: Sequence[str | Path], *, words: int | None = None, windows: int | None = None,
    params: Mapping[str, int | float] | None = None, tokenizer: str | Path | None = None, device: str = "auto", quiet: bool = False,
) -> Score:  # fmt: skip
    """A model that `train` wrote (its file, or the folder it is in) on files that it was not trained on: windows of `words` data tokens, as many as it was
    trained with unless given, without overlap; `windows` of them, evenly spread, or all. What is left over at the end is not looked at. `params` are values
    of the call. Raises InputError for a file that cannot be read, too few data, and tokens that the model does not know."""
    path = model_file(checkpoint)
    model, about = load_model(path), read_about(path)
    known = model.config.num_tokens
    if known is None:
        raise InputError(f"{path} reads numbers, not tokens: score it from Python, by evaluate.score")
    if model.config.numbers is not None:
        raise InputError(f"{path} reads numbers beside its tokens, and files hold none: score it from Python, by evaluate.score")
    asked = model.spec.with_params(**(params or {})).params
    if fixed := next((p for p in model.spec.checked.params if p.structural and asked[p.name] != p.value), None):
        name = fixed.name
        raise InputError(
            f"{name} sizes the layout of {path}, a range or a table, and was {fixed.value} in training: it cannot be {asked[name]} now; leave it out"
        )
    vocabulary = vocabulary_of(about, known, str(path)) if tokenizer is None else read_vocabulary(tokenizer)
    if vocabulary.num_tokens > known:
        raise InputError(f"{tokenizer} has {vocabulary.num_tokens} tokens; {path} knows {known}: give the tokenizer it was trained with")
    if words is None:
        words = int(about["words"]) if about.get("words", "").isdecimal() else model.config.max_positions
    if words < 2:
        raise InputError(f"words is 2 or more data tokens; got words={words}")
    if windows is not None and windows < 1:
        raise InputError(f"windows is 1 or more; got windows={windows}")
    where = device_of(device)
    with tempfile.TemporaryDirectory() as folder:
        data, bytes_per_token = tokens_of(files, vocabulary, Path(folder))
        if len(data) < words:
            raise InputError(f"{', '.join(map(str, files))}: {len(data):,} tokens are too few for a window of {words}: give more, or smaller words=")
        count = len(data) // words
        starts = [n * words for n in range(count)]
        if windows is not None and windows < count:
            starts = [starts[n * count // windows] for n in range(windows)]
        batches = (
            {"x": data.windows(starts[n : n + AT_ONCE], words).to(where)} for n in tqdm(range(0, len(starts), AT_ONCE), desc="evaluating", disable=quiet)
        )
        return score(model.to(where), batches, bits_per_byte(bytes_per_token), values=params)
