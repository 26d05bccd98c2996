"""Commands about models: train, eval, sample, demo."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diagnostics import Error, InputError
from .arguments import params_of, spec_of
from .commands import print_pictures

if TYPE_CHECKING:
    from ..spec import Spec

OUT = "runs/self_reasoning"
WORDS = 64  # of models whose files do not say how many data tokens they were trained on at once


def train(options: argparse.Namespace) -> None:
    spec, begin = spec_of(options), "resume" if options.resume else "over" if options.restart else "new"
    with _processes(options) as strategy:
        result = _run_training(spec, options, begin, strategy)
    if strategy is None:
        _report(result, options)
    elif strategy.leader:
        from ..models.checkpoint import load_model

        # What each process has of the model may be a part of it.
        _report(replace(result, model=load_model(result.checkpoint)), options)


@contextmanager
def _processes(options: argparse.Namespace) -> Iterator[Any]:
    """The processes that train together: None for one alone, a `Strategy` for those that torchrun started."""
    several = options.parallel is not None or options.context_parallel is not None
    if not several and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield None
        return
    from ..distributed.ranks import start, watched
    from ..distributed.strategies import STRATEGIES, finish

    with watched("Whatever checkpoint was written before is whole: start all again, with --resume."):
        ranks = start(options.context_parallel or 1, device=options.device)
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
        model, prompts, options.count, words=options.words or trained, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, seed=options.seed,
        stop=stop, cache=not options.no_cache,
    )  # fmt: skip
    print("\n\n".join(_shown(vocabulary.decode([*prompt, *text])) for prompt, text in zip(prompts, found, strict=True)))


def demo(options: argparse.Namespace) -> None:
    from ..testing import compare

    spec = spec_of(options)
    refuse_inputs(spec)
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
    # However slow the machine, the whole demo ends within six minutes.
    _report(_run_training(spec, options, "over", **(quick if options.quick else {"max_seconds": 270.0})), options, 40 if options.quick else 300)


def refuse_inputs(spec: Spec) -> None:
    if spec.inputs:
        raise InputError(
            f"this spec reads tensors ({', '.join(spec.inputs)}), and training from the command line has none to give: use srt_masks.build_model from Python"
        )


def _run_training(spec: Spec, options: argparse.Namespace, begin: str, strategy: Any = None, **quick: Any) -> Any:
    from ..training.config import FIELDS, PLACES, choices
    from ..training.recipe import Recipe
    from ..training.state import saved_recipe
    from ..training.train import STATE
    from ..training.train import train as run

    refuse_inputs(spec)
    flags = {name: getattr(options, name, None) for name in (*FIELDS, *PLACES)}
    chosen = choices(flags, getattr(options, "config", None))
    places = {"out": OUT, **chosen.places}
    state = Path(places["out"]) / STATE
    recipe = chosen.applied((saved_recipe(state) if strategy is None else saved_recipe(state, strategy.about)) if begin == "resume" else Recipe(**quick))
    beside = {name: places[name] for name in ("validation", "tokenizer", "initial", "tensorboard") if name in places}
    try:
        return run(spec, recipe, places["out"], places.get("data", ()), begin=begin, strategy=strategy, **beside)
    except (KeyboardInterrupt, SystemExit) as stopped:
        if not state.exists():
            raise
        print(f"\nstopped. The last checkpoint is whole: {state}; go on with --resume", file=sys.stderr)
        raise SystemExit(stopped.code if isinstance(stopped, SystemExit) else 130) from None


def _report(result: Any, options: argparse.Namespace, count: int = 300) -> None:
    from ..models.sample import sample as draw

    kind = "bytes" if result.vocabulary.text is None else "tokens"
    print(f"   data: {result.task.name}, {len(result.task.train):,} {kind} to train on")
    print(f"   {result.steps} steps in {result.seconds:.0f} s; held out: {result.held_out:.3f} bits per byte")
    print("\nwhat it writes:")
    vocabulary = result.vocabulary
    prompt = result.task.held_out.windows([0], min(16, result.words))[0].tolist() if result.task.places.files else vocabulary.encode(b"The ")
    # Whatever the spec is: a cache is not for all of them.
    print(_shown(vocabulary.decode([*prompt, *draw(result.model, prompt, count, words=result.words, temperature=0.7, cache=False)])))
    print(f"\ncheckpoint {result.checkpoint}\nlog        {result.log}\nplot       {result.plot}")
    print(f"more:      srt-masks sample {result.checkpoint} --prompt 'The '")


def _shown(text: bytes) -> str:
    """What a model writes may be anything: control characters must not reach the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "·" for c in text.decode("utf-8", "replace"))
