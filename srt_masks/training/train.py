"""`train`: a run from beginning to end, in a folder: the model, the run's checkpoint, a log, a plot of the loss."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..default_device import on_the_cpu
from ..diagnostics import InputError, visible
from ..models.checkpoint import about_spec
from ..models.transformer import SpecTransformer
from ..models.vocabulary import KEY, Vocabulary, read_vocabulary
from ..spec import Spec
from .board import Board
from .code_here import code_here
from .encode import encoded
from .evaluate import Score, held_out_score
from .log import Log, entry_of
from .loop import Report, steps
from .plot import draw_loss
from .recipe import Recipe, check_recipe
from .session import Session, start
from .state import about_run, recipe_to_json, resume_session, save_session
from .stop import Stop
from .strategy import Alone, Strategy
from .task import Places, Task

STARTS = ("new", "resume", "over")
MODEL, STATE, LOG, PLOT = "model.safetensors", "training.safetensors", "log.jsonl", "loss.png"


@dataclass(frozen=True, slots=True)
class Result:
    model: SpecTransformer
    task: Task
    vocabulary: Vocabulary
    held_out: float  # in the measure of the task: bits per byte of text
    steps: int
    words: int  # data tokens in a training sequence
    seconds: float
    checkpoint: Path
    log: Path
    plot: Path
    asked: int | None = None  # the signal that asked it to stop when there was nothing left to stop


@on_the_cpu
def train(
    spec: Spec, recipe: Recipe, out: str | Path, files: Sequence[str | Path] = (), quiet: bool = False, *, task: Task | None = None, begin: str = "over",
    validation: Sequence[str | Path] = (), tokenizer: str | Path | None = None, tensorboard: bool = False,
    initial: str | Path | None = None, strategy: Strategy | None = None, watch: Callable[[Report], None] | None = None,
) -> Result:  # fmt: skip
    """Train a transformer built from a spec, and write the model, the run's checkpoint, a log and a plot into the folder `out`.

    `begin` is "over": anew, whatever the folder holds; "new": anew, unless it holds a run or its model; "resume": go on with that run, taking the
    same steps, bit for bit, as without the break, on the same
    files unless others are named. `task` is what is trained on in place of files, and is given again to go on. `initial` is the model, its file or the folder of its run, whose weights the run
    begins with in place of fresh ones, and need not be named to go on. `tokenizer` is a tokenizer.json of Hugging Face, whose tokens are trained on in place of bytes; they are
    written into the folder first. `watch` is called with every step's `Report`.
    Raises InputError for data that cannot be read or have changed, a folder that cannot be written, or sizes that do not fit; SpecError for a claim that
    does not hold. Nothing is written before the spec, the data and the sizes have been tried. At the first Ctrl-C or SIGTERM the step ends, a checkpoint is
    written, and KeyboardInterrupt or SystemExit raised; whatever happens, the last checkpoint is whole.
    """
    if begin not in STARTS:
        raise InputError(f"begin is {' or '.join(map(repr, STARTS))}; got {begin!r}")
    strategy = strategy or Alone()
    out = Path(out)
    check_recipe(recipe, strategy.shares, strategy.weight_shares, strategy.here)
    if begin == "new":
        _refuse_to_lose(out, strategy)
    places = Places(tuple(map(str, files)), tuple(map(str, validation)), None if tokenizer is None else str(tokenizer))
    if task is not None and places != Places():
        raise InputError("a task is what is trained on in place of files and their tokenizer: give one or the other")
    if begin == "resume" and task is None:
        run = about_run(strategy.about(out / STATE), out / STATE)
        if not run["data"].get("text", True):
            raise InputError(f"{out / STATE} is of a run on {visible(run['data']['name'])}: give its task= again")
        was = run["places"]
        _check_there(
            out / STATE,
            {
                "data": () if places.files else was.files,
                "validation": () if places.validation else was.validation,
                "tokenizer": () if places.tokenizer or was.tokenizer is None else (was.tokenizer,),
            },
        )
        places = Places(places.files or was.files, places.validation or was.validation, places.tokenizer or was.tokenizer)
    vocabulary = read_vocabulary(places.tokenizer)
    if task is None:
        # The leader writes the files of tokens, if there are to be any.
        data = strategy.leader_first(lambda: encoded(places.files, recipe.words, vocabulary, out, recipe.held_out, places.validation, strategy.leader), out)
        task = replace(data, places=places)
    session = start(spec, recipe, task, strategy, initial)
    if begin == "resume":
        resume_session(session, out / STATE)
    _folder(out)
    if strategy.leader:
        for left in filter(Path.is_file, out.glob(".*.part")):  # by a run that was killed while it wrote
            left.unlink(missing_ok=True)
    for name in (MODEL, STATE, PLOT):
        if (out / name).is_dir() and not (name == STATE and not isinstance(strategy, Alone)):
            raise InputError(f"cannot write {out / name}: it is a folder")
    with (
        Stop(says=strategy.leader and not quiet) as stop,
        _Writer(session, out, vocabulary, quiet, tensorboard, session.step if begin == "resume" else None) as writer,
    ):
        if _run(session, stop, writer, watch):
            writer.save()
            writer.write({"event": "interrupted", "step": session.step, "checkpoint": str(out / STATE)})
            stop.leave()
        writer.save()
        found = held_out_score(session)
        writer.write({"event": "end", "steps": session.step, **_of_held_out(found), "seconds": session.seconds})
        if strategy.leader:
            draw_loss(writer.history, found.measured, session.measure, task.name, out / PLOT)
    return Result(session.model, task, vocabulary, found.measured, session.step, recipe.words, session.seconds, out / MODEL, out / LOG, out / PLOT, stop.asked)


def _run(session: Session, stop: Stop, writer: _Writer, watch: Callable[[Report], None] | None) -> bool:
    """Steps until there are no more, the time is up, or a rank is asked to stop; whether one was."""
    recipe, begin = session.recipe, time.perf_counter()
    for report in steps(session):
        writer.report(report)
        if watch is not None:
            watch(report)
        if recipe.validate_every is not None and report.step % recipe.validate_every == 0 and report.step < recipe.steps:
            found = held_out_score(session)
            writer.write({"event": "validation", "step": report.step, **_of_held_out(found), "held_out_loss": found.loss})
        if report.step < recipe.steps and (report.step == 1 or report.step % recipe.save_every == 0):
            writer.save()
        late = recipe.max_seconds is not None and time.perf_counter() - begin > recipe.max_seconds
        if report.step < recipe.steps and session.strategy.agree(stop.asked is not None):
            return True
        if recipe.max_seconds is not None and session.strategy.agree(late):
            break
    return False


class _Writer:
    """What a run writes: all of it where a rank leads, checkpoints on every rank."""

    def __init__(self, session: Session, out: Path, vocabulary: Vocabulary, quiet: bool, tensorboard: bool, after: int | None):
        self.session, self.out, self.vocabulary = session, out, vocabulary
        leader = session.strategy.leader
        self._board = Board(out, after) if leader and tensorboard else None
        self._log = Log(out / LOG, session.measure, after) if leader else None
        recipe = session.recipe
        self._bar = tqdm(
            total=recipe.steps, initial=session.step, desc="training", unit="step", disable=quiet or not leader, file=sys.stderr, dynamic_ncols=True
        )
        self.write({"event": "begin", **_header(session)} if after is None else {"event": "resume", "step": after, **code_here()})

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._log is not None:
            self._log.close()
        if self._board is not None:
            self._board.close()

    @property
    def history(self) -> list[tuple[int, float]]:
        return [] if self._log is None else self._log.history

    def write(self, entry: dict[str, Any]) -> None:
        if self._log is not None:
            self._log.write(entry)
        if self._board is not None:
            self._board.write(entry)

    def report(self, report: Report) -> None:
        self.write(entry_of(report, self.session.measure))
        params = "".join(f", {name} {value:g}" for name, value in report.params.items())
        self._bar.set_postfix_str(
            f"loss {report.loss:.3f}, {report.measured:.3f} {self.session.measure.short}, {report.tokens_per_second:,.0f} tokens/s{params}"
        )
        self._bar.update()

    def save(self) -> None:
        save_session(self.session, self.out / STATE)
        session, text = self.session, self.vocabulary.text
        # Whoever loads the model means the params that it was trained with last.
        about = about_spec(session.spec, **session.values(session.step)) | {"words": str(session.recipe.words), "step": str(session.step)}
        session.strategy.save_model(self.out / MODEL, session.model, about | ({} if text is None else {KEY: text}))


def _refuse_to_lose(out: Path, strategy: Strategy) -> None:
    """Raises InputError where a run, or the model that is left of one, would be written over."""
    state = out / STATE
    try:
        run = about_run(strategy.about(state), state) if state.exists() else None
    except InputError:
        run = None  # nothing that could be gone on with
    if run is not None and run["step"] < run["recipe"].steps:
        raise InputError(
            f"{state} is at step {run['step']} of {run['recipe'].steps} of a run: go on with it (resume=), begin it anew (restart=), or give another out="
        )
    if run is not None or (out / MODEL).is_file():
        holds = f"a run that ended at step {run['step']}" if run is not None else f"a model, {MODEL}"
        raise InputError(f"{out} holds {holds}, and would be written over: give another out=, or begin anew all the same (restart=)")


def _check_there(state: Path, named: Mapping[str, Sequence[str]]) -> None:
    """Raises InputError for a file of a run that is not where its name says as seen from here, where it need not be so as seen from where the run was begun."""
    for what, files in named.items():
        for file in files:
            if not Path(file).is_absolute() and not Path(file).exists():
                raise InputError(
                    f"{state} is of a run with {what} from {visible(file)}, a name that was given in another folder perhaps, and here it is of no file: "
                    f"go on from there, or give {what}= again"
                )


def _of_held_out(found: Score) -> dict[str, Any]:
    return {f"held_out_{found.measure.key}": found.measured, "held_out_parts": found.parts}


def _header(session: Session) -> dict[str, Any]:
    return {
        "spec": session.spec.text, "params": session.spec.params, "recipe": recipe_to_json(session.recipe), "data": session.task.name,
        "fingerprint": session.fingerprint, "parameters": sum(p.numel() for p in session.model.parameters()), "processes": session.strategy.world, **code_here(),
        **({} if session.initial is None else {"initial": asdict(session.initial)}),
    }  # fmt: skip


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror or error}") from None
