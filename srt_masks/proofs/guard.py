"""What a compiled spec is held to: claims that are refuted are refused, with the place and the path; what is not proved is said once.

Input: a spec. Output: nothing, or SpecError. z3 is not imported for a text that claims nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..diagnostics import Diagnostic, InputError, Source, SpecError, did_you_mean, warn_caller
from ..grammar.checked import Attribute, Prediction, Side
from ..spec import Spec

if TYPE_CHECKING:
    from .verdict import Verdict

MODES = ("warn", "strict", "off")
ALTOGETHER = 30.0  # seconds that all claims of a text may hold up what compiles it
_SAID: set[str] = set()


class UnprovedWarning(UserWarning):
    """A claim of a spec is not proved, nor refuted as the text stands."""


def hold(spec: Spec, mode: str, *, reads_targets: bool = True) -> None:
    """Refuses a spec with a claim that is refuted, with "strict" also one that is not proved; with "off" nothing is asked.

    A claim that holds for the text's values of its params, and not for others that a call may give, is not proved; nor is one for which its share of
    ALTOGETHER seconds does not suffice. `reads_targets`: what a row predicts is surely among what rows read. Where it may be something else, a `predict` of
    the own data token claims nothing, and another one is not proved if it is refuted. Raises SpecError, InputError.
    """
    if mode not in MODES:
        raise InputError(f'proofs is "warn", "strict" or "off"; got {mode!r}{": " + near if (near := did_you_mean(str(mode), MODES)) else ""}')
    implied = bool(spec.checked.predictions) and (reads_targets or not all(_is_own_token(p) for p in spec.checked.predictions))
    if mode == "off" or not (spec.checked.claims or implied):
        return
    from .prove import prove

    verdicts = [v for v in prove(spec, altogether=ALTOGETHER) if implied or v.line is not None]
    wrong = [v for v in verdicts if not v and (mode == "strict" or (v.outcome == "refuted" and not _unless(v, reads_targets)))]
    if wrong:
        raise SpecError([diagnostic(v) for v in wrong], Source(spec.text, spec.filename))
    for v in verdicts:
        if not v:
            line = "" if v.line is None else f", line {v.line}"
            outcome = v.outcome + (_unless(v, reads_targets) if v.outcome == "refuted" else "")
            remedy = "".join(f"; {x}" for x in v.remedies[:1])
            _say_once(f"{spec.filename}{line}: `{v.claim}` is not proved ({outcome}): {v.reason}{remedy}. All of it: srt_masks.prove(spec)")


def _unless(refuted: Verdict, reads_targets: bool) -> str:
    """Under what else than the text as it stands a claim is refuted; empty: it is refuted as it stands."""
    if refuted.holds_as_written:
        return " for other values of params"
    return ", unless targets= are of something that no row reads" if refuted.line is None and not reads_targets else ""


def _is_own_token(prediction: Prediction) -> bool:
    match prediction.target:
        case Attribute(Side.OWN, "index"):
            return True
        case _:
            return False


def diagnostic(verdict: Verdict) -> Diagnostic:
    """A verdict at its place in the text."""
    outcome = "does not hold" if verdict.outcome == "refuted" else f"is not proved ({verdict.outcome})"
    notes = (*verdict.lines, *([f"run: {verdict.replay}"] if verdict.replay else []))
    return Diagnostic("claim", f"`{verdict.claim}` {outcome}", verdict.span, verdict.reason, verdict.remedies, notes)


def _say_once(message: str) -> None:
    if message not in _SAID:
        _SAID.add(message)
        warn_caller(message, UnprovedWarning)
