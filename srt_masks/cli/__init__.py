"""The command line: `srt-masks check|fmt|show|explain|plan|emit|prove|test|capabilities|zoo|train|eval|sample|demo`. It wraps the pure parts and prints.

parser     the commands and their flags; `arguments` turns them into specs and tensors
commands   what is done with a spec; `planning` its plans, `proving` its claims; `training` what is done with a model

Exit codes: 0; 1 the spec is wrong, a law does not hold, or a claim is not proved; 2 the command line is wrong, or names what cannot be; 130 stopped by Ctrl-C, 143 by SIGTERM.
`check`, `fmt`, `zoo` and `emit --stage tree|checked|ir` import no torch.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Collection, Sequence

from ..diagnostics import BackendError, Error, InputError, SpecError
from .parser import parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows `?`
    try:
        code = options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except SpecError as error:
        print(error.report, file=sys.stderr)
        return 1
    except Error as error:
        print(f"error: {in_flags(str(error), vars(options))}", file=sys.stderr)
        return 2 if isinstance(error, InputError | BackendError) else 1
    except KeyboardInterrupt as stopped:
        print(f"\n{str(stopped) or 'stopped.'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more is to be said, not even by the interpreter's own flush at exit.
        _drop_the_output()
        return 0
    except OSError as error:
        if sys.platform == "win32" and error.errno == errno.EINVAL:  # what a broken pipe is called there
            _drop_the_output()
            return 0
        print(f"error: cannot write: {error.strerror or error}", file=sys.stderr)
        _drop_the_output()
        return 1
    return code or 0


_ARGUMENT = re.compile(r"\b(\w+)=(?!=)(?:\((\w+), (\w+)\))?(?=(.?))")
_PAIRS = {"capability": ".", "steps": "x"}  # between the two, as a flag has them


def in_flags(message: str, flags: Collection[str]) -> str:
    """`give layers=` -> `give --layers`, `capability=(9, 0)` -> `--capability=9.0`, `steps=(queries, keys)` -> `--steps=QUERIESxKEYS`: errors below speak of Python's arguments, a user here of flags,
    those that this command has."""

    def flag(found: re.Match[str]) -> str:
        if found[1] not in flags or (found[2] is not None and found[1] not in _PAIRS):
            return found[0]
        name, one, other, after = found.groups()
        before_a_value = " " if after == "{" else "" if after in (*" ,;.:)", "") else "="
        return f"--{name.replace('_', '-')}" + (before_a_value if one is None else f"={one.upper()}{_PAIRS[name]}{other.upper()}")

    return _ARGUMENT.sub(flag, message)


def _drop_the_output() -> None:
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
