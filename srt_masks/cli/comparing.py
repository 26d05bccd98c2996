"""The command compare: several specs trained under one budget."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..diagnostics import InputError
from .arguments import name_of, specs_sharing
from .training import refuse_to_train

if TYPE_CHECKING:
    from ..spec import Spec

OUT = "runs/compare"


def compare(options: argparse.Namespace) -> None:
    from ..training.comparison import compare as run
    from ..training.config import FIELDS, PLACES, choices
    from ..training.recipe import Recipe

    specs = specs_of(options)
    for spec in specs.values():
        refuse_to_train(spec)
    flags = {name: getattr(options, name, None) for name in (*FIELDS, *PLACES)}
    chosen = choices(flags, options.config)
    if beside := next((name for name in ("tokenizer", "initial", "tensorboard") if name in chosen.places), ""):
        raise InputError(
            f"{options.config}: {beside} belongs to a run of `train`; a comparison trains on bytes, and keeps its runs as JSON lines: leave it out"
        )
    places = {"out": OUT, **chosen.places}
    first = chosen.recipe.get("seed", 0)
    try:
        found = run(
            specs, chosen.applied(Recipe()), places["out"], places.get("data", ()), seeds=range(first, first + options.seeds), equal=options.equal,
            restart=options.restart, validation=places.get("validation", ()), jobs=options.jobs,
        )  # fmt: skip
    except (KeyboardInterrupt, SystemExit) as stopped:
        print(f"\nstopped. What is done is in {places['out']}: the same command goes on from there", file=sys.stderr)
        raise SystemExit(stopped.code if isinstance(stopped, SystemExit) else 130) from None
    if options.format == "json":
        print(json.dumps(found.plain(), indent=1))
        return
    print(f"{found}\n\nruns    {Path(places['out']) / 'runs.jsonl'}\npicture {Path(places['out']) / 'comparison.png'}")


def specs_of(options: argparse.Namespace) -> dict[str, Spec]:
    """The specs by the names of their files. Raises InputError where two have one name, there is one alone, or a param is in none."""
    specs: dict[str, Spec] = {}
    for spec in specs_sharing(options.specs, options):
        name = name_of(spec.filename)
        if name in specs:
            raise InputError(f"two specs are called {name}, and their runs are kept by name: rename one file")
        specs[name] = spec
    if len(specs) < 2:
        raise InputError(f"compare takes two specs or more, and compares the others with the first: srt-masks compare {options.specs[0]} OTHER.mask")
    return specs
