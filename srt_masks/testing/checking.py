"""`check`: a spec held to laws on random cases; a failure is shrunk and printed as code to paste."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..default_device import on_the_cpu
from ..diagnostics import InputError, did_you_mean, warn_caller
from ..grammar.tables import PIECES
from ..spec import Spec
from ..time_steps import Steps, tokens_of
from ..values import came, vector, whole_number
from .case import Case, with_backend
from .laws import Broken, Condition, Law, NotTried, built_in
from .opinions import Opinion
from .opinions import opinion as opinion_law


@on_the_cpu
def check(
    spec: Spec, *, laws: Iterable[str | Law] | None = None, opinion: Opinion | Mapping[str, Opinion] | None = None, steps: int | Iterable[Steps] | None = None,
    heads: int | None = None, inputs: Mapping[str, Any] | None = None, backend: str = "auto", examples: int = 25,
) -> tuple[str, ...]:  # fmt: skip
    """Hold a spec to laws on random sizes, params, inputs and tensors. Returns the names of the laws tried.

    `laws` are names or laws; unless given, those true of every text and those that a comment of the text asks for (`# laws: packing`); `opinion` a
    function in Python that says what the text should: see `opinions.opinion`. `steps`, `heads` and `inputs` fix those. Raises `Broken`, an
    AssertionError with the smallest case found, as code to paste; `NotTried`, which is one, where no case could have broken a claim or an opinion;
    InputError for a law that does not fit the text, or arguments that are wrong. A text too large for any case is held to the laws about texts
    alone, with a warning that says so.
    """
    if not isinstance(spec, Spec):
        raise InputError(f"check takes a Spec; got {type(spec).__name__}. For a text: srt_masks.parse(text)")
    chosen = chosen_laws(spec, laws if laws is not None or opinion is None else ())
    if laws is None and opinion is None and (why := no_size(spec)):
        warn_caller(f"only laws about the text were tried: {why}")
        chosen = [law for law in chosen if not law.sized]
    chosen += [opinion_law(opinion)] if opinion is not None else []
    for law in chosen:
        try_law(spec, law, steps=asked_steps(spec, steps), heads=heads, inputs=inputs, backend=backend, examples=examples)
    return tuple(law.name for law in chosen)


def no_size(spec: Spec) -> str:
    """Why a spec has no size that laws can be tried at, or nothing."""
    from .drawing import no_size

    return no_size(spec)


def chosen_laws(spec: Spec, laws: Iterable[str | Law] | None) -> list[Law]:
    """Laws by name; or those of every text that fit, and those the text asks for. Raises InputError for one that is unknown, or says nothing of
    this text."""
    known = built_in()
    if laws is None:
        always = [law for law in known.values() if law.of_every_text and not law.unfit(spec)]
        return [*always, *(law for law in chosen_laws(spec, asked_for(spec)) if law not in always)]
    found = []
    if not isinstance(laws, Law | Iterable):
        raise InputError(f"laws are names, or srt_masks.testing.Laws; got {laws!r}")
    for law in [laws] if isinstance(laws, str | Law) else laws:
        if isinstance(law, str):
            if law not in known:
                raise InputError(f"no law is called {law!r}; {did_you_mean(law, known) or 'laws: ' + ', '.join(known)}")
            law = known[law]
        if not isinstance(law, Law):
            raise InputError(f"a law is a name, or a srt_masks.testing.Law; got {law!r}")
        if why := law.unfit(spec):
            raise InputError(f"the law `{law.name}` says nothing of this text: {why}")
        found.append(law)
    return found


def asked_for(spec: Spec) -> list[str]:
    """The laws that comments of a text name: `# laws: packing, prefix_tree`."""
    comments = (m[0] for m in PIECES.finditer(spec.text.removeprefix("\ufeff")) if m[0].startswith("#"))
    return [name for comment in comments if (line := re.match(r"#[ \t]*laws:(.*)", comment)) for name in re.findall(r"[\w-]+", line[1])]


def asked_steps(spec: Spec, steps: Any) -> tuple[Steps, ...] | None:
    """The numbers of time steps that cases choose from, of two layouts also pairs; None: they are drawn. Raises InputError where that is none, or the
    layout has one length."""
    if steps is None:
        return None
    given = [steps] if whole_number(steps) is not None else list(vector(steps) or ())
    chosen: tuple[Any, ...] = tuple(n if isinstance(n, tuple) else whole_number(n) for n in given)
    if not chosen or any(n is None or (not isinstance(n, tuple) and n < 0) for n in chosen):
        raise InputError(f"steps is a number of time steps, 0 or more, or several to choose from; got {came(steps)}")
    if not spec.checked.repeats:
        raise InputError(f"steps={', '.join(map(str, chosen))} given; the layout `{spec.checked.queries.describe(spec.roles)}` does not repeat")
    for pair in (n for n in chosen if isinstance(n, tuple)):
        tokens_of(spec.checked, pair)
    return chosen


# ------------------------------------------------------------------------------------------------ one law


def try_law(
    spec: Spec, law: Law, *, steps: tuple[Steps, ...] | None = None, heads: int | None = None, inputs: Mapping[str, Any] | None = None,
    backend: str = "auto", examples: int = 25,
) -> int:  # fmt: skip
    """One law on so many random cases; how many there were. Raises Broken with the smallest that breaks it, NotTried if none could have."""
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
        raise InputError(f"examples is a whole number from 1; got {examples!r}")
    if heads is not None and (isinstance(heads, bool) or not isinstance(heads, int) or heads < 1):
        raise InputError(f"heads is a whole number, 1 or more; got {heads!r}")
    if not law.sized:
        _try_once(law, Case(spec), backend)
        return 1
    from .drawing import cases_of

    met: dict[Condition, bool] = {}
    tokens = 0
    for reach, count in _phases(spec, law, examples, fixed=steps is not None):
        how = {"fixed": inputs, "steps": steps, "heads": heads, "batches": law.batches, "most_tokens": law.most_tokens, "reach": reach}
        tokens = max(tokens, _try_many(law, cases_of(spec, **how), count, backend, met))
    if idle := [condition for condition, held in met.items() if not held]:
        larger = _larger(spec, steps, inputs)
        lines = "\n".join(f"not tried: {x.words} at the sizes tried (up to {tokens} token{'s' * (tokens != 1)}): {x.remedy or larger}" for x in idle)
        raise NotTried(f"law `{law.name}` was not tried: {law.about}\n{lines}")
    return examples


def _larger(spec: Spec, steps: tuple[Steps, ...] | None, inputs: Mapping[str, Any] | None) -> str:
    """Which other cases there are."""
    ways = ["steps=" if steps is None else "more steps="] if spec.checked.repeats else []
    ways += ["inputs="] if spec.checked.inputs and inputs is None else []
    return f"give {' or '.join(ways)}" if ways else "no case of this layout can break it, leave it out"


def _phases(spec: Spec, law: Law, examples: int, fixed: bool) -> list[tuple[Any, int]]:
    """Which sizes, and how many cases of each: one in twelve of several tiles; for a law about the text's numbers, half beyond them."""
    from .drawing import Reach, steps_of

    reach, count = (Reach.BEYOND, examples // 2) if law.beyond else (Reach.MANY, examples // 12 if law.of_every_text else 0)
    if fixed or not count or not steps_of(spec, reach, law.most_tokens):
        return [(Reach.USUAL, examples)]
    return [(Reach.USUAL, examples - count), (reach, count)]


def _try_many(law: Law, cases: Any, examples: int, backend: str, met: dict[Condition, bool]) -> int:
    """Random cases, the failing one shrunk; the most tokens that one had. What conditions were met is added to `met`."""
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    from hypothesis.errors import HypothesisWarning, Unsatisfiable

    last: list[tuple[Case, AssertionError]] = []
    most = [0]

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
    @given(cases)
    def tried(case: Case) -> None:
        most[0] = max(most[0], case.extents.tokens, case.extents.keys)
        try:
            for condition, held in law(case, backend).items():
                met[condition] = met.get(condition, False) or held
        except AssertionError as error:
            last[:] = [(case, error)]
            raise

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=HypothesisWarning)
        try:
            tried()
        except Unsatisfiable:
            raise InputError("no case was found whose inputs are what the text says of them (`given`): give inputs=") from None
        except AssertionError:
            if not last:
                raise
        else:
            return most[0]
    raise _broken(law, *last[0], backend) from None


def _try_once(law: Law, case: Case, backend: str) -> None:
    try:
        law(case, backend)
    except AssertionError as error:
        raise _broken(law, case, error, backend) from None


def _broken(law: Law, case: Case, error: AssertionError, backend: str) -> Broken:
    case = replace(case, inputs={n: v for n, v in case.inputs.items() if n not in law.sets(case.spec)})
    if built_in().get(law.name) is law:
        code = case.code(law.name, backend)
    else:
        code = f"{case.code()}\n# `law` is the one that was given, or srt.testing.opinion(...) of the functions that were\nlaw(case{with_backend(backend)})  # your law"
    return Broken(f"law `{law.name}` does not hold: {law.about}\n{str(error) or type(error).__name__}\n\nthe smallest case found:\n\n{code}\n")
