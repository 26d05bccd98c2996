"""Emitted source -> an imported module: written once into a folder private to the user, under a name that is its content's hash.

Triton reads a kernel's source from its file, so the text has to lie in one (`kept`); its content is compared before it is imported.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from threading import Lock
from types import CodeType, ModuleType

from ..kept import folder, written
from .emit import Source

_LOCK = Lock()
_PREFIX = "srt_masks_predicate_"


def module_of(source: Source) -> ModuleType:
    """The functions of a predicate module, ready to be given to a kernel. Raises BackendError where no folder can be written."""
    name = _PREFIX + source.key
    with _LOCK:
        if name in sys.modules:
            return sys.modules[name]
        path = written(folder() / f"{name}.py", source.text)
        spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module


class _FromSource(SourceFileLoader):
    """Compiles the text that was compared, never a .pyc that lies beside it."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)
