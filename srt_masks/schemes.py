"""Published schemes as texts: every file of `examples/`, by name.

    srt_masks.zoo("gemma 3")                      # a Spec
    srt_masks.zoo("gemma 3", params={"span": 3})
    srt_masks.schemes.names()

A file begins with its name, its source, some words and a command to try; then comes the text. No user's text ever becomes a path:
a name is looked up among those of the files listed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .diagnostics import Error, InputError, did_you_mean, listing
from .spec import Spec, parse, read_text

__all__ = ["Entry", "entries", "entry_of", "names", "text_of", "zoo"]

TRY, LAWS = "try: ", "laws: "

# In the order of the page, simple ones first.
_GROUPS = {
    "Plain shapes": (
        "causal", "bert_padding", "prefix_lm", "sliding_window", "longformer", "bigbird", "sparse_transformer_strided", "llama_4_chunks",
        "semi_autoregressive", "streaming_sinks", "gemma_3", "head_windows_at_run_time",
    ),
    "Two and three dimensions": ("neighbourhood_attention", "axial", "shifted_windows"),
    "Packing and sharing": (
        "packed_documents", "packed_reasoning", "left_padding", "shared_prompt", "documents_in_a_graph", "blocks_for_retrieval",
        "past_thoughts_are_dropped", "token_tree",
    ),
    "Chosen at run time": ("moba", "flashmask_columns", "clusters"),
    "Layouts with roles": (
        "block_diffusion", "medusa_tree", "registers_look_ahead", "quiet_star", "pause_tokens", "self_reasoning", "self_reasoning_hidden",
        "patient_heads", "myopic_training", "knowledge_insulation", "three_gates", "coconut", "gist_tokens", "summaries", "transformer_xl",
        "transfusion", "xlnet", "encoder_decoder", "speculative_verification", "meta_tokens", "vision_registers", "in_context_rows",
        "decision_transformer", "readouts", "retrieved_chunks", "streaming_speech",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One scheme. `slug` is its file's name, with hyphens; `attempt` a command that draws it small, or empty."""

    name: str
    slug: str
    group: str
    source: str
    words: str
    attempt: str
    path: Path

    @property
    def text(self) -> str:
        """The whole file."""
        return _read(self.path)

    @property
    def body(self) -> str:
        """The text without the comment above it."""
        return self.text.partition("\n\n")[2]


def names() -> tuple[str, ...]:
    """Every name, in the order of the page."""
    return tuple(e.name for e in entries())


@cache
def entries() -> tuple[Entry, ...]:
    """Every scheme, in the order of the page. Raises Error if the files are missing: the installation is broken."""
    folder = _folder()
    return tuple(_entry(folder / f"{stem}.mask", group) for group, stems in _GROUPS.items() for stem in stems)


def entry_of(name: str) -> Entry:
    """The scheme of a name, its case and punctuation ignored. Raises InputError for an unknown one."""
    if not isinstance(name, str):
        raise InputError(f"a name of the zoo is wanted; got {type(name).__name__}")
    known = {_plain(x): e for e in entries() for x in (e.slug, e.name)}
    if _plain(name) in known:
        return known[_plain(name)]
    inside = [e.name for e in entries() if _plain(name) and _plain(name) in _plain(e.name)]
    hint = (
        f"did you mean {listing([f'`{n}`' for n in inside], 4)}?"
        if inside
        else did_you_mean(" ".join(name.lower().replace("_", " ").replace("-", " ").split())[:100], names())
    )
    raise InputError(
        f"the zoo has no `{name[:60]}`{': ' + hint if hint else '.'} `srt-masks zoo` and srt_masks.schemes.names() list its {len(entries())} names"
    )


def text_of(name: str) -> str:
    """The whole file of a scheme, comments included. Raises InputError for an unknown name."""
    return entry_of(name).text


def zoo(name: str, *, params: Mapping[str, int | float] | None = None) -> Spec:
    """A published scheme that ships with the package, as a spec. Raises InputError for an unknown name, or a param the text does not have."""
    entry = entry_of(name)
    return parse(entry.text, params=params, filename=f"zoo:{entry.slug}")


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _folder() -> Path:
    """In a wheel the texts lie inside the package, in a checkout beside it. Another's `examples` beside an installed package is never ours."""
    package = Path(__file__).parent
    for folder in (package / "examples", package.parent / "examples"):
        if (folder / "causal.mask").is_file():
            return folder
    raise Error(f"the texts of the zoo are missing: looked for {package / 'examples'}; install srt-masks anew")


def _read(path: Path) -> str:
    """A checkout may have turned the line ends into those of its system."""
    return read_text(path).replace("\r\n", "\n")


def _entry(path: Path, group: str) -> Entry:
    head = [line.removeprefix("#").strip() for line in _read(path).partition("\n\n")[0].splitlines()]
    name, source, *rest = head
    attempt = next((line.removeprefix(TRY) for line in rest if line.startswith(TRY)), "")
    words = "\n".join(line for line in rest if not line.startswith((TRY, LAWS))).strip()
    return Entry(name, path.stem.replace("_", "-"), group, source, words, attempt, path)
