"""The command line: `srt-masks check|show|plan|emit|train|sample|demo SPEC`. It wraps the pure parts and prints.

Exit codes: 0; 1 the spec or what belongs to it is wrong; 2 the command line is wrong; 130 stopped by Ctrl-C.
`check` and `emit --stage tree|checked|ir` import no torch.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .diagnostics import Error, InputError, Source, SpecError

if TYPE_CHECKING:
    from .spec import Spec


NOT_YET = ("bench", "compare", "explain", "fmt", "prove", "test", "zoo")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows `?`
    try:
        options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except SpecError as error:
        print(error.report, file=sys.stderr)
        return 1
    except Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more is to be said, not even by the interpreter's own flush at exit.
        _drop_the_output()
    except OSError as error:
        print(f"error: cannot write: {error.strerror or error}", file=sys.stderr)
        _drop_the_output()
        return 1
    return 0


def _drop_the_output() -> None:
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="srt-masks", description="Say what attends to what and which gradients flow where.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, help: str, spec: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        if spec:
            sub.add_argument("spec", metavar="SPEC", help="a file, or - for standard input")
            sub.add_argument("--param", action="append", default=[], type=_param, metavar="NAME=NUMBER", help="another value for a param; may be repeated")
        return sub

    command("check", _check, "say what is wrong with a spec, or nothing")
    show = command("show", _show, "draw who attends to whom, and what trains")
    show.add_argument("--steps", type=int, default=4, help="time steps (default 4)")
    show.add_argument("--plain", action="store_true", help="characters, even in a terminal")
    _heads_and_layers(show)
    show.add_argument("--head", type=int, default=0)
    show.add_argument("--layer", type=int, default=0)
    plan = command("plan", _plan, "which tiles are visited at a length")
    plan.add_argument("--steps", type=int, default=512)
    plan.add_argument("--tile", type=int)
    plan.add_argument("--layer", type=int)
    _heads_and_layers(plan)
    emit = command("emit", _emit, "print a stage of the compiler")
    emit.add_argument("--stage", choices=("tree", "checked", "ir", "plan", "triton"), default="ir")
    emit.add_argument("--steps", type=int, default=64, help="for the plan (default 64)")
    emit.add_argument("--layer", type=int)
    _heads_and_layers(emit)
    train = command("train", _train, "train a small transformer built from a spec on bytes")
    _recipe(train)
    sample = command("sample", _sample, "let a trained model write", spec=False)
    sample.add_argument("checkpoint", metavar="CHECKPOINT", help="what `train` wrote: model.safetensors")
    sample.add_argument("--prompt", default="The ")
    sample.add_argument("--count", type=int, default=300, help="bytes to write (default 300)")
    sample.add_argument("--words", type=int, default=64, help="bytes the model sees at once (default 64, as trained)")
    sample.add_argument("--temperature", type=float, default=0.7)
    sample.add_argument("--seed", type=int, default=0)
    demo = command("demo", _demo, "check, draw, verify, train and sample: the whole way, in a few minutes")
    _recipe(demo)
    for name in NOT_YET:
        later = commands.add_parser(name, help="not served yet")
        later.set_defaults(run=lambda options, n=name: _refuse(n))
        later.add_argument("rest", nargs=argparse.REMAINDER)
    demo.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    return parser


def _refuse(name: str) -> None:
    raise InputError(f"`srt-masks {name}` is part of the surface and not served yet")


def _heads_and_layers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--heads", type=int, help="how many heads there are, where the spec speaks of them")
    parser.add_argument("--layers", type=int, help="how many layers there are, where the spec speaks of them")


def _recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", nargs="+", default=[], metavar="FILE", help="text or binary files (default: Python's own reference documentation)")
    parser.add_argument("--out", default="runs/self_reasoning", help="folder for checkpoint, log and plot (default %(default)s)")
    parser.add_argument("--steps", type=int, help="training steps")
    parser.add_argument("--words", type=int, help="bytes in a sequence")
    parser.add_argument("--batch", type=int, help="sequences in a step")
    parser.add_argument("--dim", type=int)
    parser.add_argument("--depth", type=int)
    parser.add_argument("--heads", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--max-seconds", type=float, help="stop training after so long")


# ------------------------------------------------------------------------------------------------ commands


def _check(options: argparse.Namespace) -> None:
    spec = _spec(options)
    print(f"{spec.filename}: no mistakes")


def _show(options: argparse.Namespace) -> None:
    spec = _spec(options)
    _print_picture(spec, options.steps, options.plain, head=options.head, layer=options.layer, heads=options.heads, layers=options.layers)


def _print_picture(spec: Spec, steps: int | None, plain: bool = False, **which: Any) -> None:
    from .view.picture import picture
    from .view.terminal import render

    colour = sys.stdout.isatty() and not plain and "NO_COLOR" not in os.environ
    print(render(picture(spec, steps=steps, **which), colour))


def _plan(options: argparse.Namespace) -> None:
    print(_planned(_spec(options), options, options.tile))


def _planned(spec: Spec, options: argparse.Namespace, tile: int | None = None) -> Any:
    from .binding import resolve_heads, resolve_tokens
    from .surface import compile

    steps = options.steps if spec.checked.queries.rows_per_step else None
    tokens = resolve_tokens(spec.checked, spec.checked.queries, steps)
    attend = compile(spec, layers=options.layers, tile=tile)
    return attend.plan(tokens, heads=resolve_heads(spec.checked, options.heads), layer=options.layer if options.layer is not None or not options.layers else 0)


def _emit(options: argparse.Namespace) -> None:
    match options.stage:
        case "tree":
            from .grammar.parser import parse

            source = Source(*_text(options.spec))
            tree, mistakes = parse(source)
            if mistakes:
                raise SpecError(mistakes, source)
            print(tree)
        case "checked":
            print(_spec(options).checked)
        case "ir":
            from .compiler.front import front

            print(front(_spec(options).checked))
        case "plan":
            print(_planned(_spec(options), options))
        case "triton":
            from .compiler.pipeline import compile_checked
            from .kernels.emit import Unfit, emit

            try:
                print(emit(compile_checked(_spec(options).checked), wide=False).text, end="")
            except Unfit as why:
                raise InputError(f"this mask is not for the Triton kernels, because {why}") from None


def _train(options: argparse.Namespace) -> None:
    spec = _spec(options)
    _report(_run_training(spec, options), options)


def _sample(options: argparse.Namespace) -> None:
    from .models.checkpoint import load_model

    model = load_model(options.checkpoint)
    if model.config.num_tokens != 256:
        raise InputError(f"{options.checkpoint} has {model.config.num_tokens} tokens, not 256: it does not write bytes")
    _write_sample(model, os.fsencode(options.prompt), options.count, options.words, options.temperature, options.seed)


def _demo(options: argparse.Namespace) -> None:
    from .testing import compare

    spec = _spec(options)
    print(f"1. {spec.filename} is a spec without mistakes: {', '.join(spec.roles)}; " + ", ".join(f"{n} = {v}" for n, v in spec.params.items()))
    smaller = {n: v for n, v in (("reasons", 2), ("horizon", 1)) if n in spec.params}
    print("\n2. Who attends to whom, and what trains" + (f" (drawn with {', '.join(f'{n} = {v}' for n, v in smaller.items())}, to fit)" if smaller else ""))
    _print_picture(spec.with_params(**smaller), 4)
    print("\n3. Gradients of the block-sparse backend against the pairwise reference in float64, 2 heads, 40 steps, float32")
    comparisons = compare(spec, steps=40)
    print("\n".join(f"   {c}" for c in comparisons))
    if not all(c.holds for c in comparisons):
        raise Error("the backend differs from the reference by more than it may")
    print("\n4. A small transformer built from the spec, trained on bytes")
    quick = {"steps": 6, "words": 16, "batch": 2, "dim": 32, "depth": 2, "heads": 2}
    # However slow the machine, the whole demo ends within six minutes.
    _report(_run_training(spec, options, **(quick if options.quick else {"max_seconds": 270.0})), options, 40 if options.quick else 300)


def _run_training(spec: Spec, options: argparse.Namespace, **quick: Any) -> Any:
    from .models.train import Recipe, train

    chosen = {**quick}
    for name in ("steps", "words", "batch", "dim", "depth", "heads", "learning_rate", "seed", "max_seconds"):
        if getattr(options, name) is not None:
            chosen[name] = getattr(options, name)
    try:
        return train(spec, Recipe(**chosen), options.out, options.data)
    except KeyboardInterrupt:
        checkpoint = Path(options.out) / "model.safetensors"
        if checkpoint.exists():
            print(f"\nstopped. The last checkpoint is whole: {checkpoint}", file=sys.stderr)
        raise SystemExit(130) from None


def _report(result: Any, options: argparse.Namespace, count: int = 300) -> None:
    print(f"   data: {result.corpus.name}, {len(result.corpus.train):,} bytes to train on")
    print(f"   {result.steps} steps in {result.seconds:.0f} s; held out: {result.held_out_bits:.3f} bits per byte")
    print("\nwhat it writes:")
    prompt = bytes(result.corpus.held_out[:16].tolist()) if options.data else b"The "
    _write_sample(result.model, prompt, count, result.words, 0.7, 0)
    print(f"\ncheckpoint {result.checkpoint}\nlog        {result.log}\nplot       {result.plot}")
    print(f"more:      srt-masks sample {result.checkpoint} --prompt 'The '")


def _write_sample(model: Any, prompt: bytes, count: int, words: int, temperature: float, seed: int) -> None:
    from .models.sample import sample

    text = prompt + bytes(sample(model, prompt, count, words=words, temperature=temperature, seed=seed))
    # What a model writes may be anything: control characters must not reach the terminal.
    print("".join(c if c.isprintable() or c == "\n" else "·" for c in text.decode("utf-8", "replace")))


# ------------------------------------------------------------------------------------------------ arguments


def _spec(options: argparse.Namespace) -> Spec:
    from .spec import parse

    text, name = _text(options.spec)
    return parse(text, params=dict(options.param), filename=name)


def _text(name: str) -> tuple[str, str]:
    from .grammar.parser import MAX_TEXT
    from .spec import read_text

    if name.startswith("zoo:"):
        raise InputError(f"{name}: the zoo is part of the surface and not served yet; give a file")
    if name != "-":
        return read_text(name), name
    if sys.stdin is None:
        raise InputError("there is no standard input to read")
    try:
        return sys.stdin.buffer.read(4 * MAX_TEXT + 1).decode("utf-8"), "<stdin>"
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is no text: byte {error.start} is not UTF-8") from None


def _param(item: str) -> tuple[str, int | float]:
    name, equals, value = item.partition("=")
    try:
        number = int(value) if value.strip().lstrip("+-").isdecimal() else float(value)
    except ValueError:
        equals, number = "", 0
    if not equals or not name.strip():
        raise argparse.ArgumentTypeError(f"wants NAME=NUMBER, got {item!r}")
    return name.strip(), number
