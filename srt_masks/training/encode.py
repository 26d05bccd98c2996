"""Text files -> files of tokens, once: written in the run's folder, a stretch at a time, and found again by the next run on the same text."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..diagnostics import InputError
from ..models.vocabulary import Bytes, Vocabulary
from .data import Corpus, Stretch, check_sizes, corpus, opened
from .sources import FileSource, Source, fingerprint

AT_ONCE = 1 << 20  # bytes of text


def encoded(
    files: Sequence[str | Path], length: int, vocabulary: Vocabulary, folder: Path, held_out: float, validation: Sequence[str | Path] = (), leads: bool = True
) -> Corpus:  # fmt: skip
    """The tokens of some files, as `corpus` has their bytes. Text is cut at line ends, a MiB at a time, so a token never spans two of these. Where this
    process does not lead, the files of tokens are there already. Raises InputError as `corpus` does, for a text that is not UTF-8, and a folder that
    cannot be written."""
    if isinstance(vocabulary, Bytes):
        return corpus(files, length, held_out, validation)
    name, source = opened(files)
    cut = source.size if validation else _at_character(source, source.size - int(source.size * held_out))
    apart = opened(validation) if validation else (name, source)
    begin, end = (0 if validation else cut), apart[1].size
    train = _tokens(folder / "tokens-train", name, source, (0, cut), vocabulary, leads)
    kept = _tokens(folder / "tokens-held-out", *apart, (begin, end), vocabulary, leads)
    name = f"{name}; held out: {apart[0]}" if validation else name
    check_sizes(name, train, kept, length, 0.0 if validation else held_out)
    return Corpus(name, train, kept, vocabulary.num_tokens, (end - begin) / len(kept))


def tokens_of(files: Sequence[str | Path], vocabulary: Vocabulary, folder: Path) -> tuple[Stretch, float]:
    """All tokens of some files, and the bytes that one stands for on average."""
    name, source = opened(files)
    if isinstance(vocabulary, Bytes):
        return Stretch(source, 0, source.size), 1.0
    tokens = _tokens(folder / "tokens", name, source, (0, source.size), vocabulary, leads=True)
    return tokens, source.size / len(tokens)


def _tokens(path: Path, name: str, source: Source, part: tuple[int, int], vocabulary: Vocabulary, leads: bool) -> Stretch:
    """The tokens of a part of a source, from a file that is written unless it is there: its name tells text, part and vocabulary."""
    dtype = np.dtype(np.uint16 if vocabulary.num_tokens <= 2**16 else np.uint32)
    key = hashlib.sha256(f"{vocabulary.key} {fingerprint(source)} {part}".encode()).hexdigest()[:16]
    path = path.with_name(f"{path.name}-{key}.bin")
    if leads and not path.is_file():
        _write(path, name, source, part, vocabulary, dtype)
    tokens = FileSource(path)
    return Stretch(tokens, 0, tokens.size // dtype.itemsize, dtype)


def _write(path: Path, name: str, source: Source, part: tuple[int, int], vocabulary: Vocabulary, dtype: np.dtype) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            for start, data in _pieces(source, *part):
                try:
                    file.write(np.asarray(vocabulary.encode(data), dtype).tobytes())
                except InputError as error:
                    raise InputError(f"{name}, from byte {start:,}: {error}") from None
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}. Make room there, or give another folder") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _pieces(source: Source, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(start, bytes), cut behind a line end where there is one, else between characters."""
    while begin < end:
        data = source.read(begin, min(AT_ONCE, end - begin))
        if begin + len(data) < end:
            line = data.rfind(b"\n") + 1
            stop = line or next((n for n in range(len(data) - 1, max(0, len(data) - 4), -1) if _begins(data[n])), len(data))
            data = data[:stop]
        yield begin, data
        begin += len(data)


def _at_character(source: Source, place: int) -> int:
    """The first place from there at which a character begins."""
    ahead = source.read(place, min(4, source.size - place))
    return place + next((n for n, byte in enumerate(ahead) if _begins(byte)), 0)


def _begins(byte: int) -> bool:
    return byte & 0xC0 != 0x80
