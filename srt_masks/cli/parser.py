"""The commands and their flags."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from .. import __version__
from ..diagnostics import did_you_mean
from ..training.recipe import Recipe
from . import benching, commands, comparing, planning, proving, training
from .arguments import card, named_number, named_value, time_steps, value

DTYPES = ("float16", "bfloat16", "float32", "float64")
USUAL = Recipe()


class Parser(argparse.ArgumentParser):
    """A mistake is told in a line, and a flag is itself alone: `--step` is not taken for `--steps`."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """argparse asks each command for what it knows, and tells what none does at the top; here the command tells it."""
        found, unknown = super().parse_known_args(*args, **options)
        if unknown:
            near = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}" + (f" ({near})" if near else ""))
        return found, unknown


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="srt-masks", description="Say what attends to what and which gradients flow where.")
    top.add_argument("--version", action="version", version=f"srt-masks {__version__}")
    every = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, help: str, spec: str = "a file, - for standard input, or zoo:NAME") -> argparse.ArgumentParser:
        sub = every.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        if spec:
            sub.add_argument("spec", metavar="SPEC", help=spec)
            sub.add_argument(
                "--param", action="append", default=[], type=named_number, metavar="NAME=NUMBER", help="another value for a param; may be repeated"
            )
        return sub

    check = command("check", commands.check, "say what is wrong with a spec, or nothing")
    _format(check)
    fmt = every.add_parser("fmt", help="rewrite specs in the one canonical layout", description="rewrite specs in the one canonical layout; comments stay")
    fmt.set_defaults(run=commands.fmt)
    fmt.add_argument("specs", metavar="SPEC", nargs="+", help="files, rewritten in place; or - to read standard input and print")
    fmt.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file would change")
    fmt.add_argument("--diff", action="store_true", help="write nothing; print what would change")
    show = command("show", commands.show, "draw who attends to whom, and what trains")
    show.add_argument(
        "--steps", type=time_steps, metavar="N", help="time steps (default 4, where the layout repeats); QUERIESxKEYS where two layouts have two numbers"
    )
    show.add_argument("--plain", action="store_true", help="characters, even in a terminal")
    show.add_argument("--out", metavar="FILE", help="write a picture: .svg, .png or .html")
    _which(show)
    _inputs(show)
    explain = command("explain", commands.explain, "does this token see that one, and does it learn from it?")
    explain.add_argument("query", type=int, nargs="?", metavar="QUERY", help="the position that asks, from 0")
    explain.add_argument("key", type=int, nargs="?", metavar="KEY", help="the position it looks at, from 0")
    explain.add_argument("--flow", action="store_true", help="instead of one pair: which roles read and train which, at what distance, by how many hops")
    explain.add_argument(
        "--steps", type=time_steps, metavar="N", help="time steps (default: as many as the inputs have, or as are needed to show what is asked)"
    )
    _which(explain)
    _inputs(explain)
    _format(explain)
    plan = command("plan", planning.plan, "which tiles are visited at a length, by whom, and how full they are")
    plan.add_argument("--steps", type=time_steps, metavar="N", help="time steps (default: as many as the inputs have, or 512, where the layout repeats)")
    plan.add_argument("--tile", type=int, help="tokens along a side of a tile: 16, 32, 64, 128, 256 or 512 (default: the backend's)")
    plan.add_argument("--backend", default="auto", help="whose plan: auto, tiled or triton (default auto)")
    plan.add_argument("--order", default="auto", help="in which order tokens are visited: auto, natural, or one that `auto` tries, by name (default auto)")
    plan.add_argument("--head-dim", type=int, help="the backend's tile may depend on it (default 64)")
    plan.add_argument("--dtype", choices=DTYPES, help="the backend's tile may depend on it (default float32)")
    plan.add_argument("--layer", type=int, help="this layer only")
    _heads_and_layers(plan)
    _inputs(plan)
    _format(plan)
    bench = command("bench", benching.bench, "time attention by a spec, forward and backward, beside torch's own with the same mask")
    bench.add_argument(
        "--steps",
        type=time_steps,
        nargs="+",
        metavar="N",
        help="time steps, several sizes (default: as many as the inputs have, or 512 and 2048, where the layout repeats)",
    )
    bench.add_argument("--heads", type=int, default=8, help="of q, k and v (default 8)")
    bench.add_argument("--layers", type=int, help="how many layers there are, where the spec speaks of them")
    bench.add_argument("--layer", type=int, help="this layer (default 0, where the spec speaks of layers)")
    bench.add_argument("--batch", type=int, default=1, help="sequences of a call (default 1)")
    bench.add_argument("--head-dim", type=int, default=64, help="of q, k and v (default 64)")
    bench.add_argument("--dtype", choices=DTYPES, help="of q, k and v (default: bfloat16 on cards, float32 elsewhere)")
    bench.add_argument("--device", help="cpu, cuda or mps (default: the GPU, if there is one)")
    bench.add_argument("--backend", default="auto", help="auto, tiled or triton (default auto)")
    bench.add_argument("--tile", type=int, help="tokens along a side of a tile (default: the backend's)")
    bench.add_argument("--repeat", type=int, default=5, help="turns of each side, at least, of which the fastest counts (default 5)")
    _inputs(bench)
    _format(bench)
    emit = command("emit", commands.emit, "print a stage of the compiler")
    emit.add_argument("--stage", choices=("tree", "checked", "ir", "plan", "triton"), default="ir", help="which one (default ir)")
    emit.add_argument("--steps", type=time_steps, metavar="N", help="for the plan (default 64, where the layout repeats)")
    emit.add_argument("--layer", type=int)
    _heads_and_layers(emit)
    _inputs(emit)
    test = command("test", commands.test, "hold a spec to the laws: backends against the reference, and more")
    test.add_argument("--law", action="append", default=[], metavar="NAME", help="only this law; may be repeated (--list names them)")
    test.add_argument("--list", action="store_true", help="say which laws there are, and which apply")
    test.add_argument("--examples", type=int, default=25, help="random cases a law (default 25)")
    test.add_argument("--steps", type=time_steps, nargs="+", metavar="N", help="time steps of a case, one number or several to choose from (default: drawn)")
    test.add_argument("--backend", default="auto", help="which one is held to the laws: auto, tiled or triton (default auto)")
    prove = command("prove", proving.prove, "prove or refute every claim (`assert`), for all lengths")
    prove.add_argument("--equals", metavar="SPEC", help="prove instead that this spec is the same mask, with the same gradient rules; else a pair that differs")
    prove.add_argument("--seconds", type=float, default=10.0, help="the most that one claim may take; then it is unknown (default 10)")
    _format(prove)
    zoo = every.add_parser("zoo", help="the published schemes that ship with the package", description="list the published schemes that ship with the package")
    zoo.set_defaults(run=commands.zoo)
    zoo.add_argument("name", nargs="?", metavar="NAME", help="print the text of this one")
    _format(zoo)
    served = every.add_parser(
        "capabilities", help="what each backend serves, and what auto takes and why", description="what each backend serves, and what auto takes and why"
    )
    served.set_defaults(run=commands.capabilities)
    served.add_argument("--device", help="cpu, cuda or mps (default: the GPU, if there is one)")
    served.add_argument("--capability", type=card, metavar="X.Y", help="of a CUDA card that need not be here: 9.0 for sm_90")
    served.add_argument("--dtype", choices=DTYPES, help="of q, k and v (default: bfloat16 on cards, float32 elsewhere)")
    served.add_argument("--head-dim", type=int, default=64, help="of q, k and v (default 64)")
    _format(served)
    train = command("train", training.train, "train a small transformer built from a spec on bytes")
    _recipe(train, training.OUT.format("NAME") + ", by the name of the spec")
    _run(train)
    begin = train.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on with the run in the folder, bit for bit")
    begin.add_argument("--restart", action="store_true", help="begin anew, and write over the run that the folder holds")
    train.add_argument("--tokenizer", metavar="FILE", help="tokenizer.json of Hugging Face (default: a token is a byte)")
    train.add_argument("--initial", metavar="CHECKPOINT", help="begin with the weights of this model: its file, or the folder of its run")
    train.add_argument("--tensorboard", action="store_true", default=None, help="write events for TensorBoard into the folder, too")
    _processes(train)
    evaluate = command("eval", training.evaluate, "how well a trained model says what it has not seen: bits per byte, and the loss by role and slot", spec="")
    evaluate.add_argument("checkpoint", metavar="CHECKPOINT", help="what `train` wrote: model.safetensors, or the folder it is in")
    evaluate.add_argument("--data", nargs="+", required=True, metavar="FILE", help="files that it was not trained on")
    evaluate.add_argument("--words", type=int, help="data tokens in a window (default: as trained)")
    evaluate.add_argument("--windows", type=int, help="look at so many windows, evenly spread (default: all of the data)")
    evaluate.add_argument(
        "--param", action="append", default=[], type=named_number, metavar="NAME=NUMBER", help="another value for a value param; may be repeated"
    )
    evaluate.add_argument("--tokenizer", metavar="FILE", help="tokenizer.json (default: the one in the checkpoint; without one, bytes)")
    evaluate.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU if there is one)")
    _format(evaluate)
    sample = command("sample", training.sample, "let a trained model write", spec="")
    sample.add_argument("checkpoint", metavar="CHECKPOINT", help="what `train` wrote: model.safetensors, or the folder it is in")
    sample.add_argument("--prompt", action="append", metavar="TEXT", help='what the text begins with (default "The "); may be repeated')
    sample.add_argument("--count", type=int, default=300, help="data tokens to write, at most (default 300)")
    sample.add_argument("--words", type=int, help="data tokens the model sees at once, at most (default: as trained)")
    sample.add_argument("--temperature", type=float, default=0.7, help="0 takes the likeliest byte (default 0.7)")
    sample.add_argument("--top-k", type=int, metavar="K", help="draw among so many likeliest bytes")
    sample.add_argument("--top-p", type=float, metavar="P", help="draw among the fewest likeliest bytes that have this probability together")
    sample.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this; may be repeated")
    sample.add_argument("--seed", type=int, default=0, help="of the first prompt; the next has the next (default 0)")
    sample.add_argument("--no-cache", action="store_true", help="a whole pass for every byte: for specs whose rows look at later ones")
    compare = command(
        "compare", comparing.compare, "train a model of each spec from several seeds under one budget: a table, a picture, every run kept", spec=""
    )
    compare.add_argument("specs", metavar="SPEC", nargs="+", help="files, - for standard input, or zoo:NAME; the others are compared with the first")
    compare.add_argument(
        "--param", action="append", default=[], type=named_number, metavar="NAME=NUMBER", help="another value for a param of the specs that have it"
    )
    compare.add_argument("--seeds", type=int, default=3, help="runs of each spec; those of one seed see the same data (default 3)")
    compare.add_argument("--equal", choices=("steps", "work"), default="steps", help="the budget: as many steps for each, or as many multiplications")
    compare.add_argument("--restart", action="store_true", help="begin anew; without it, what the folder holds of the same comparison is gone on with")
    compare.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once, each in a process of its own with its share of the cores (default 1)")
    _recipe(compare, comparing.OUT)
    _run(compare)
    _format(compare)
    demo = command("demo", training.demo, "check, draw, verify, train and sample: the whole way, in a few minutes")
    _recipe(demo, training.DEMO_OUT.format("NAME") + ", by the name of the spec")
    demo.add_argument("--restart", action="store_true", help="write over the run that the folder of --out holds")
    demo.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    return top


def _heads_and_layers(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--heads", type=int, help="how many heads there are, where the spec speaks of them")
    sub.add_argument("--layers", type=int, help="how many layers there are, where the spec speaks of them")


def _which(sub: argparse.ArgumentParser) -> None:
    _heads_and_layers(sub)
    sub.add_argument("--head", type=int, help="this head only")
    sub.add_argument("--layer", type=int, help="this layer only")


def _inputs(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--input", action="append", default=[], type=named_value, metavar="NAME=JSON", help="an input, as nested lists: --input 'doc=[0, 0, 1]'")
    sub.add_argument("--given", type=value, metavar="JSON", help='for `layout given`: {"role": [...], "step": [...], "slot": [...]}')


def _format(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--format", choices=("text", "json"), default="text", help="json for programs")


def _choice(sub: argparse.ArgumentParser, name: str, help: str, **how: Any) -> None:
    """A flag for a field of `Recipe`, which knows what is usual."""
    usual = getattr(USUAL, name)
    sub.add_argument(f"--{name.replace('_', '-')}", help=f"{help} (default {usual:g})" if isinstance(usual, float) else f"{help} (default {usual})", **how)


def _recipe(sub: argparse.ArgumentParser, out: str) -> None:
    sub.add_argument("--data", nargs="+", metavar="FILE", help="text or binary files (default: Python's own reference documentation)")
    sub.add_argument("--out", help=f"folder for checkpoints, log and plot (default {out})")
    _choice(sub, "steps", "training steps", type=int)
    _choice(sub, "words", "data tokens in a sequence: bytes, or those of the tokenizer", type=int)
    _choice(sub, "batch", "sequences in a step", type=int)
    _choice(sub, "dim", "width of the model, a multiple of --heads", type=int)
    _choice(sub, "depth", "layers", type=int)
    _choice(sub, "heads", "attention heads of a layer", type=int)
    _choice(sub, "learning_rate", "the most that it is: it rises, then falls to a tenth", type=float)
    _choice(sub, "seed", "of the weights and of the order of the data; of several runs the first", type=int)
    sub.add_argument("--max-seconds", type=float, help="stop training after so long")


def _processes(sub: argparse.ArgumentParser) -> None:
    """What several processes, started by torchrun, want beside that."""
    sub.add_argument("--parallel", choices=("ddp", "fsdp"), help="under torchrun: each process has all weights (default), or its part of each")
    sub.add_argument("--context-parallel", type=int, metavar="RANKS", help="under torchrun: so many processes share each sequence (default 1)")
    sub.add_argument("--tile", type=int, help="rows of a shared sequence that are dealt to processes at once: 16 to 512 (default: the backend's)")


def _run(sub: argparse.ArgumentParser) -> None:
    """What a longer run wants beside a demo's choices."""
    sub.add_argument("--config", metavar="FILE.toml", help="choices in a file, by the names of these flags with _ for -, and a table [schedules]; flags win")
    sub.add_argument("--validation", nargs="+", metavar="FILE", help="held-out files (default: the last tenth of the data)")
    _choice(sub, "held_out", "share of the data that is held out", type=float, metavar="SHARE")
    sub.add_argument("--validate-every", type=int, metavar="STEPS", help="look at the held-out data every so many steps (default: at the end)")
    _choice(sub, "save_every", "write checkpoints every so many steps", type=int, metavar="STEPS")
    _choice(sub, "accumulate", "pass a batch in so many parts, one after another", type=int, metavar="PARTS")
    sub.add_argument(
        "--schedule", dest="schedules", action="append", metavar="NAME=VALUE@STEP,...", help="a param that changes while training: horizon=0@0,16@1000"
    )
    _choice(sub, "warm_up", "steps in which the learning rate rises", type=int, metavar="STEPS")
    _choice(sub, "weight_decay", "that of AdamW", type=float)
    _choice(sub, "clip", "the most that the gradient's norm may be", type=float)
    sub.add_argument("--key-heads", type=int, help="heads of keys and values, each shared by several of queries (default: as many)")
    _choice(sub, "feed_forward", "of every block: one layer with GELU, or gated", choices=("gelu", "gated"))
    _choice(sub, "positions", "how a row knows its position id: an embedding, or its q and k turned", choices=("learned", "rotary"))
    sub.add_argument("--tied", action="store_const", const=True, help="the head is the token embedding")
    sub.add_argument("--own-weights", nargs="+", metavar="ROLE", help="roles whose rows have embeddings, projections, feed-forwards and heads of their own")
    sub.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    _choice(sub, "dtype", "of the weights", choices=("float32", "float64"))
    _choice(sub, "autocast", "compute in bfloat16; auto does on GPUs", choices=("auto", "bfloat16", "off"))
    sub.add_argument("--compile", action="store_const", const=True, help="put the blocks through torch.compile")
