"""`sample`: texts that go on as a model would have them, one data token after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..default_device import on_the_cpu
from ..diagnostics import InputError
from ..values import came, counted, vector, whole_number
from .cache import Cache
from .draw import Choice
from .transformer import SpecTransformer, of_build_model

Words = list[int]


class Reader(Protocol):
    """What reads texts and says what comes next in each."""

    def feed(self, words: Sequence[Sequence[int]]) -> None: ...

    def next_logits(self, number: int) -> Tensor: ...


@torch.no_grad()
@on_the_cpu
def sample(
    model: SpecTransformer, prompts: Any, count: int, *, temperature: float = 0.8, top_k: int | None = None, top_p: float | None = None, seed: int = 0,
    stop: Any = (), words: int | None = None, cache: bool = True, inputs: Mapping[str, Any] | None = None, **inputs_and_params: Any,
) -> Any:  # fmt: skip
    """Up to `count` data tokens that follow a prompt, or each of a list of prompts: bytes for bytes, else a list of whole numbers.

    `prompts` is bytes, whole numbers (a list, or a vector), or a list of those, of any lengths. `temperature` 0 takes the likeliest token; `top_k` draws
    among so many likeliest, `top_p` among the fewest that have this probability together. Prompt number i draws by `seed` + i, whatever stands beside
    it. A text ends before the first of the `stop` texts (one, or a list) that it would hold. `inputs` and params are those of a call; an input along
    tokens or steps is that of the whole text, prompt and `count` together.

    Keys and values are kept, so that a data token costs its own rows (its reasoning tokens among them) and not a pass over the text; a spec in which a
    row looks at later ones is refused, with the pair, and with `cache=False` each token costs a whole pass, over the rows of the data tokens that are
    known: those in front of the next one, in its own step, which a cache has, predict nothing there. `words`, at least 2, is the length of the sequences
    that the model learnt from: what is longer goes on from the last `words` // 2 (without a cache, the last `words` - 1) as from a
    prompt; None: a text may be as long as the positions are. The mode of the model is left as it was. Raises InputError.
    """
    model = of_build_model(model, "sample")
    if model.config.num_tokens is None:
        raise InputError("this model has no tokens to draw: it was built without num_tokens, for numbers alone")
    if model.config.numbers is not None:
        raise InputError(
            f"this model reads numbers= beside its tokens (numbers={model.config.numbers}), and a text that is drawn has none: draw from model.next_logits"
        )
    texts, kind = _read_prompts(prompts, model.config.num_tokens)
    choice = Choice(temperature, top_k, top_p)
    count = counted("count", count, 0, "a whole number of tokens")
    seed = counted("seed", seed, 0)
    if seed >= 2**63 - len(texts):
        raise InputError(f"seed is a whole number from 0 to {2**63 - 1 - len(texts):,}; got {seed:,}")
    words = None if words is None else counted("words", words, 2, "a whole number of data tokens")
    stops = _read_stops(stop, model.config.num_tokens)
    longest = max((len(t) for t in texts), default=0) + count
    if words is not None and longest > words:
        _check_inputs(model, words)
    goes_on = _Texts(model, texts, words, count, cache, inputs, inputs_and_params)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(texts))]
    drawn: list[Words] = [[] for _ in texts]
    open_ = list(range(len(texts)))
    was_training = model.training
    model.eval()
    try:
        for _ in range(count):
            if not open_:
                break
            for i in open_:
                drawn[i].append(choice.draw(goes_on.next_logits(i), generators[i]))
            ended = {i: n for i in open_ if (n := next((len(s) for s in stops if drawn[i][-len(s) :] == s), 0))}
            for i, n in ended.items():
                del drawn[i][-n:]
            open_ = [i for i in open_ if i not in ended]
            goes_on.feed([drawn[i][-1:] if i in open_ else [] for i in range(len(texts))])
    finally:
        model.train(was_training)
    found = [bytes(d) if k is bytes else d for d, k in zip(drawn, kind, strict=True)]
    return found if isinstance(prompts, list) and (not prompts or whole_number(prompts[0]) is None) else found[0]


class _Texts:
    """Texts that grow, each seen from its last data tokens where it is longer than `words`. Read first when the first is asked for."""

    def __init__(
        self, model: SpecTransformer, texts: Sequence[Words], words: int | None, count: int, cache: bool, inputs: Mapping[str, Any] | None, named: Mapping[str, Any]
    ):  # fmt: skip
        self.model, self.words, self.cache, self.beside = model, words, cache, (inputs, named)
        self.texts = [list(t) for t in texts]
        self.left = [len(t) + count - 1 for t in texts]  # data tokens that will be read at most
        self.reader: Reader | None = None
        self.fresh: list[Words] = [[] for _ in texts]  # tokens that the reader has not read

    def feed(self, words: Sequence[Words]) -> None:
        for text, fresh, own in zip(self.texts, self.fresh, words, strict=True):
            text += own
            fresh += own

    def next_logits(self, number: int) -> Tensor:
        most = None if self.words is None else self.words - 1
        if self.reader is None or (most is not None and max(map(len, self.texts)) > most):
            self._begin(most)
        elif any(self.fresh):
            self.reader.feed(self.fresh)
        assert self.reader is not None
        self.fresh = [[] for _ in self.texts]
        return self.reader.next_logits(number)

    def _begin(self, most: int | None) -> None:
        """From the front: of what has grown too long the last data tokens alone are left."""
        if most is not None:
            keep = max(1, (most + 1) // 2) if self.cache else most
            for i, text in enumerate(self.texts):
                if len(text) > most:
                    # A prompt is seen as far back as can be.
                    cut = len(text) - (most if self.reader is None else keep)
                    self.left[i] -= cut
                    del text[:cut]
        last = [n if most is None else min(n, most) for n in self.left]
        known = [len(t) for t in self.texts]
        self.reader = Cache(self.model, known, last, *self.beside) if self.cache else _Passes(self.model, *self.beside)
        self.reader.feed(self.texts)


class _Passes:
    """A whole pass over every text for each data token."""

    def __init__(self, model: SpecTransformer, inputs: Mapping[str, Any] | None, named: Mapping[str, Any]):
        self.model, self.inputs, self.named = model, inputs, named
        self.texts: list[Words] = []
        self.said: Tensor | None = None

    def feed(self, words: Sequence[Sequence[int]]) -> None:
        self.texts = [[*t, *own] for t, own in zip(self.texts or [[] for _ in words], words, strict=True)]
        self.said = None

    def next_logits(self, number: int) -> Tensor:
        if self.said is None:
            lengths = [len(t) for t in self.texts]
            x = torch.tensor([t + [0] * (max(lengths) - len(t)) for t in self.texts], dtype=torch.int64, device=next(self.model.parameters()).device)
            ragged = {"lengths": lengths} if min(lengths) < max(lengths) else {}
            self.said = self.model.next_logits(x, **ragged, inputs=self._beside(max(lengths))).cpu()
        return self.said[number]

    def _beside(self, words: int) -> dict[str, Any]:
        """Inputs and params of a pass over so many data tokens: of an input along the whole text, its beginning."""
        checked, rows = self.model.spec.checked, self.model.rows_for(words)
        steps = checked.queries.longest(checked.queries.steps(rows)) if checked.queries.rows_per_step else None
        named = {**(self.inputs or {}), **self.named}
        for declared in checked.inputs:
            if declared.name not in named:
                continue
            value = torch.as_tensor(named[declared.name])
            first = value.ndim - len(declared.axes) - len(declared.sizes)  # behind a batch axis, if it has one
            for place, axis in enumerate(declared.axes):
                size = rows if axis in ("token", "query", "key") else steps if axis == "step" else None
                if size is not None:
                    value = value.narrow(first + place, 0, min(size, value.shape[first + place]))
            named[declared.name] = value
        return named


# ------------------------------------------------------------------------------------------------ arguments


def _check_inputs(model: SpecTransformer, words: int) -> None:
    along = [i.name for i in model.spec.checked.inputs if {"token", "step", "query", "key"} & set(i.axes)]
    if along:
        raise InputError(f"words={words} lets a text go on from its last data tokens, and then input `{along[0]}` would speak of others: draw fewer")


def _read_prompts(prompts: Any, num_tokens: int) -> tuple[list[Words], list[type]]:
    """Prompts as whole numbers, and what each came as."""
    several = isinstance(prompts, list) and (not prompts or whole_number(prompts[0]) is None)
    if several and not prompts:
        raise InputError("prompts is empty: give a prompt, or a list of them")
    each = prompts if several else [prompts]
    if num_tokens > 256 and any(isinstance(p, bytes) for p in each):
        raise InputError(f"a prompt is bytes, and this model has {num_tokens:,} tokens: give it the numbers that its tokenizer makes of the text")
    return [_tokens("a prompt", p, num_tokens) for p in each], [bytes if isinstance(p, bytes) else list for p in each]


def _read_stops(stop: Any, num_tokens: int) -> list[Words]:
    several = isinstance(stop, list | tuple) and not (stop and all(whole_number(x) is not None for x in stop))
    stops = [_tokens("stop", s, num_tokens) for s in (stop if several else [stop])]
    if not all(stops):
        raise InputError("a stop text is empty: a text would end before it begins")
    return stops


def _tokens(what: str, text: Any, num_tokens: int) -> Words:
    if isinstance(text, str):
        raise InputError(f"{what} is bytes or whole numbers; got a str: give {text[:20]!r}.encode() to a model of bytes, or a tokenizer's numbers")
    held = text if isinstance(text, bytes) else vector(text)
    if held is None and (not isinstance(text, Iterable) or isinstance(text, Mapping | Tensor | np.ndarray)):
        raise InputError(
            f"{what} is bytes, a list or a vector of whole numbers; got {came(text) if isinstance(text, Tensor | np.ndarray) else type(text).__name__}"
        )
    found: Words = []
    for n in text if held is None else held:
        number = whole_number(n)
        if number is None or not 0 <= number < num_tokens:
            raise InputError(f"{what} holds tokens that this model knows, 0 to {num_tokens - 1}; got {came(n)}")
        found.append(number)
    return found
