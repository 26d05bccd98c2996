"""Commands about models: train, eval, sample, demo."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diagnostics import Error, InputError
from .arguments import name_of, params_of, spec_of
from .commands import print_pictures

if TYPE_CHECKING:
    from ..spec import Spec

OUT, DEMO_OUT = "runs/{}", "runs/demo/{}"  # by the name of the spec
WORDS = 64  # of models whose files do not say how many data tokens they were trained on at once


def train(options: argparse.Namespace) -> None:
    spec, begin = spec_of(options), "resume" if options.resume else "over" if options.restart else "new"
    with _processes(options) as strategy:
        result = _run_training(spec, options, OUT, begin, strategy)
    if strategy is None:
        _report(result, options)
    elif strategy.leader:
        from ..models.checkpoint import load_model

        # What each process has of the model may be a part of it.
        _report(replace(result, model=load_model(result.checkpoint)), options)


@contextmanager
def _processes(options: argparse.Namespace) -> Iterator[Any]:
    """The processes that train together: None for one alone, a `Strategy` for those that torchrun started."""
    context = 1 if options.context_parallel is None else options.context_parallel
    if options.tile is not None and context == 1:
        raise InputError(
            f"tile={options.tile} says how rows of a shared sequence are dealt, and no sequence is shared: give context_parallel=, or leave it out"
        )
    several = options.parallel is not None or options.context_parallel is not None
    if not several and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield None
        return
    from ..distributed.ranks import start, watched
    from ..distributed.strategies import STRATEGIES, finish

    with watched("Whatever checkpoint was written before is whole: start all again, with --resume."):
        ranks = start(context, device=options.device)
        yield STRATEGIES[options.parallel or "ddp"](ranks, options.tile)
        finish()


def evaluate(options: argparse.Namespace) -> None:
    from ..training.evaluate import evaluate as run

    score = run(
        options.checkpoint, options.data, words=options.words, windows=options.windows, params=params_of(options), tokenizer=options.tokenizer,
        device=options.device,
    )  # fmt: skip
    if options.format == "json":
        print(json.dumps({"bits_per_byte": score.measured, "loss": score.loss, "parts": score.parts, "windows": score.windows, "words": score.words}))
        return
    print(f"{score.measured:.4f} bits per byte, of the last row that predicts each; {score.windows:,} windows of {score.words} data tokens")
    print(f"loss {score.loss:.4f} nats, the weighted mean over all rows that predict; by role and slot:")
    width = max(map(len, score.parts), default=0)
    print("\n".join(f"  {name:<{width}}  {part:.4f}" for name, part in score.parts.items()))


def sample(options: argparse.Namespace) -> None:
    from ..models.checkpoint import load_model
    from ..models.sample import sample as draw
    from ..models.tensor_files import read_about
    from ..models.vocabulary import vocabulary_of
    from ..training.evaluate import model_file

    checkpoint = model_file(options.checkpoint)
    model, about = load_model(checkpoint), read_about(checkpoint)
    if model.config.num_tokens is None:
        raise InputError(f"{checkpoint} reads numbers, not tokens: it does not write")
    vocabulary = vocabulary_of(about, model.config.num_tokens, str(checkpoint))
    trained = int(about["words"]) if about.get("words", "").isdecimal() else WORDS
    prompts, stop = ([vocabulary.encode(os.fsencode(text)) for text in texts] for texts in (options.prompt or ["The "], options.stop))
    found = draw(
        model, prompts, options.count, words=trained if options.words is None else options.words, temperature=options.temperature, top_k=options.top_k,
        top_p=options.top_p, seed=options.seed, stop=stop, cache=not options.no_cache,
    )  # fmt: skip
    print("\n\n".join(_shown(vocabulary.decode([*prompt, *text])) for prompt, text in zip(prompts, found, strict=True)))


def demo(options: argparse.Namespace) -> None:
    from ..testing import compare

    spec = spec_of(options)
    refuse_to_train(spec)
    if not spec.checked.repeats:
        raise InputError("the demo writes one byte a time step, and this layout does not repeat: write `layout repeat { ... }`")
    print(f"1. {spec.filename} is a spec without mistakes: {', '.join(spec.roles)}; " + ", ".join(f"{n} = {v}" for n, v in spec.params.items()))
    smaller = {n: v for n, v in (("reasons", 2), ("horizon", 1)) if n in spec.params}
    print("\n2. Who attends to whom, and what trains" + (f" (drawn with {', '.join(f'{n} = {v}' for n, v in smaller.items())}, to fit)" if smaller else ""))
    print_pictures(spec.with_params(**smaller), steps=4)
    print("\n3. Gradients of the block-sparse backend against the pairwise reference in float64, 2 heads, 40 steps, float32")
    comparisons = compare(spec, steps=40)
    print("\n".join(f"   {c}" for c in comparisons))
    if not all(c.holds for c in comparisons):
        raise Error("the backend differs from the reference by more than it may")
    print("\n4. A small transformer built from the spec, trained on bytes")
    quick = {"steps": 6, "words": 16, "batch": 2, "dim": 32, "depth": 2, "heads": 2}
    # What another demo has left is of no worth; what stands in a folder that somebody names may be.
    begin = "new" if options.out is not None and not options.restart else "over"
    # However slow the machine, the whole demo ends within six minutes.
    _report(_run_training(spec, options, DEMO_OUT, begin, **(quick if options.quick else {"max_seconds": 270.0})), options, 40 if options.quick else 300)


def refuse_to_train(spec: Spec) -> None:
    """Raises InputError for a spec that no command can train as it is."""
    if spec.inputs:
        raise InputError(
            f"this spec reads tensors ({', '.join(spec.inputs)}), and training from the command line has none to give: use srt_masks.build_model from Python"
        )

    if spec.filename.startswith("zoo:") and not spec.checked.predictions:
        name = name_of(spec.filename)
        raise InputError(
            f"{spec.filename} has no `predict`: it says nothing of a loss. Make the text yours, `srt-masks zoo {name} > {name}.mask`, and add a line there, "
            f"such as `predict {spec.roles[spec.checked.data[-1]]} -> index + 1`"
        )


def _run_training(spec: Spec, options: argparse.Namespace, out: str, begin: str, strategy: Any = None, **quick: Any) -> Any:
    """`out` is where the run is kept unless a flag or a file says, a form that takes the name of the spec."""
    from ..training.config import FIELDS, PLACES, choices
    from ..training.recipe import Recipe
    from ..training.state import saved_recipe
    from ..training.train import STATE
    from ..training.train import train as run

    refuse_to_train(spec)
    flags = {name: getattr(options, name, None) for name in (*FIELDS, *PLACES)}
    chosen = choices(flags, getattr(options, "config", None))
    places = {"out": out.format(name_of(spec.filename)), **chosen.places}
    state = Path(places["out"]) / STATE
    recipe = chosen.applied((saved_recipe(state) if strategy is None else saved_recipe(state, strategy.about)) if begin == "resume" else Recipe(**quick))
    beside = {name: places[name] for name in ("validation", "tokenizer", "initial", "tensorboard") if name in places}
    before = _written_at(state)
    try:
        return run(spec, recipe, places["out"], places.get("data", ()), begin=begin, strategy=strategy, **beside)
    except (KeyboardInterrupt, SystemExit) as stopped:
        if begin != "resume" and _written_at(state) == before:
            raise KeyboardInterrupt("stopped before the first step: nothing was saved") from None
        if strategy is None or strategy.leader:
            print(f"\nstopped. The last checkpoint is whole: {state}\ngo on: {_to_go_on(options, places)}", file=sys.stderr)
        raise SystemExit(stopped.code if isinstance(stopped, SystemExit) else 130) from None


def _written_at(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _to_go_on(options: argparse.Namespace, places: Mapping[str, Any]) -> str:
    """The command. The sizes and the files of a run are kept with it."""
    shared = [(name, getattr(options, name, None)) for name in ("parallel", "context_parallel", "tile")]
    words = ["srt-masks", "train", options.spec, *(word for name, number in options.param for word in ("--param", f"{name}={number}"))]
    words += ["--out", str(places["out"]), "--resume", *(["--tensorboard"] if places.get("tensorboard") else [])]
    words += [word for name, value in shared if value is not None for word in (f"--{name.replace('_', '-')}", str(value))]
    return shlex.join(words) if "WORLD_SIZE" not in os.environ else f"torchrun ... -m srt_masks {shlex.join(words[1:])}"


def _report(result: Any, options: argparse.Namespace, count: int = 300) -> None:
    kind = "bytes" if result.vocabulary.text is None else "tokens"
    print(f"   data: {result.task.name}, {len(result.task.train):,} {kind} to train on")
    print(f"   {result.steps} steps in {result.seconds:.0f} s; held out: {result.held_out:.3f} bits per byte")
    vocabulary, held_out = result.vocabulary, bool(result.task.places.files)
    prompt = result.task.held_out.windows([0], min(16, result.words))[0].tolist() if held_out else vocabulary.encode(b"The ")
    print(f"\nprompt{', of the held-out text' if held_out else ''}:\n{_shown(vocabulary.decode(prompt))}")
    print(f"\nwhat it writes after that:\n{_written(result, prompt, count)}")
    print(f"\ncheckpoint {result.checkpoint}\nlog        {result.log}\nplot       {result.plot}")
    print(f"more:      srt-masks sample {result.checkpoint} --prompt 'The '")


def _written(result: Any, prompt: list[int], count: int) -> str:
    """What a model goes on with; why it does not, where its spec goes on from nothing: it has learnt all the same, and its run is told of to the end."""
    from ..models.sample import sample as draw

    why = ""
    # A cache is not for every spec, and a whole pass has no rows in front of the word that is to come.
    for cache in (True, False):
        try:
            return _shown(result.vocabulary.decode(draw(result.model, prompt, count, words=result.words, temperature=0.7, cache=cache)))
        except InputError as error:
            why = str(error)
    return f"(nothing: {why})"


def _shown(text: bytes) -> str:
    """What a model writes may be anything: control characters must not reach the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "·" for c in text.decode("utf-8", "replace"))
