"""What data tokens stand for: bytes, or the tokens of a tokenizer.json of Hugging Face. A model's file holds its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ..diagnostics import InputError, visible

KEY = "tokenizer"  # under which a model's file holds the JSON of its tokenizer


class Vocabulary(Protocol):
    """`num_tokens` is how many there are; `key` tells vocabularies apart; `text` is what a model's file keeps of it, None where it needs nothing."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def key(self) -> str: ...

    @property
    def text(self) -> str | None: ...

    def encode(self, data: bytes) -> list[int]:
        """Raises InputError where the vocabulary cannot say it."""
        ...

    def decode(self, tokens: Sequence[int]) -> bytes: ...


class Bytes:
    """A token is a byte."""

    num_tokens, key, text = 256, "bytes", None

    def encode(self, data: bytes) -> list[int]:
        return list(data)

    def decode(self, tokens: Sequence[int]) -> bytes:
        return bytes(tokens)


class Tokens:
    """The tokens of a tokenizer.json. Raises InputError where it is none, or the package that reads it is missing. `name` is what errors call it."""

    def __init__(self, text: str, name: str):
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise InputError(f"{name}: reading it takes the package tokenizers: pip install tokenizers") from None
        try:
            self._tokenizer: Any = Tokenizer.from_str(text)
        except Exception as error:  # the package raises Exception itself
            raise InputError(f"{name} is no tokenizer.json of Hugging Face: {visible(str(error).strip().splitlines()[0])}") from None
        # A text longer than a model is none of the tokenizer's business.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.num_tokens = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.text, self.name = text, name
        self.key = hashlib.sha256(text.encode()).hexdigest()
        if not self.num_tokens:
            raise InputError(f"{name} has no tokens")

    def encode(self, data: bytes) -> list[int]:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"a tokenizer reads text: byte {error.start} is not UTF-8") from None
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> bytes:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False).encode()


def read_vocabulary(path: str | Path | None) -> Vocabulary:
    """The vocabulary of a tokenizer.json; without one, bytes. Raises InputError if it cannot be read."""
    if path is None:
        return Bytes()
    try:
        return Tokens(Path(path).read_bytes().decode("utf-8"), str(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no tokenizer.json of Hugging Face: byte {error.start} is not UTF-8") from None


def vocabulary_of(about: dict[str, str], num_tokens: int, name: str) -> Vocabulary:
    """That of a model's file, by its texts. Raises InputError where the file does not say what its tokens are."""
    if KEY in about:
        return Tokens(about[KEY], f"the tokenizer in {name}")
    if num_tokens != Bytes.num_tokens:
        raise InputError(f"{name} has {num_tokens} tokens and does not say what they are: neither bytes, of which there are 256, nor a tokenizer")
    return Bytes()
