"""The command line: `srt-masks check|fmt|show|explain|plan|emit|test|zoo|train|sample|demo`. It wraps the pure parts and prints.

parser     the commands and their flags; `arguments` turns them into specs and tensors
commands   what is done with a spec; `training` what is done with a model

Exit codes: 0; 1 the spec or what belongs to it is wrong; 2 the command line is wrong; 130 stopped by Ctrl-C.
`check`, `fmt`, `zoo` and `emit --stage tree|checked|ir` import no torch.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from ..diagnostics import Error, SpecError
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
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more is to be said, not even by the interpreter's own flush at exit.
        _drop_the_output()
        return 0
    except OSError as error:
        print(f"error: cannot write: {error.strerror or error}", file=sys.stderr)
        _drop_the_output()
        return 1
    return code or 0


def _drop_the_output() -> None:
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
