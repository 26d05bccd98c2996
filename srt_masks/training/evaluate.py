"""How well a model says what it has not seen: bits per byte of the last row that predicts each data token, and the parts of the loss by role and slot."""

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

from ..diagnostics import InputError
from ..models.checkpoint import load_model
from ..models.tensor_files import read_about
from ..models.vocabulary import read_vocabulary, vocabulary_of
from .encode import tokens_of
from .loop import BITS
from .session import Session, device_of

MOST_WINDOWS = 64  # of the held-out data, that a run is judged by
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Score:
    """`bits_per_byte` is of the last row that predicts each data token, never the mean over rows; `loss` the weighted mean, and `parts` the plain means by
    role and slot, in nats a row."""

    bits_per_byte: float
    loss: float
    parts: Mapping[str, float]
    windows: int
    words: int  # data tokens of a window


@torch.no_grad()
def score(
    model: Any, batches: Iterable[Tensor], *, bytes_per_token: float = 1.0, values: Mapping[str, int | float] | None = None,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext, mean: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Score:  # fmt: skip
    """Of windows (n, words) int64, on the model's device, batch after batch. `values` are params of the call; `mean` is over the processes that share them."""
    sums = torch.zeros(4, dtype=torch.float64)
    parts: dict[str, float] = {}
    windows = words = 0
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            windows, words = windows + len(batch), batch.shape[1]
            with context():
                loss = model(batch, return_parts=True, **(values or {}))
            sums[:3] += torch.stack([loss.loss * loss.weight, loss.weight, loss.last * loss.count]).cpu().double()
            sums[3] += loss.count
            for name, part in loss.parts.items():
                parts[name] = parts.get(name, 0.0) + part.item() * len(batch)
    finally:
        model.train(was_training)
    errors, weights, nats, count = mean(sums).tolist()
    parts = {name: part / windows for name, part in parts.items()}
    return Score(nats / max(count, 1) * BITS / bytes_per_token, errors / weights if weights else 0.0, parts, windows, words)


def held_out_score(session: Session) -> Score:
    """Of the held-out data of a run, evenly spread, with the params of its last step."""
    windows = session.corpus.held_out.spread(session.recipe.words, MOST_WINDOWS).to(session.device)
    return score(
        session.module, windows.split(AT_ONCE), bytes_per_token=session.corpus.bytes_per_token, values=session.values(session.step), context=session.autocast,
        mean=session.strategy.mean,
    )  # fmt: skip


def model_file(checkpoint: str | Path) -> Path:
    """The file of a model, given it or the folder of its run."""
    return Path(checkpoint) / "model.safetensors" if Path(checkpoint).is_dir() else Path(checkpoint)


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
        raise InputError(f"{path} reads numbers, not tokens: score it from Python, by its loss on targets=")
    vocabulary = vocabulary_of(about, known, str(path)) if tokenizer is None else read_vocabulary(tokenizer)
    if vocabulary.num_tokens > known:
        raise InputError(f"{tokenizer} has {vocabulary.num_tokens} tokens; {path} knows {known}: give the tokenizer it was trained with")
    if words is None:
        words = int(about["words"]) if about.get("words", "").isdecimal() else model.config.max_positions
    if words < 2 or (windows is not None and windows < 1):
        raise InputError(f"words is 2 or more, and windows 1 or more; got words={words} and windows={windows}")
    where = device_of(device)
    with tempfile.TemporaryDirectory() as folder:
        data, bytes_per_token = tokens_of(files, vocabulary, Path(folder))
        if len(data) < words:
            raise InputError(f"{', '.join(map(str, files))}: {len(data):,} tokens are too few for a window of {words}: give more, or smaller words=")
        count = len(data) // words
        starts = [n * words for n in range(count)]
        if windows is not None and windows < count:
            starts = [starts[n * count // windows] for n in range(windows)]
        batches = (data.windows(starts[n : n + AT_ONCE], words).to(where) for n in tqdm(range(0, len(starts), AT_ONCE), desc="evaluating", disable=quiet))
        return score(model.to(where), batches, bytes_per_token=bytes_per_token, values=params)
