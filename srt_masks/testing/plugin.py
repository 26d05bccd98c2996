"""A pytest plugin: every `*.mask` file is a test file, and every law of every text, and every one that its comments ask for, a test.

    pytest rules/                       # rules/*.mask too
    pytest rules/mine.mask -k packing

Settings, in pytest's configuration: `mask_laws` names the laws, each tried where it fits (`none`: collect no mask files), `mask_examples` says how many cases each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..diagnostics import Error, SpecError, did_you_mean

if TYPE_CHECKING:
    from ..spec import Spec
    from .laws import Law


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("mask_laws", "the laws of *.mask files, each where it fits (none: collect no mask files)", type="args", default=[])
    parser.addini("mask_examples", "random cases a law (25)", default="25")


def pytest_configure(config: pytest.Config) -> None:
    """Settings that say nothing we know are refused: a law that is misspelt would be a law that is not tried."""
    wanted, examples = config.getini("mask_laws"), config.getini("mask_examples")
    if wanted and wanted != ["none"]:
        from .laws import built_in

        for name in wanted:
            if name not in built_in():
                raise pytest.UsageError(f"mask_laws: no law is called {name!r}; {did_you_mean(name, built_in()) or 'laws: ' + ', '.join(built_in())}")
    if not examples.isdecimal() or int(examples) < 1:
        raise pytest.UsageError(f"mask_examples is a whole number from 1; got {examples!r}")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix != ".mask" or parent.config.getini("mask_laws") == ["none"] or not _is_text(file_path):
        return None
    return MaskFile.from_parent(parent, path=file_path)


def _is_text(path: Path) -> bool:
    """Other programs have files of this name, too; those that are no text are not ours."""
    try:
        with path.open("rb") as file:
            file.read(4096).decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    except OSError:
        return False
    return True


class MaskFile(pytest.File):
    """A spec; its tests are `check`, and the laws that fit."""

    def collect(self) -> Iterator[pytest.Item]:
        from ..spec import load

        try:
            spec = load(self.path)
        except Error as error:
            yield MaskTest.from_parent(self, name="check", spec=None, law=None, error=error)
            return
        from .checking import chosen_laws
        from .laws import built_in

        yield MaskTest.from_parent(self, name="check", spec=spec, law=None, error=None)
        wanted = self.config.getini("mask_laws")
        try:
            laws = [law for law in built_in().values() if law.name in wanted and not law.unfit(spec)] if wanted else chosen_laws(spec, None)
        except Error as error:
            yield MaskTest.from_parent(self, name="laws", spec=spec, law=None, error=error)
            return
        for law in laws:
            yield MaskTest.from_parent(self, name=law.name, spec=spec, law=law, error=None)


class MaskTest(pytest.Item):
    def __init__(self, *, spec: Spec | None, law: Law | None, error: Error | None, **named: Any):
        super().__init__(**named)
        self.spec, self.law, self.error = spec, law, error

    def runtest(self) -> None:
        if self.error is not None:
            raise self.error
        if self.law is not None and self.spec is not None:
            from .checking import no_size, try_law

            if self.law.sized and (why := no_size(self.spec)):
                pytest.skip(why)
            try_law(self.spec, self.law, examples=int(self.config.getini("mask_examples")))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        if isinstance(excinfo.value, SpecError):
            return excinfo.value.report
        if isinstance(excinfo.value, Error | AssertionError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo, style))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name}: {self.name}"
