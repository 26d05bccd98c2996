"""Sampling: a cache of keys and values says what whole passes say, for every spec that allows one; the others are refused, with the pair. And how a data
token is drawn."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from test_zoo import inputs_of, steps_of
from torch import Tensor
from zoo_case import SCHEMES, Scheme

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.models.cache import Cache
from srt_masks.models.draw import Choice

REASONING = "layout repeat { token, reason * 2 }\nattend causal\nstop k, v where k is reason and 0 < q.step - k.step <= 2\npredict token -> index + 1\npredict reason -> index + 1"
NUMBERS = 13


def model_of(spec: Any, heads: int = 2, depth: int = 2, **options: Any) -> Any:
    torch.manual_seed(0)
    spec = srt.parse(spec) if isinstance(spec, str) else spec
    return srt.build_model(spec, dim=8 * heads, depth=depth, heads=heads, num_tokens=NUMBERS, proofs="off", **options).double()


def by_cache(model: Any, x: Tensor, known: list[int], inputs: Any = None, **named: Any) -> list[dict[int, Tensor]]:
    """What a cache says of every data token behind the first `known` ones of each row, the true ones fed one after another; nothing where no row does."""
    last, said = [x.shape[1] - 1] * len(known), [{} for _ in known]
    with torch.no_grad():
        cache = Cache(model, known, last, inputs, named)
        words: list[list[int]] = [x[b, :n].tolist() for b, n in enumerate(known)]
        while True:
            cache.feed(words)
            for b, n in enumerate(cache.known):
                with suppress(srt.InputError):
                    said[b][n] = cache.next_logits(b)
            words = [x[b, n : n + 1].tolist() if n < last[b] else [] for b, n in enumerate(cache.known)]
            if not any(words):
                return said


def by_pass(model: Any, x: Tensor, inputs: Any = None, **named: Any) -> dict[int, Tensor]:
    """What one whole pass says of every data token of a row, by the last row in front of it that predicts it, or of its own step."""
    options = {"inputs": inputs, **named}
    with torch.no_grad():
        rows = model(x[None], all_rows=True, **options)[0]
    table = model.tokens(x.shape[0], **options)
    place = {
        int(i): r for r, (i, role) in enumerate(zip(table.index, table.role, strict=True)) if role in [model.spec.roles[d] for d in model.spec.checked.data]
    }
    return {int(t): rows[r] for r, t in enumerate(table.target) if 0 <= t < x.shape[0] and r < place[int(t)]}


def hold(model: Any, x: Tensor, known: list[int], inputs: Any = None, **named: Any) -> None:
    said = by_cache(model, x, known, inputs, **named)
    for b in range(len(known)):
        wanted = {t: logits for t, logits in by_pass(model, x[b], inputs, **named).items() if t >= known[b]}
        assert wanted and said[b].keys() == wanted.keys()
        for t, logits in said[b].items():
            torch.testing.assert_close(logits, wanted[t], rtol=1e-9, atol=1e-10)


# ------------------------------------------------------------------------------------------------ what can be kept

# Two layouts; only some tokens ask; a layout given; and one whose data see each other both ways, so that whatever predicts them would leak.
LEFT_OUT = {
    "encoder-decoder", "transformer-xl", "speculative verification", "medusa tree", "coconut", "knowledge insulation", "retrieved chunks", "streaming speech",
}  # fmt: skip
LATER = r"row (\d+) \(.*?\) attends to row (\d+) \(.*?\), which comes later"
BOTH_WAYS = {
    "bert padding", "prefix lm", "longformer", "bigbird", "semi-autoregressive", "neighbourhood attention", "axial", "flashmask columns", "transfusion", "xlnet",
    "vision registers", "shifted windows",
}  # fmt: skip


def with_all_that_is_missing(scheme: Scheme, params: dict[str, Any]) -> srt.Spec:
    """The text, with a `position` and a `predict` where it has none."""
    spec = srt.parse(scheme.text, params=params)
    checked, more = spec.checked, ""
    if not checked.data:
        more += f"\ndata {spec.roles[-1]}"
    if checked.position is None and not checked.queries.is_single_repeat:
        more += "\nposition pos"
    if not checked.predictions:
        more += f"\npredict {spec.roles[checked.data[-1] if checked.data else -1]} -> index + 1"
    return srt.parse(scheme.text + more, params=params)


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.name not in LEFT_OUT], ids=lambda s: s.name)
def test_a_cache_says_what_whole_passes_say_or_names_the_pair(scheme: Scheme):
    case = scheme.cases[0]
    spec = with_all_that_is_missing(scheme, case.params)
    model = model_of(spec, heads=case.heads, depth=case.layers)
    inputs = inputs_of(spec, case)
    table = srt.tokens(spec, steps=steps_of(spec, case), heads=case.heads, layers=case.layers, inputs=inputs)
    words = sum(spec.roles.index(r) in spec.checked.data for r in table.role)
    x = torch.randint(0, NUMBERS, (2, words))
    attend = srt.dense(spec, steps=steps_of(spec, case), heads=case.heads, layers=case.layers, inputs=inputs).attend.any(0).any(0)
    known = [max(1, words // 3), max(1, words // 2)]
    if scheme.name == "block diffusion":
        with pytest.raises(srt.InputError, match=r"`clean` stands behind the part of .* that repeats"):
            by_cache(model, x, known, inputs)
    elif scheme.name in BOTH_WAYS:
        with pytest.raises(srt.InputError, match=LATER) as error:
            by_cache(model, x, known, inputs)
        found = re.search(LATER, str(error.value))
        assert found is not None
        query, key = map(int, found.groups())
        assert query < key and bool(attend[query, key])
    else:
        hold(model, x, known, inputs)


@pytest.mark.parametrize(
    "name", ["causal", "sliding window", "quiet-star", "self reasoning, stopped", "summaries", "semi-autoregressive", "transfusion", "xlnet"]
)
def test_the_claim_says_of_all_calls_what_is_found_of_one(name: str):
    scheme = next(s for s in SCHEMES if s.name == name)
    case = scheme.cases[0]
    claimed = srt.parse(scheme.text + "\nassert cacheable", params=case.params)
    (verdict,) = [v for v in srt.prove(claimed) if v.claim == "assert cacheable"]
    assert verdict.outcome == ("refuted" if name in BOTH_WAYS else "proved")


@pytest.mark.parametrize("seed", range(24))
def test_random_repeating_specs(seed: int):
    """Rows in front of data tokens and behind, rules by layer and by head, both ways within a step or row by row; prompts of two lengths."""
    r = Random(seed)
    rows = [f"a * {r.randint(1, 2)}"] * r.randint(0, 1) + [f"token * {r.choice((1, 1, 1, 2))}"] + [f"b * {r.randint(1, 2)}"] * r.randint(0, 1)
    roles = [row.split()[0] for row in rows]
    front = r.choice(["", "start * 2, "])
    far = r.randint(1, 5)
    order = r.choice(["causal", "k.section < q.section or same(section) and k.step <= q.step"] if "token * 2" not in rows else ["causal"])
    more = r.choice(
        ["true", f"q.pos - k.pos < {far + 3}", f"(layer == 0 or q.pos - k.pos < {far + 4})", f"(head == 0 or k is token or k.step < q.step - {far})"]
    )
    rule = r.choice(["stop k where k.step < q.step", "stop hidden where k.pos < q.pos", "scale v by 0.5 where head == 1", ""])
    predicting = [*roles[roles.index("token") :], *(["start"] if front else [])]
    text = f"layout {front}repeat {{ {', '.join(rows)} }}\nattend ({order}) and {more}\n{rule}\nposition {r.choice(['pos', 'step'])}\n"
    text += "\n".join(f"predict {role} -> index + 1" for role in predicting)
    options: dict[str, Any] = {
        "positions": r.choice(["learned", "rotary"]), "key_heads": r.choice([1, 2]), "tied": r.random() < 0.3, "feed_forward": r.choice(["gelu", "gated"]),
        "own_weights": {roles[-1]} if r.random() < 0.5 else (),
    }  # fmt: skip
    model = model_of(text, **options)
    x = torch.randint(0, NUMBERS, (2, 8), generator=torch.Generator().manual_seed(seed))
    hold(model, x, [r.choice([1, 2, 3]), r.choice([3, 4, 6])])


def test_whole_passes_at_every_length_say_the_same():
    """Not one pass over all that is to come: the very passes that a cache saves."""
    model = model_of(REASONING, key_heads=1, positions="rotary")
    x = torch.randint(0, NUMBERS, (2, 9))
    said = by_cache(model, x, [2, 5])
    for b, first in enumerate((2, 5)):
        for n in range(first, 9):
            torch.testing.assert_close(said[b][n], model.next_logits(x[b : b + 1, :n])[0], rtol=1e-9, atol=1e-10)
    single, each = model.float(), []
    each = by_cache(single, x, [2, 5])
    torch.testing.assert_close(each[0][8], single.next_logits(x[:1, :8])[0], rtol=1e-5, atol=1e-5)


def test_rows_that_are_computed_too_early_say_nothing():
    """Beside a longer prompt, rows of a shorter one are computed before their words are known; what they say of a word that they repeat is nothing."""
    text = "layout repeat { token, echo }\nattend causal\npredict token -> index + 1\npredict echo -> index"
    hold(model_of(text), torch.randint(0, NUMBERS, (2, 8)), [2, 5])


def test_data_in_mid_step_is_predicted_by_rows_before_it():
    """The state predicts the action of its own step, which is not known then."""
    model = model_of("layout repeat { return, state, action }\ndata action\nattend causal\npredict state -> index + 1")
    x = torch.randint(0, NUMBERS, (2, 5))
    hold(model, x, [0, 3])


def test_a_step_of_several_data_tokens_may_be_predicted_at_once():
    text = "layout repeat { token * 2 }\nattend k.step <= q.step\npredict token -> index + 2"
    model = model_of(text)
    with torch.no_grad():
        cache = Cache(model, [2], [5], None, {})
        cache.feed([[1, 2]])
        first = cache.next_logits(0)
        cache.feed([[3]])  # half a step: nothing can be computed
        second = cache.next_logits(0)
    whole = model(torch.tensor([[1, 2]]), all_rows=True)[0]
    torch.testing.assert_close(first, whole[0])
    torch.testing.assert_close(second, whole[1])


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("attend k.pos // 3 <= q.pos // 3\npredict token -> index + 1", {}, r"row 0 \(token of step 0\) attends to row 2 \(token of step 2\), which comes later; cache=False"),
        ("attend causal or layer == 1 and head == 0\npredict token -> index + 1", {}, r"row 0 .* row 2 .*in layer 1, head 0"),
        ("attend causal and k.pos >= length - 3\npredict token -> index + 1", {}, r"reads `length`: in 3 steps row 0 attends to row 0, in 4 the other way round"),
        ("attend causal\nposition steps - step\npredict token -> index + 1", {}, "reads `steps`: in 1 steps row 0 has position 1, in 2 2"),
        ("attend causal and role[k.pos + 1] is token\npredict token -> index + 1", {}, "the token at a position.*: in 1 steps row 0 does not attend to row 0"),
        ("layout repeat { token }, close\nattend causal\nposition pos\npredict close -> index + 1", {}, "`close` stands behind the part of"),
        ("layout given { token }\nattend causal\nposition pos\npredict token -> index + 1", {}, "which rows a next data token has is not known"),
        ("layout repeat { token }\nattend causal\npredict token -> index + 2 where step > 4", {}, "no row of this spec predicts data token 2"),
        ("layout token * 4\nattend causal\nposition pos\npredict token -> index + 1", {}, "8 data tokens are wanted; the layout `token .* 4` has 4"),
        ("attend causal\npredict token -> index + 1", {"max_positions": 6}, "positions run from 0 to 6"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_says_why(text: str, options: dict[str, Any], words: str):
    with pytest.raises(srt.InputError, match=words):
        srt.sample(model_of(text, **options), [1, 2], 6)


def test_rows_behind_the_repeat_that_say_nothing_are_left_out():
    hold(model_of("layout repeat { token }, close * 2\nattend causal\nposition step\npredict token -> index + 1"), torch.randint(0, NUMBERS, (2, 7)), [2, 5])


def test_without_a_cache_any_spec_that_predicts_goes_on():
    text = "attend k.pos // 3 <= q.pos // 3\npredict token -> index + 1"
    model, found = model_of(text), []
    for _ in range(4):
        found.append(int(model.next_logits(torch.tensor([[1, 2, *found]]))[0].argmax()))
    assert srt.sample(model, [1, 2], 4, temperature=0, cache=False) == found


def test_rows_in_front_of_a_token_in_its_own_step_are_those_of_a_cache():
    """A whole pass has not begun that step: it says so, and of which row, where no other predicts."""
    x = [1, 2, 3]
    model = model_of("layout repeat { open, think * 2, token }\nattend causal\nposition step\npredict think -> index + 1")
    whole = by_pass(model, torch.tensor([*x, 0]))
    assert srt.sample(model, x, 1, temperature=0) == [int(whole[3].argmax())]
    with pytest.raises(
        srt.InputError, match=r"the token that comes next but those in front of it, in its own step \(`think`\): srt_masks.sample has them too, by its cache"
    ):
        srt.sample(model, x, 1, cache=False)
    without = model_of("layout repeat { open, token }\nattend causal\nposition step\npredict token -> index + 1 where step < 1")
    with pytest.raises(srt.InputError, match="predicts the token that comes next: it cannot continue a text"):
        srt.sample(without, x, 1, cache=False)


def test_inputs_of_the_whole_text_and_params_of_the_call():
    text = "param far = 2\ninput doc: int per token\ninput prefix: int per sequence\nattend (causal and same(doc) and q.pos - k.pos <= far) or k.pos < prefix and causal\npredict token -> index + 1"
    model, x = model_of(text), torch.randint(0, NUMBERS, (2, 8))
    doc = torch.tensor([[0, 0, 1, 1, 1, 1, 2, 2], [0, 0, 0, 0, 0, 1, 1, 1]])
    prefix = torch.tensor([1, 2])
    said = by_cache(model, x, [3, 4], {"doc": doc, "prefix": prefix}, far=3)
    for b, n in ((0, 3), (1, 4)):
        wanted = by_pass(model, x[b], {"doc": doc[b], "prefix": int(prefix[b])}, far=3)
        for t in range(n, 8):
            torch.testing.assert_close(said[b][t], wanted[t], rtol=1e-9, atol=1e-10)


def test_the_reference_goes_on_alike():
    prompts, found = [[1, 2, 3], [4]], []
    for backend in ("tiled", "reference"):
        found.append(srt.sample(model_of(REASONING, backend=backend), prompts, 6, temperature=1.0))
    assert found[0] == found[1]


def test_a_prefix_that_is_seen_both_ways_is_kept_where_the_prompt_holds_it():
    """Held to the pairs of the call, not to those that some call might have."""
    model = model_of("input prefix: int per sequence\nattend causal or k.pos < prefix\npredict token -> index + 1")
    x = torch.randint(0, NUMBERS, (1, 8))
    said = by_cache(model, x, [4], prefix=4)
    for n in range(4, 8):
        torch.testing.assert_close(said[0][n], model.next_logits(x[:, :n], prefix=4)[0], rtol=1e-9, atol=1e-10)
    with pytest.raises(srt.InputError, match=r"row 0 .* attends to row 4 "):
        by_cache(model, x, [4], prefix=5)


def test_a_data_token_costs_its_own_rows_and_no_plan():
    model, rows = model_of(REASONING), []
    attend = model.attend

    def watched(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        rows.append(q.shape[2])
        return attend(q, k, v, **options)

    watched.compiled, watched.plan = attend.compiled, attend.plan  # type: ignore[attr-defined]
    model.attend = watched
    srt.sample(model, list(range(10)), 40)
    assert rows == [30, 30, *[3] * 78]
    assert attend.plans.made <= 3


# ------------------------------------------------------------------------------------------------ what is drawn


def test_each_prompt_draws_as_it_does_alone():
    model = model_of(REASONING)
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
    together = srt.sample(model, prompts, 12, seed=5, top_k=6)
    assert together == [srt.sample(model, p, 12, seed=5 + i, top_k=6) for i, p in enumerate(prompts)]
    assert together == srt.sample(model, prompts, 12, seed=5, top_k=6, cache=False)
    assert together != srt.sample(model, prompts, 12, seed=8, top_k=6)


def test_what_comes_back_is_what_was_given():
    torch.manual_seed(0)
    model = srt.build_model(srt.parse(REASONING), dim=16, depth=1, heads=2, num_tokens=256)
    one = srt.sample(model, b"ab", 7)
    assert isinstance(one, bytes) and len(one) == 7
    assert srt.sample(model, [97, 98], 7) == list(one) == srt.sample(model, torch.tensor([97, 98]), 7)
    assert srt.sample(model, [b"ab", [97, 98]], 7, seed=0)[0] == one
    assert srt.sample(model, [b"ab"], 0) == [b""] and model.training


def test_a_text_ends_before_a_stop():
    model = model_of(REASONING)
    whole = srt.sample(model, [[1], [2]], 30)
    stop = whole[0][4:6]
    first = next(i for i in range(30) if whole[0][i : i + 2] == stop)
    ended = srt.sample(model, [[1], [2]], 30, stop=stop)
    assert ended[0] == whole[0][:first]
    other = next((i for i in range(30) if whole[1][i : i + 2] == stop), 30)
    assert ended[1] == whole[1][:other]
    single = srt.sample(model, [1], 30, stop=[[99 % NUMBERS, 0, 0, 0, 0, 0], whole[0][2:3]])
    assert single == whole[0][: whole[0].index(whole[0][2])]


def test_choices_of_probabilities():
    logits = torch.tensor([1.0, 3.0, 2.0, 0.0, 2.0])
    p = torch.softmax(logits, -1)
    torch.testing.assert_close(Choice(1.0).probabilities(logits), p)
    torch.testing.assert_close(Choice(0.5).probabilities(logits), torch.softmax(2 * logits, -1))
    assert Choice(0).probabilities(logits).tolist() == [0, 1, 0, 0, 0]
    top = Choice(1.0, top_k=2).probabilities(logits)
    torch.testing.assert_close(top, torch.tensor([0, p[1], p[2], 0, 0]) / (p[1] + p[2]))  # the first of equals
    assert Choice(1.0, top_k=9).probabilities(logits).count_nonzero() == 5
    for mass, kept in ((0.1, 1), (float(p[1]) + 1e-4, 2), (float(p[1] + 2 * p[2]) - 1e-3, 3), (1.0, 5)):
        found = Choice(1.0, top_p=mass).probabilities(logits)
        assert found.count_nonzero() == kept
        torch.testing.assert_close(found.sum(), torch.tensor(1.0))
    assert [int(Choice(1.0, top_k=3, top_p=p).probabilities(logits).count_nonzero()) for p in (0.57, 0.58)] == [1, 2]  # the likeliest has .576 of three


def test_draws_follow_the_probabilities():
    logits, generator = torch.tensor([0.0, 1.0, 2.0]), torch.Generator().manual_seed(0)
    counts = Counter(Choice(1.0).draw(logits, generator) for _ in range(4000))
    for token, p in enumerate(torch.softmax(logits, -1).tolist()):
        assert abs(counts[token] / 4000 - p) < 0.03


def test_whole_numbers_may_be_those_of_numpy_and_torch():
    model = srt.build_model(srt.parse("attend causal\npredict token -> index + 1"), dim=16, depth=1, heads=2, num_tokens=256)
    plain = srt.sample(model, [1, 2, 3], 4, seed=5, top_k=3, words=4, stop=[9])
    assert len(plain) == 4 and all(type(n) is int for n in plain)
    for whole in (np.int64, np.uint8, torch.tensor):
        numbers = {"count": whole(4), "seed": whole(5), "top_k": whole(3), "words": whole(4), "stop": [whole(9)]}
        for prompt in ([whole(1), whole(2), whole(3)], np.array([1, 2, 3]), torch.tensor([1, 2, 3])):
            assert srt.sample(model, prompt, **numbers) == plain
            assert srt.sample(model, [prompt, [7]], **numbers)[0] == plain


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompts": np.zeros((2, 3))}, "vector of whole numbers; got"), ({"prompts": np.array([1.5])}, "vector of whole numbers; got"), ({"prompts": [[True]]}, "got True"),
        ({"temperature": -1.0}, "temperature"), ({"temperature": float("nan")}, "temperature"), ({"temperature": True}, "temperature"), ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"), ({"top_p": 1.5}, "top_p"), ({"count": -1}, "count"), ({"seed": -1}, "seed"), ({"seed": 2**63}, "seed is a whole number from 0 to 9,223,372,036,854,775,80"), ({"words": 1}, "words"), ({"words": 2.0}, "words"),
        ({"prompts": b""}, "give a prompt"), ({"prompts": []}, "prompts is empty"), ({"prompts": "The"}, r"got a str: give 'The'.encode\(\)"), ({"prompts": [300]}, "0 to 255; got 300"),
        ({"prompts": torch.zeros(2, 3)}, "vector of whole numbers; got float32"), ({"stop": b""}, "stop text is empty"), ({"stop": "x"}, "stop is bytes"), ({"stop": [b"x", b""]}, "stop text is empty"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(options: dict[str, Any], words: str):
    model = srt.build_model(srt.parse("attend causal\npredict token -> index + 1"), dim=16, depth=1, heads=2, num_tokens=256)
    given = {"prompts": b"a", "count": 1, "words": 4, **options}
    with pytest.raises(srt.InputError, match=words):
        srt.sample(model, given.pop("prompts"), given.pop("count"), **given)


def test_a_model_of_numbers_draws_no_tokens():
    model = srt.build_model(srt.parse("attend causal\npredict token -> index"), dim=8, depth=1, heads=1, regression=2)
    with pytest.raises(srt.InputError, match="no tokens to draw"):
        srt.sample(model, [1], 3)
    with pytest.raises(srt.InputError, match="model of build_model; got Linear"):
        srt.sample(torch.nn.Linear(1, 1), [1], 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("cache", [True, False])
def test_broken_weights_do_not_write(cache: bool):
    model = model_of("attend causal\npredict token -> index + 1")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(srt.InputError, match="broken"):
        srt.sample(model, [1], 1, cache=cache)


def test_texts_longer_than_what_was_learnt_go_on_from_their_end():
    """Every token is predicted from at most words - 1 before it: the last place of a training sequence has no label. Each row is cut when it is full."""
    model = model_of("attend causal\npredict token -> index + 1", max_positions=5)
    prompts, drawn = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 1]], []
    for i, prompt in enumerate(prompts):
        text, seen = prompt[-5:], list(prompt[-5:])
        generator = torch.Generator().manual_seed(3 + i)
        for _ in range(12):
            if len(seen) > 5:
                seen = seen[-3:]
            seen.append(Choice().draw(model.next_logits(torch.tensor([seen]))[0], generator))
            text.append(seen[-1])
        drawn.append(text[len(prompt[-5:]) :])
    assert srt.sample(model, prompts, 12, words=6, seed=3) == drawn
    slid = []
    for _ in range(12):
        slid.append(int(model.next_logits(torch.tensor([[1, 2, 3, *slid][-5:]]))[0].argmax()))
    assert srt.sample(model, [1, 2, 3], 12, words=6, temperature=0, cache=False) == slid


def test_inputs_along_tokens_do_not_move_with_a_window():
    model = model_of("input doc: int per token\nattend causal and same(doc)\npredict token -> index + 1")
    doc = torch.zeros(8, dtype=torch.int64)
    assert len(srt.sample(model, [1, 2], 6, doc=doc, words=8)) == 6
    with pytest.raises(srt.InputError, match="input `doc` would speak of others"):
        srt.sample(model, [1, 2], 6, doc=doc, words=7)


def test_the_command_draws_from_several_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(0)
    model = srt.build_model(srt.parse(REASONING), dim=16, depth=1, heads=2, num_tokens=256)
    checkpoint = tmp_path / "m.safetensors"
    srt.save_model(model, checkpoint)

    def written(*flags: str) -> str:
        assert main(["sample", str(checkpoint), "--count", "9", "--words", "6", "--seed", "4", *flags]) == 0
        return capsys.readouterr().out

    def shown(text: bytes) -> str:
        return "".join(c if c.isprintable() or c == "\n" else "·" for c in text.decode("utf-8", "replace"))

    options: dict[str, Any] = {"top_k": 60, "top_p": 0.9, "temperature": 0.5, "seed": 4, "words": 6}
    wanted = srt.sample(model, [b"ab", b"The"], 9, **options)
    flags = ["--top-k", "60", "--top-p", "0.9", "--temperature", "0.5"]
    assert written("--prompt", "ab", "--prompt", "The", *flags) == f"{shown(b'ab' + wanted[0])}\n\n{shown(b'The' + wanted[1])}\n"
    assert written("--prompt", "ab", "--no-cache", *flags) == shown(b"ab" + srt.sample(model, b"ab", 9, cache=False, **options)) + "\n"
    assert written("--prompt", "ab", "--stop", os.fsdecode(wanted[0][3:5]), *flags) == shown(b"ab" + wanted[0][:3]) + "\n"
    assert main(["sample", str(checkpoint), "--words", "0"]) == 2  # and not as many as it was trained with
    assert "words is a whole number of data tokens, 2 or more; got 0" in capsys.readouterr().err


def test_without_a_cache_inputs_of_the_whole_text_are_read_as_far_as_it_has_come():
    spec = srt.parse(
        "input doc: int per token  input step_of: int per step  layout repeat { token, reason }  attend causal and same(doc) and q.step_of >= k.step_of\npredict token -> index + 1"
    )
    model = srt.build_model(spec, dim=16, depth=2, heads=2, num_tokens=20, proofs="off").double()
    inputs = {"doc": torch.arange(16) // 6, "step_of": torch.arange(8)}
    for prompts in ([3, 4, 5], [[3, 4], [3, 4, 5]]):
        drawn = [srt.sample(model, prompts, 5, temperature=2.0, cache=cache, inputs=inputs) for cache in (True, False)]
        assert drawn[0] == drawn[1]


def test_bytes_are_no_tokens_of_a_larger_vocabulary():
    model = srt.build_model(srt.parse("attend causal\npredict token -> index + 1"), dim=16, depth=1, heads=2, num_tokens=300)
    with pytest.raises(srt.InputError, match="300 tokens: give it the numbers"):
        srt.sample(model, b"ab", 3)
