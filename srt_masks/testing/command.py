"""`srt-masks test`: laws, one after another, with what is left to do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from ..spec import Spec
from ..time_steps import Steps
from .checking import asked_steps, chosen_laws, no_size, try_law
from .laws import Broken, NotTried, built_in


def run(
    spec: Spec, names: list[str], only_list: bool, examples: int, backend: str, steps: Sequence[Steps] | None, in_flags: Callable[[str], str]
) -> int:  # fmt: skip
    """Prints a line a law; 1 if one does not hold, or no case could have broken it. What was not tried has a remedy, which is told `in_flags`; what is broken
    says a case, which is Python."""
    if only_list:
        for law in built_in().values():
            why = law.unfit(spec)
            print(f"{law.name:22} {'not here: ' + why if why else law.about + ('' if law.of_every_text else ' (where asked for)')}")
        return 0
    laws, chosen = chosen_laws(spec, names or None), asked_steps(spec, steps)
    broken = []
    for number, law in enumerate(laws, 1):
        if sys.stderr.isatty():
            print(f"[{number}/{len(laws)}] {law.name} ...", end="\r", file=sys.stderr, flush=True)
        if law.sized and not names and (why := no_size(spec)):
            print(f"{law.name:22} skipped  {why}")
            continue
        begin = time.perf_counter()
        try:
            cases = try_law(spec, law, steps=chosen, backend=backend, examples=examples)
        except Broken as error:
            broken.append(error)
            print(f"{law.name:22} {'NOT TRIED' if isinstance(error, NotTried) else 'BROKEN'}")
        else:
            print(f"{law.name:22} holds    {cases} case{'s' if cases > 1 else ''}, {time.perf_counter() - begin:.1f} s")
    others = [law.name for law in built_in().values() if law not in laws and not law.unfit(spec)]
    if not names and others:
        print(f"not tried, because only you know whether it is meant: {', '.join(others)}. --law NAME, or a comment `# laws: NAME` in the text, asks for it")
    for error in broken:
        print(f"\n{in_flags(str(error)) if isinstance(error, NotTried) else error}")
    return int(bool(broken))
