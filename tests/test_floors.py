"""Data flows one way: lower floors never import upper ones, and each floor knows only the libraries it may know."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "srt_masks"

# What a floor may import of this package. A folder stands for all its files.
ALLOWED = {
    "diagnostics": set(),
    "default_device": set(),
    "grammar": {"diagnostics", "grammar"},
    "spec": {"diagnostics", "grammar", "view"},  # view: a picture in a notebook
    "values": {"diagnostics", "grammar"},
    "binding": {"diagnostics", "grammar", "values"},
    "time_steps": {"diagnostics", "grammar", "values", "binding"},
    "query_ranges": {"diagnostics", "values"},
    "reference": {"diagnostics", "grammar", "reference"},
    "compiler": {"diagnostics", "default_device", "grammar", "compiler"},
    "kernels": {"diagnostics", "default_device", "grammar", "compiler", "kernels", "reference", "spec", "values", "binding", "query_ranges", "kept"},
    "features": {"diagnostics", "default_device", "compiler", "kernels", "spec", "features"},
    "schemes": {"diagnostics", "spec"},
    "packed": {"diagnostics", "default_device", "values"},
    "kept": {"diagnostics"},
    "machine": set(),
    "highlight": {"diagnostics", "grammar", "highlight"},
    "highlight_pygments": {"highlight", "highlight_pygments"},
    "flows": {"diagnostics", "default_device", "grammar", "reference", "spec", "time_steps", "surface", "proofs", "flows"},
    "explanation": {"diagnostics", "default_device", "values", "grammar", "reference", "spec", "time_steps", "surface", "proofs", "flows"},
    "surface": {"diagnostics", "default_device", "values", "grammar", "reference", "kernels", "spec", "binding", "time_steps", "proofs"},
    "elsewhere": {"diagnostics", "default_device", "grammar", "reference", "spec", "binding", "time_steps", "packed", "surface", "elsewhere", "proofs"},
    "models": {"diagnostics", "default_device", "values", "grammar", "reference", "compiler", "kernels", "spec", "binding", "proofs", "surface", "models"},
    "training": {"__version__", "diagnostics", "default_device", "machine", "spec", "models", "training"},
    "distributed": {"diagnostics", "default_device", "compiler", "kernels", "models", "training", "distributed"},
    "proofs": {"diagnostics", "default_device", "grammar", "compiler", "reference", "spec", "kept", "proofs"},
    "testing": {
        "packed",
        "diagnostics",
        "default_device",
        "grammar",
        "reference",
        "kernels",
        "spec",
        "values",
        "binding",
        "time_steps",
        "surface",
        "testing",
        "proofs",
    },
    "timing": {"diagnostics", "machine", "compiler", "kernels", "timing"},
    "view": {"diagnostics", "grammar", "compiler", "spec", "time_steps", "surface", "view"},
}
NO_TORCH = [
    "diagnostics.py",
    "spec.py",
    "schemes.py",
    "highlight.py",
    "grammar",
    "compiler/ir.py",
    "compiler/lower.py",
    "compiler/simplify.py",
    "compiler/front.py",
]
NO_FILES = ["diagnostics.py", "compiler", "reference", "kernels"]
NN_ONLY_IN = {"models", "distributed", "timing.py"}  # timing: torch's own attention, to time it
FLEX = "torch.nn.attention.flex_attention"  # no layers: the BlockMask that an export makes


def _imports(path: Path) -> set[str]:
    """Every module a file imports, with relative imports resolved; inside functions too, but not under TYPE_CHECKING."""
    found: set[str] = set()
    package = [*path.relative_to(ROOT).parts[:-1]]

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.add(module)
            found.update(f"{module}.{a.name}" for a in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def _files(name: str) -> list[Path]:
    path = PACKAGE / name
    if path.is_dir():
        return sorted(path.rglob("*.py"))
    return [path if path.suffix else path.with_suffix(".py")]


@pytest.mark.parametrize("floor", ALLOWED)
def test_a_floor_imports_only_what_it_may(floor: str):
    for path in _files(floor):
        for module in _imports(path):
            parts = module.split(".")
            if parts[0] == "srt_masks" and len(parts) > 1:
                assert parts[1] in ALLOWED[floor], f"{path.name} imports {module}"


def test_every_module_stands_on_a_floor():
    names = {p.stem if p.is_file() else p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or (p.is_dir() and any(p.glob("*.py")))}
    assert names - {"__init__", "__main__", "cli", "__pycache__"} == set(ALLOWED)


def test_the_readme_names_every_floor():
    page = (ROOT / "README.md").read_text().partition("## Working on it")[2]
    named = set(re.findall(r"`(\w+)/?`", page.partition("from the bottom up")[2]))
    assert {*ALLOWED, "cli"} <= named


def test_the_pipeline_names_every_step_of_the_compiler():
    page = ast.get_docstring(ast.parse((PACKAGE / "compiler" / "pipeline.py").read_text()))
    assert page is not None
    steps = {p.stem for p in (PACKAGE / "compiler").glob("*.py")} - {"__init__", "pipeline"}
    named = {name for names in re.findall(r"`(\w+)`|^    (\w+)  |compiler\.(\w+)", page, re.MULTILINE) for name in names}
    assert not steps - named


@pytest.mark.parametrize("package", ["srt_masks", "srt_masks.testing"])
def test_no_public_name_is_hidden_by_a_module(package: str):
    """Importing a module sets its name on the package, where it would hide a function that is looked up there when it is first asked for."""
    module = importlib.import_module(package)
    assert module.__file__ is not None
    files = {p.stem for p in Path(module.__file__).parent.glob("*.py")}
    assert not files & set(module.__all__)


@pytest.mark.parametrize("name", NO_TORCH)
def test_the_front_knows_no_torch(name: str):
    for path in _files(name):
        assert not any(m.split(".")[0] in ("torch", "numpy", "triton") for m in _imports(path)), path


def test_only_models_know_nn_and_only_kernels_triton():
    for path in sorted(PACKAGE.rglob("*.py")):
        floor = path.relative_to(PACKAGE).parts[0]
        imports = _imports(path)
        assert floor in NN_ONLY_IN or not any(m.startswith("torch.nn") and not m.startswith(FLEX) for m in imports), path
        assert floor == "kernels" or not any(m.split(".")[0] == "triton" for m in imports), path


@pytest.mark.parametrize("name", NO_FILES)
def test_the_core_does_no_input_or_output(name: str):
    for path in _files(name):
        calls = {n.func.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert not calls & {"open", "print", "input", "eval", "exec", "compile", "__import__"}, path


def test_nobody_evaluates_text():
    for path in sorted(PACKAGE.rglob("*.py")):
        calls = {n.func.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert not calls & {"eval", "exec", "__import__"}, path


def test_checking_imports_no_torch():
    code = (
        "import sys, srt_masks; from srt_masks.cli import main; main(['check', sys.argv[1]]); assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT / "examples" / "self_reasoning.mask")], check=True, capture_output=True)
