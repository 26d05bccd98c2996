"""`Spec`: a checked text, frozen and printable; what every public function takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .diagnostics import InputError, Source, SpecError, did_you_mean, listing, visible
from .grammar import checked as c
from .grammar.check import check
from .grammar.parser import read
from .grammar.tables import PIECES


@dataclass(frozen=True)
class Spec:
    """A checked spec. Two specs are equal if their texts and the values of their params are."""

    text: str
    filename: str = field(default="<spec>", compare=False)
    checked: c.Checked = field(repr=False, compare=False, kw_only=True)
    _values: tuple[tuple[str, int | float], ...] = field(repr=False, kw_only=True)

    @property
    def params(self) -> dict[str, int | float]:
        """Name to value, in the order of the text."""
        return {p.name: p.value for p in self.checked.params}

    @property
    def inputs(self) -> dict[str, c.Input]:
        """Name to declaration, in the order of the text."""
        return {i.name: i for i in self.checked.inputs}

    @property
    def roles(self) -> tuple[str, ...]:
        return self.checked.roles

    def with_params(self, **params: int | float) -> Spec:
        """The same text with other values of its params. Raises InputError for a name the text does not have."""
        return parse(self.text, params={**self.params, **params}, filename=self.filename)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        values = ", ".join(f"{k}={v}" for k, v in self.params.items())
        return f"<Spec {self.filename}: roles {', '.join(self.roles)}{'; ' + values if values else ''}>"

    def _repr_html_(self) -> str:
        from .view.html import page

        return page(self)

    def __reduce__(self):
        return _again, (self.text, self.params, self.filename)


def _again(text: str, params: dict[str, int | float], filename: str) -> Spec:
    return parse(text, params=params, filename=filename)


def parse(text: str, *, params: Mapping[str, int | float] | None = None, filename: str = "<spec>") -> Spec:
    """Read a spec text and check it.

    `params` replaces the values of the text's params. Raises SpecError with every mistake of the text, each with its line,
    column and remedy; InputError for a param the text does not have.
    """
    if not isinstance(text, str):
        raise InputError(f"parse takes the text of a spec as a str; got {type(text).__name__}. For a file: srt_masks.load(path)")
    if params is not None and not isinstance(params, Mapping):
        raise InputError(f"params maps names to numbers; got {type(params).__name__}")
    source = Source(text, filename)
    reading = read(source)
    checked, mistakes = check(reading.tree, params or {}, reading.missing, source) if reading.whole else (None, [])
    if reading.mistakes or mistakes or checked is None:
        raise SpecError([*reading.mistakes, *mistakes], source)
    known = [p.name for p in checked.params]
    for name in params or ():
        if name not in known:
            raise InputError(f"this spec has no param `{name}`; {did_you_mean(name, known) or 'its params: ' + (listing(known) or 'none')}")
    return Spec(text, filename, checked=checked, _values=tuple((p.name, p.value) for p in checked.params))


def load(path: str | Path, *, params: Mapping[str, int | float] | None = None) -> Spec:
    """Read a spec from a file. Raises SpecError as `parse` does, InputError if the file cannot be read or is no text."""
    return parse(read_text(path), params=params, filename=str(path))


def read_text(path: str | Path) -> str:
    """The text of a spec file, refused before it is read if it is larger than any spec may be."""
    from .grammar.parser import MAX_TEXT

    if not isinstance(path, str | Path) or "\0" in str(path) or not str(path):
        raise InputError(f"a path is wanted; got {path!r}")
    path = Path(path)
    try:
        if path.is_file() and path.stat().st_size > 4 * MAX_TEXT:
            raise InputError(f"{path} has {path.stat().st_size:,} bytes; a spec has at most {MAX_TEXT:,} characters")
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        hint = ". For a text: srt_masks.parse(text)" if len(str(path).split()) > 1 and "attend" in str(path) else ""
        raise InputError(f"cannot read {path}: {error.strerror or error}{hint}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text: byte {error.start} is not UTF-8. A spec is a plain text file") from None


def bare(text: str) -> str:
    """The tokens alone: texts that differ in comments, or in white space, have the same."""
    return " ".join(word for word, _ in _words(text))


def said_otherwise(there: str, here: str) -> str:
    """The first line outside comments in which a text is another than one from elsewhere, as "line 3 is `...` there and `...` here"; empty where they say the
    same. The number is that of the text here."""
    was, now = ([*_words(text), ("", len(text))] for text in (there, here))
    n = next((n for n, (one, other) in enumerate(zip(was, now, strict=False)) if one[0] != other[0]), None)
    if n is None:
        return ""
    if n and not (_begins_a_line(there, was[n][1]) and _begins_a_line(here, now[n][1])):
        n -= 1  # one of them goes on with the line that the other has ended
    before, after = was[n][1], now[n][1]
    return f"line {here.count(chr(10), 0, after) + 1} is `{_line_of(there, before)}` there and `{_line_of(here, after)}` here"


def _words(text: str) -> list[tuple[str, int]]:
    """Every token, and where it begins."""
    return [(piece.group(), piece.start()) for piece in PIECES.finditer(text) if piece.lastgroup is not None]


def _begins_a_line(text: str, at: int) -> bool:
    return at == len(text) or not text[text.rfind("\n", 0, at) + 1 : at].strip()


def _line_of(text: str, at: int) -> str:
    """The line that holds a character, without its comment."""
    line = text[text.rfind("\n", 0, at) + 1 :].partition("\n")[0]
    return visible(line.partition("#")[0].strip()) if at < len(text) else "nothing"
