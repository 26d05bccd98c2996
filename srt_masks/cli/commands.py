"""Commands about specs: check, fmt, show, explain, emit, test, capabilities, zoo; `planning` has plan. Each prints, and returns its exit code if that is not 0."""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diagnostics import InputError, Source, SpecError
from .arguments import inputs_of, spec_of, steps_of, text_of
from .planning import planning_of

if TYPE_CHECKING:
    from ..diagnostics import Diagnostic
    from ..explanation import Explanation
    from ..flows.report import FlowReport
    from ..schemes import Entry
    from ..spec import Spec


def check(options: argparse.Namespace) -> int:
    try:
        spec = spec_of(options)
    except SpecError as error:
        if options.format == "text":
            raise
        print(json.dumps([_plain(d, error.source) for d in error.diagnostics], indent=1))
        return 1
    if options.format == "json":
        print("[]")
        return 0
    print(f"{spec.filename}: no mistakes")
    if claims := spec.checked.claims:
        print(
            f"{len(claims)} claim{'s' if len(claims) > 1 else ''} (`assert`) read, not proved here: srt-masks prove {spec.filename if options.spec != '-' else '-'}"
        )
    return 0


def _plain(diagnostic: Diagnostic, source: Source) -> dict[str, Any]:
    (line, column), (last_line, last_column) = source.place(diagnostic.span.start), source.place(diagnostic.span.end)
    place = {"line": line, "column": column, "end_line": last_line, "end_column": last_column}
    words = {"slug": diagnostic.slug, "message": diagnostic.message, "label": diagnostic.label, "help": list(diagnostic.help)}
    return {"file": source.filename, **place, **words}


def fmt(options: argparse.Namespace) -> int:
    from ..grammar.formatter import difference, format_text

    changed, wrong = 0, []
    for name in options.specs:
        try:
            text, shown = text_of(name)
            done = format_text(Source(text, shown))
        except SpecError as error:
            wrong.append(error)  # the others are formatted all the same
            continue
        changed += done != text
        if options.diff:
            print(difference(text, done, shown), end="")
        elif options.check:
            if done != text:
                print(f"{shown} would change")
        elif name == "-" or name.startswith("zoo:"):
            print(done, end="")
        elif done != text:
            _rewrite(Path(name).resolve(), done)
    for error in wrong:
        print(error.report, file=sys.stderr)
    return int(bool(wrong) or (bool(changed) and (options.check or options.diff)))


def _rewrite(path: Path, text: str) -> None:
    """Whole or not at all: a run that is stopped leaves the file as it was. What may not be written, or has several names, is left alone."""
    found = path.stat()
    if not os.access(path, os.W_OK) or not found.st_mode & 0o222:
        raise InputError(f"cannot write {path}: it is read-only")
    if found.st_nlink > 1:
        raise InputError(f"cannot rewrite {path}: it has {found.st_nlink} hard links, and only this one would change; srt-masks fmt - < FILE prints the result")
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.chmod(found.st_mode)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def show(options: argparse.Namespace) -> None:
    spec = spec_of(options)
    named = {name: getattr(options, name) for name in ("head", "layer", "heads", "layers", "given")}
    drawn: dict[str, Any] = {n: v for n, v in named.items() if v is not None}
    drawn["inputs"] = inputs_of(spec, options)
    drawn["steps"] = steps_of(spec, options, drawn["inputs"])
    if options.out is None:
        print_pictures(spec, options.plain, **drawn)
        return
    from ..view.picture import pictures
    from ..view.save import save

    save(pictures(spec, **drawn), options.out)
    print(options.out)


def print_pictures(spec: Spec, plain: bool = False, **which: Any) -> None:
    from ..view.picture import pictures
    from ..view.terminal import render, takes_colour

    print(render(pictures(spec, **which), takes_colour(sys.stdout) and not plain))


def explain(options: argparse.Namespace) -> None:
    spec = spec_of(options)
    inputs = inputs_of(spec, options)
    sizes: dict[str, Any] = {
        "steps": steps_of(spec, options, inputs),
        "heads": options.heads,
        "layers": options.layers,
        "inputs": inputs,
        "given": options.given,
    }
    found = _flow(spec, options, sizes) if options.flow else _explanation(spec, options, sizes)
    print(json.dumps(found.plain(), indent=1) if options.format == "json" else found)


def _explanation(spec: Spec, options: argparse.Namespace, sizes: dict[str, Any]) -> Explanation:
    from ..explanation import explain as answer

    if options.query is None or options.key is None:
        raise InputError("which pair? Give two positions, QUERY and KEY, or --flow for all rows at once")
    return answer(spec, options.query, options.key, head=options.head or 0, layer=options.layer or 0, **sizes)


def _flow(spec: Spec, options: argparse.Namespace, sizes: dict[str, Any]) -> FlowReport:
    from ..flows.measure import flow

    if one := [name for name in ("query", "key", "head", "layer") if getattr(options, name) is not None]:
        said = ", ".join(f"--{n}" if n in ("head", "layer") else n.upper() for n in one)
        raise InputError(f"--flow is about all rows, heads and layers: leave out {said}, or leave out --flow")
    return flow(spec, **sizes)


def emit(options: argparse.Namespace) -> None:
    match options.stage:
        case "tree":
            from ..grammar.parser import parse

            source = Source(*text_of(options.spec))
            tree, mistakes = parse(source)
            if mistakes:
                raise SpecError(mistakes, source)
            print(tree)
        case "checked":
            print(spec_of(options).checked)
        case "ir":
            from ..compiler.front import front

            print(front(spec_of(options).checked))
        case "plan":
            spec = spec_of(options)
            attend, tokens, arguments, layers = planning_of(spec, options, 64)
            print(attend.plan(tokens, layer=layers[0], **arguments))
        case "triton":
            from ..compiler.pipeline import compile_checked
            from ..kernels.emit import Unfit
            from ..kernels.emit import emit as write

            try:
                sources = [write(c, wide=False).text for c in compile_checked(spec_of(options).checked) if c is not None]
            except Unfit as why:
                raise InputError(f"this mask is not for the Triton kernels, because {why}") from None
            print("\n\n# for hidden_k and hidden_v\n".join(sources), end="")


def test(options: argparse.Namespace) -> int:
    from ..testing.command import run
    from . import in_flags

    told = partial(in_flags, flags=vars(options))
    return run(spec_of(options), options.law, options.list, options.examples, options.backend, options.steps, told)


def capabilities(options: argparse.Namespace) -> None:
    import torch

    from ..features.asking import capabilities as ask

    dtype = None if options.dtype is None else getattr(torch, options.dtype)
    found = ask(device=options.device, capability=options.capability, dtype=dtype, head_dim=options.head_dim)
    print(found.to_json() if options.format == "json" else found)


def zoo(options: argparse.Namespace) -> None:
    from ..schemes import entries, entry_of

    if options.name is not None:
        entry = entry_of(options.name.removeprefix("zoo:"))
        print(json.dumps({**_described(entry), "text": entry.text}, indent=1) if options.format == "json" else entry.text.rstrip("\n"))
    elif options.format == "json":
        print(json.dumps([_described(e) for e in entries()], indent=1))
    else:
        width = max(len(e.slug) for e in entries())
        print("\n".join(f"{e.slug:{width}}  {e.source}" for e in entries()))
        print(f"\n{len(entries())} schemes. srt-masks zoo NAME prints a text, srt-masks show zoo:NAME draws it, srt_masks.zoo(NAME) reads it.")


def _described(entry: Entry) -> dict[str, str]:
    return {"name": entry.slug, "title": entry.name, "source": entry.source, "words": entry.words}
