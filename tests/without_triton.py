"""Run by test_platforms.py in a process of its own: the package as it is on a system that has no triton, whose name is the first argument.

What else such a system lacks is taken away as well. Prints what was done; raises where anything asks for triton.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

SYSTEM = sys.argv[1]
ABSENT = {"linux": ("triton",), "darwin": ("triton",), "win32": ("triton", "fcntl", "resource", "pwd", "grp", "termios")}[SYSTEM]


import z3  # noqa: E402, F401  its library is this machine's own, whatever the system is called below


class Absent(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


for name in [n for n in sys.modules if n.split(".")[0] in ABSENT]:
    del sys.modules[name]
sys.meta_path.insert(0, Absent())

# Others may ask what system they are on while they are imported, and are told the truth.
import sysconfig  # noqa: E402

import hypothesis  # noqa: E402, F401
import matplotlib.backends.backend_agg  # noqa: E402
import matplotlib.figure  # noqa: E402, F401
import safetensors.torch  # noqa: E402, F401
import torch  # noqa: E402
import tqdm  # noqa: E402, F401

sysconfig.get_config_vars()
sys.platform = SYSTEM
if SYSTEM == "win32":
    for missing in ("fork", "getuid", "geteuid", "sched_getaffinity", "fchmod", "chown", "uname"):
        if hasattr(os, missing):
            delattr(os, missing)

import srt_masks as srt  # noqa: E402
from srt_masks.cli import main  # noqa: E402

TEXT = "layout repeat { token, reason }\nattend causal\nstop k, v where k is reason\npredict token -> index + 1"


def command(*arguments: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(arguments)
    assert code == 0, (arguments, said.getvalue())
    return said.getvalue()


spec = srt.parse(TEXT)
leaves = [torch.randn(1, 2, 12, 8, requires_grad=True) for _ in range(3)]
for backend in ("auto", "tiled", "reference"):
    srt.compile(spec, backend=backend)(*leaves).sum().backward()
assert bool((leaves[2].grad != 0).any())
print(srt.compile(spec).plan(12))
model = srt.build_model(spec, dim=16, depth=1, heads=2, num_tokens=7)
model(torch.randint(0, 7, (1, 6)), return_loss=True).backward()
assert "no (" in str(srt.capabilities(device="cpu"))
row = srt.capabilities(capability=(9, 0))["attend"]
assert row.auto == "tiled" and "triton" in row.why, row
try:
    srt.compile(spec, backend="triton")
except srt.BackendError as error:
    assert ("pip install triton" in str(error)) is (SYSTEM == "linux") and 'backend="tiled"' in str(error), error
else:
    raise AssertionError("backend='triton' without triton")
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "a rule.mask"
    path.write_bytes(TEXT.replace("\n", "\r\n").encode() + b"\r\n")
    for arguments in (
        ("check",), ("show",), ("explain", "3", "1"), ("plan", "--steps", "40"), ("emit", "--stage", "triton"), ("emit", "--stage", "plan"), ("fmt",), ("check",),
        ("test", "--examples", "1", "--law", "poison"),
    ):  # fmt: skip
        command(arguments[0], str(path), *arguments[1:])
    assert b"\r" not in path.read_bytes()
    command("show", str(path), "--out", str(Path(folder) / "picture.svg"))
    command(
        "train", str(path), "--steps", "2", "--words", "8", "--dim", "16", "--depth", "1", "--heads", "2", "--batch", "2", "--out", str(Path(folder) / "run")
    )
    checkpoint = Path(folder) / "run" / "model.safetensors"
    command("sample", str(checkpoint), "--count", "3", "--words", "8")
    srt.save_model(srt.load_model(checkpoint), checkpoint)  # over itself
command("zoo")
command("capabilities")
assert not [n for n in sys.modules if n.split(".")[0] in ABSENT], "imported after all"
print("done")
