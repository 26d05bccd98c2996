"""Makes docs/examples.md from the scripts of examples/, each run at its full size: `python docs/make_examples.py [NAME ...]`.

With names, only these are run, and what the page shows of the others stays. A test runs each script small, and compares all of the page but the outputs.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "examples"
NAMES = ("self_reasoning_on_text", "myopic_training", "knowledge_insulation", "block_diffusion", "packed_documents", "huggingface_stop_rules")
INTRODUCTION = """\
# Examples

Scripts of a page each, that run for a minute to five on a CPU and print what came out. `--quick` runs any of them in seconds. Below each
stands what it printed when this page was made, by [`make_examples.py`](make_examples.py) (2 cores of an AMD EPYC, one used, beside other work; Python 3.11,
torch 2.13.0): seconds are upper bounds, and last digits may differ from machine to machine.
"""


def section(name: str, output: str) -> str:
    title, _, words = str(ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text()))).partition("\n\n")
    return f"## {title.rstrip('.')}\n\n{words}\n\n[`python examples/{name}.py`](../examples/{name}.py)\n```text\n{output.strip()}\n```\n"


def page(outputs: dict[str, str]) -> str:
    return "\n".join([INTRODUCTION, *(section(name, outputs[name]) for name in NAMES)])


def shown(text: str) -> dict[str, str]:
    """What a page shows, by the script's name."""
    return dict(re.findall(r"^\[`python examples/(\w+)\.py`\][^\n]*\n```text\n(.*?)\n```$", text, re.M | re.S))


if __name__ == "__main__":
    outputs = shown((DOCS / "examples.md").read_text()) if (DOCS / "examples.md").exists() else {}
    for name in sys.argv[1:] or NAMES:
        done = subprocess.run([sys.executable, str(EXAMPLES / f"{name}.py")], capture_output=True, text=True, check=True)
        outputs[name] = done.stdout
        print(name, done.stdout, sep="\n", flush=True)
        (DOCS / "examples.md").write_text(page({n: outputs.get(n, "") for n in NAMES}))
