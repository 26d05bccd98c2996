"""`check`: a spec held to laws on random cases; a failure is shrunk and printed as code to paste."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..diagnostics import InputError, did_you_mean
from ..spec import Spec
from .case import Case
from .laws import Broken, Law, Opinion, built_in
from .laws import opinion as opinion_law


def check(
    spec: Spec, *, laws: Iterable[str | Law] | None = None, opinion: Opinion | Mapping[str, Opinion] | None = None, steps: int | Iterable[int] | None = None,
    heads: int | None = None, inputs: Mapping[str, Any] | None = None, backend: str = "auto", examples: int = 25,
) -> tuple[str, ...]:  # fmt: skip
    """Hold a spec to laws on random sizes, params, inputs and tensors. Returns the names of the laws tried.

    `laws` are names or laws; unless given, those true of every text and those that a comment of the text asks for (`# laws: packing`); `opinion` a function in Python that says what the text
    should: see `laws.opinion`. `steps`, `heads` and `inputs` fix those. Raises `Broken`, an AssertionError with the smallest case found, as
    code to paste; InputError for a law that does not fit the text, or arguments that are wrong.
    """
    if not isinstance(spec, Spec):
        raise InputError(f"check takes a Spec; got {type(spec).__name__}. For a text: srt_masks.parse(text)")
    chosen = [*chosen_laws(spec, laws if laws is not None or opinion is None else ()), *([opinion_law(opinion)] if opinion is not None else [])]
    sizes = None if steps is None else (steps,) if isinstance(steps, int) else tuple(steps)
    for law in chosen:
        try_law(spec, law, steps=sizes, heads=heads, inputs=inputs, backend=backend, examples=examples)
    return tuple(law.name for law in chosen)


def chosen_laws(spec: Spec, laws: Iterable[str | Law] | None) -> list[Law]:
    """Laws by name; or those of every text that fit, and those the text asks for. Raises InputError for one that is unknown, or says nothing of
    this text."""
    known = built_in()
    if laws is None:
        always = [law for law in known.values() if law.of_every_text and not law.unfit(spec)]
        return [*always, *(law for law in chosen_laws(spec, asked_for(spec)) if law not in always)]
    found = []
    for law in [laws] if isinstance(laws, str | Law) else laws:
        if isinstance(law, str):
            if law not in known:
                raise InputError(f"no law is called {law!r}; {did_you_mean(law, known) or 'laws: ' + ', '.join(known)}")
            law = known[law]
        if why := law.unfit(spec):
            raise InputError(f"the law `{law.name}` says nothing of this text: {why}")
        found.append(law)
    return found


def asked_for(spec: Spec) -> list[str]:
    """The laws that comments of a text name: `# laws: packing, prefix_tree`."""
    return [name for line in re.findall(r"^[ \t]*#[ \t]*laws:(.*)$", spec.text, re.M) for name in re.findall(r"[\w-]+", line)]


def try_law(
    spec: Spec, law: Law, *, steps: tuple[int, ...] | None = None, heads: int | None = None, inputs: Mapping[str, Any] | None = None,
    backend: str = "auto", examples: int = 25,
) -> None:  # fmt: skip
    """One law on so many random cases. Raises Broken with the smallest that breaks it."""
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
        raise InputError(f"examples is a whole number from 1; got {examples!r}")
    try:
        from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    except ImportError:
        raise InputError("random cases need the package hypothesis: pip install hypothesis") from None
    from .drawing import MOST_TOKENS, cases_of

    # Pair by pair in Python, a case is slow: small ones find as much.
    most = 12 if law.name in ("opinion", "claims") else MOST_TOKENS
    last: list[tuple[Case, AssertionError]] = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        verbosity=Verbosity.quiet,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[*HealthCheck],  # pyright: ignore[reportArgumentType]
    )
    @given(cases_of(spec, fixed=inputs, steps=steps, heads=heads, batches=law.batches, most_tokens=most))
    def tried(case: Case) -> None:
        try:
            law(case, backend)
        except AssertionError as error:
            last[:] = [(case, error)]
            raise

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=_hypothesis_warning())
        try:
            tried()
        except AssertionError:
            if not last:
                raise
        else:
            return
    case, error = last[0]
    case = replace(case, inputs={n: v for n, v in case.inputs.items() if n not in law.sets(spec)})
    said = str(error) or type(error).__name__
    again = "" if law.name == "opinion" else law.name
    raise Broken(f"law `{law.name}` does not hold: {law.about}\n{said}\n\nthe smallest case found:\n\n{case.code(again)}\n") from None


def _hypothesis_warning() -> type[Warning]:
    from hypothesis.errors import HypothesisWarning

    return HypothesisWarning
