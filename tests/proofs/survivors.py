"""Mutants of true texts of which a claim still holds, and why it does.

By text (of an example by its name and claim), then by what was written in the place of a statement. A reason that begins with one of these words is also
held to small calls of the mutant, each of which has to be a call of the text itself:

    same    what the claim speaks of is what it was
    fewer   no pair attends (of `grad`: passes) that did not, nor does the claim speak of another: and it is that none does something
    more    every pair attends that did, and the claim is that some do

And two are no proofs: `open`, it holds and the prover does not see it; `empty`, no call keeps to what is given.
"""

from __future__ import annotations

ITSELF, NEXT = "fewer: all but itself", "more: the next, too"
STOP, PREDICT, REST = "same: a stop is no mask", "same: a predict is no mask", "same: no rest by 2 is below 0"
AHEAD, VALUES, DISTANCE = "nobody reads two words ahead", "same: of fewer values", "the window alone bounds the distance"
ROWS = "open: it takes an induction from row to row"

# fmt: off
SURVIVORS: dict[str, dict[str, str]] = {
    # ---------------------------------------------------------------------------------------- attended pairs
    "attend causal assert k.pos <= q.pos": {"attend (k.pos < q.pos)": ITSELF},
    "param span = 4 attend causal and window(span) assert q.pos - k.pos < span": {
        "attend (k.pos < q.pos) and window(span)": ITSELF, "attend (k.pos <= q.pos + 1) and window(span)": DISTANCE},
    "attend dilated(4, 3) assert abs(q.pos - k.pos) <= 9": {
        "attend dilated(3, 3)": "fewer: 0, 3 and 6", "attend dilated(4, 2)": "below 8, and even: 6 at most"},
    "attend same(pos // 8) assert abs(q.pos - k.pos) < 8": {"attend same(pos // 7)": "a chunk of 7 is shorter"},
    "attend causal and (window(4) if head % 2 == 0 else first(2)) assert head % 2 == 1 or q.pos - k.pos < 4": {
        "attend causal and (window(4) if head % 2 <= 0 else first(2))": REST,
        "attend causal and (window(3) if head % 2 == 0 else first(2))": "fewer: a shorter window",
        "attend causal and (window(4) if head % 1 == 0 else first(2))": "all heads have the window",
        "attend causal and (window(4) if head % 2 == 0 else first(1))": "nothing is claimed of odd heads",
        "attend causal and (window(4) if head % 2 == 0 else first(3))": "nothing is claimed of odd heads",
        "attend (k.pos < q.pos) and (window(4) if head % 2 == 0 else first(2))": ITSELF,
        "attend (k.pos <= q.pos + 1) and (window(4) if head % 2 == 0 else first(2))": DISTANCE},
    "attend causal and (window(4) or layer % 6 == 5) assert layer % 6 == 5 or q.pos - k.pos < 4": {
        "attend causal and (window(3) or layer % 6 == 5)": "fewer: a shorter window",
        "attend causal and (window(4) or layer % 5 == 5)": "fewer: no rest by 5 is 5, and every layer has the window",
        "attend causal and (window(4) or layer % 6 == 6)": "fewer: no rest by 6 is 6, and every layer has the window",
        "attend (k.pos < q.pos) and (window(4) or layer % 6 == 5)": ITSELF,
        "attend (k.pos <= q.pos + 1) and (window(4) or layer % 6 == 5)": DISTANCE},
    "attend any(q.pos - k.pos == 2 ** i for i in range(5)) assert 1 <= q.pos - k.pos <= 16": {
        "attend any(q.pos - k.pos == 1 ** i for i in range(5))": "fewer: 1 alone",
        "attend any(q.pos - k.pos == 2 ** i for i in range(4))": "fewer: without 16"},
    "attend all((q.pos - k.pos) % i != 0 for i in range(2, 4)) assert q.pos != k.pos": {
        "attend all((q.pos - k.pos) % i != 0 for i in range(1, 4))": "fewer: everything is a multiple of 1",
        "attend all((q.pos - k.pos) % i != 0 for i in range(3, 4))": "0 is a multiple of 3",
        "attend all((q.pos - k.pos) % i != 0 for i in range(2, 3))": "0 is a multiple of 2",
        "attend all((q.pos - k.pos) % i != 0 for i in range(2, 5))": "fewer: no multiple of 4 either"},
    "layout sink * 2, repeat { token, note } attend causal and k in {sink, token} assert k is not note": {
        "attend (k.pos < q.pos) and k in {sink, token}": ITSELF, "attend (k.pos <= q.pos + 1) and k in {sink, token}": "a note is seen from nowhere"},
    "layout repeat { token, note * 3 } attend q is note and k is note and same(step) and k.slot <= q.slot assert causal": {
        "attend q is note and k is note and same(step) and k.slot < q.slot": ITSELF},
    "layout repeat { token, note } attend causal and role[k.pos + 1] is note assert k is token": {
        "attend (k.pos < q.pos) and role[k.pos + 1] is note": ITSELF, "attend (k.pos <= q.pos + 1) and role[k.pos + 1] is note": "a note stands behind tokens alone"},
    "queries where pos % 2 == 0 attend causal assert q.pos % 2 == 0": {
        "attend (k.pos < q.pos)": ITSELF, "attend (k.pos <= q.pos + 1)": "who asks is even, whatever it sees"},
    "queries layout repeat { target } keys layout repeat { source } attend causal assert k.step <= q.step": {"attend (k.pos < q.pos)": "fewer: all but that of its own step"},
    "input valid: bool per token attend causal and k.valid assert k.valid": {
        "attend (k.pos < q.pos) and k.valid": ITSELF, "attend (k.pos <= q.pos + 1) and k.valid": "what is not valid is seen from nowhere"},
    "input score: float per token attend k.score > 0.5 assert k.score > 0.25": {"attend k.score >= 0.5": "0.5 is above 0.25"},
    "input span: int per layer, head attend causal and window(span) assert q.pos - k.pos < span": {
        "attend (k.pos < q.pos) and window(span)": ITSELF, "attend (k.pos <= q.pos + 1) and window(span)": DISTANCE},
    "input prefix: int per sequence attend causal or k.pos < prefix assert k.pos > q.pos implies k.pos < prefix": {"attend (k.pos < q.pos) or k.pos < prefix": ITSELF},
    "layout repeat { token, note * 2 } input doc: int per step attend causal and same(doc) assert k.step == q.step or k.step < q.step": {
        "attend (k.pos < q.pos) and same(doc)": ITSELF},
    "input parent: int per token given parent < pos attend diagonal or k.pos == q.parent assert causal": {
        "input parent: int per token given parent <= pos": "its own parent is not ahead",
        "attend diagonal or k.pos <= q.parent": "what is before the parent is before the row"},
    "input doc: int per token given pos == 0 or doc[pos - 1] <= doc attend k.pos == q.pos - 1 assert k.doc <= q.doc": {
        "input doc: int per token given pos <= 0 or doc[pos - 1] <= doc": "same: no position is below 0",
        "input doc: int per token given pos == 0 or doc[pos - 1] < doc": "same: numbers that rise do not fall",
        "input doc: int per token given pos == (-1) or doc[pos - 1] <= doc": "same: of row 0 too, before which stands 0",
        "attend k.pos <= q.pos - 1": ROWS, "attend k.pos == q.pos - 0": "no number is above itself", "attend k.pos == q.pos - 2": ROWS},
    "input next: int per token given next[pos + 1] > next or pos == length - 1 attend k.pos == q.pos - 1 assert k.next != q.next": {
        "input next: int per token given next[pos + 0] > next or pos == length - 1": "no number is above itself: there is one row, and none before it",
        "input next: int per token given next[pos + 1] > next or pos == length - 0": "same: of the last row too, behind which stands 0",
        "attend k.pos <= q.pos - 1": ROWS, "attend k.pos == q.pos - 2": ROWS},
    "param d = 3 given d > 0 attend (q.pos - k.pos) % d == 0 assert (q.pos - k.pos) % d <= 0": {
        "param d = 3": "the rest that is asked for is 0, whatever d", "param d = 3 given d >= 0": "the rest that is asked for is 0, whatever d",
        "param d = 3 given d > (-1)": "the rest that is asked for is 0, whatever d", "param d = 3 given d > 1": VALUES,
        "attend (q.pos - k.pos) % d <= 0": "it is what is claimed", "attend (q.pos - k.pos) % d == (-1)": "fewer: no rest by a number above 0 is below it"},
    "let twice = pos * 2 let even = twice % 2 == 0 attend q.even and k.even assert q.twice % 2 == 0 and full": {
        "let twice = pos * 1": "who attends is even, of whatever number", "let twice = pos * 3": "who attends is even, of whatever number", "let even = twice % 2 <= 0": REST,
        "let even = twice % 1 == 0": "twice a number is even, whoever attends", "let even = twice % 3 == 0": "twice a number is even, whoever attends",
        "let even = twice % 2 == (-1)": "fewer: no rest by 2 is below 0", "let even = twice % 2 == 1": "fewer: no number that is twice another has the rest 1"},
    # ---------------------------------------------------------------------------------------- every query attends
    "attend causal assert every query attends": {"attend (k.pos <= q.pos + 1)": NEXT},
    "attend first(2) assert every query attends": {"attend first(1)": "row 0 is there still", "attend first(3)": "more: row 2, too"},
    "layout bos, repeat { token } attend k is bos or k.pos == q.pos + 1 assert every query attends": {
        "attend k is bos or k.pos <= q.pos + 1": "more: all before, too", "attend k is bos or k.pos == q.pos + 0": "each sees the first",
        "attend k is bos or k.pos == q.pos + 2": "each sees the first"},
    "attend causal if layer % 2 == 0 else same(pos // 4) assert every query attends": {
        "attend causal if layer % 2 <= 0 else same(pos // 4)": REST,
        "attend causal if layer % 1 == 0 else same(pos // 4)": "itself in either kind of layer", "attend causal if layer % 3 == 0 else same(pos // 4)": "itself in either kind of layer",
        "attend causal if layer % 2 == (-1) else same(pos // 4)": "itself in either kind of layer", "attend causal if layer % 2 == 1 else same(pos // 4)": "itself in either kind of layer",
        "attend causal if layer % 2 == 0 else same(pos // 3)": "itself in a chunk of any length", "attend causal if layer % 2 == 0 else same(pos // 5)": "itself in a chunk of any length",
        "attend (k.pos <= q.pos + 1) if layer % 2 == 0 else same(pos // 4)": NEXT},
    "queries where pos > 0 attend k.pos == q.pos - 1 assert every query attends": {
        "attend k.pos <= q.pos - 1": "more: all before, too", "attend k.pos == q.pos - 0": "each sees itself"},
    "input start: int per token given 0 <= start <= pos attend causal and k.pos >= q.start assert every query attends": {
        "input start: int per token given 0 < start <= pos": "empty: row 0 has no such start", "input start: int per token given 0 <= start < pos": "empty: row 0 has no such start",
        "input start: int per token given 1 <= start <= pos": "empty: row 0 has no such start",
        "input start: int per token given (-1) <= start <= pos": "itself is behind a start below 0, too", "attend (k.pos <= q.pos + 1) and k.pos >= q.start": NEXT},
    "queries layout repeat { target } keys layout bos, repeat { source } attend k is bos or k.pos < q.pos assert every query attends": {
        "attend k is bos or k.pos <= q.pos": "more: one more"},
    # ---------------------------------------------------------------------------------------- cacheable
    "layout repeat { a, b } attend k.step <= q.step assert cacheable": {"attend k.step < q.step": "fewer: no longer its own step"},
    "layout prompt * 4, repeat { token } attend causal or q is prompt and k is prompt assert cacheable": {"attend (k.pos < q.pos) or q is prompt and k is prompt": ITSELF},
    # ---------------------------------------------------------------------------------------- no flow
    "attend causal assert no flow where k.pos > q.pos": {"attend (k.pos < q.pos)": ITSELF},
    "input doc: int per token attend causal and same(doc) assert no flow where q.doc != k.doc": {
        "attend (k.pos < q.pos) and same(doc)": ITSELF, "attend (k.pos <= q.pos + 1) and same(doc)": "every hop keeps the document, whichever way it leads"},
    "attend (q.pos - k.pos) % 2 == 0 assert no flow where (q.pos - k.pos) % 2 == 1": {
        "attend (q.pos - k.pos) % 2 <= 0": REST, "attend (q.pos - k.pos) % 2 == (-1)": "fewer: no rest by 2 is below 0"},
    "layout repeat { token, register } attend causal and (k is token or diagonal) assert no flow where k is register and k.pos != q.pos": {
        "attend (k.pos < q.pos) and (k is token or diagonal)": ITSELF, "attend (k.pos <= q.pos + 1) and (k is token or diagonal)": "no one else reads a register, from wherever"},
    "attend k.pos == q.pos - 1 if layer == 0 else diagonal assert no flow where q.pos - k.pos > 1": {
        "attend k.pos == q.pos - 1 if layer <= 0 else diagonal": "same: no layer is below 0", "attend k.pos == q.pos - 0 if layer == 0 else diagonal": "no row reads another",
        "attend k.pos == q.pos - 1 if layer == (-1) else diagonal": "no row reads another", "attend k.pos == q.pos - 1 if layer == 1 else diagonal": "layer 1 is one layer, too"},
    "layout given { a, b } attend k.step <= q.step assert no flow where k.step > q.step": {"attend k.step < q.step": "fewer: no longer its own step"},
    "layout noisy * 6, clean * 6 let block = slot // 2 attend q is noisy and k is noisy and same(block) or k is clean and (k.block < q.block or q is clean and same(block)) "
    "assert no flow where q is noisy and k is clean and k.block >= q.block": {
        "let block = slot // 1": "it holds of blocks of any length", "let block = slot // 3": "it holds of blocks of any length"},
    # ---------------------------------------------------------------------------------------- no grad
    "layout repeat { token, note } attend causal stop k, v where k.step < q.step assert no grad where k.step < q.step": {
        "attend (k.pos < q.pos)": ITSELF, "attend (k.pos <= q.pos + 1)": "a path to an earlier step has a hop to one, and there it is stopped",
        "stop k, v where k.step <= q.step": "fewer: its own step is stopped, too"},
    "layout memory * 4, repeat { token } attend causal stop hidden where k is memory and q is token assert no grad where k is memory and q is token": {
        "attend (k.pos < q.pos)": ITSELF, "attend (k.pos <= q.pos + 1)": "a path from a token to memory has such a hop, and there it is stopped"},
    "param w = 0.0 given w == 0.0 attend causal scale k, v by w where k.pos < q.pos assert no grad where k.pos < q.pos": {
        "attend (k.pos < q.pos)": ITSELF, "attend (k.pos <= q.pos + 1)": "a path to an earlier row has a hop to one, and there it is stopped",
        "scale k, v by w where k.pos <= q.pos": "fewer: itself is stopped, too"},
    "param w = 0.0 given w == 0.0 input u: float per token attend causal scale k, v by k.u scale k, v by w where k.pos < q.pos assert no grad where k.pos < q.pos": {
        "attend (k.pos < q.pos)": ITSELF, "attend (k.pos <= q.pos + 1)": "a path to an earlier row has a hop to one, and there it is stopped",
        "without scale k, v by k.u": "what is earlier is multiplied by 0 all the same", "scale k, v by w where k.pos <= q.pos": "fewer: itself is stopped, too"},
    "attend causal if head == 0 else diagonal stop k, v where head == 0 assert no grad where k.pos != q.pos": {
        "attend causal if head <= 0 else diagonal": "same: no head is below 0", "attend causal if head == (-1) else diagonal": "same: head 0 passes nothing, whatever it sees",
        "attend (k.pos < q.pos) if head == 0 else diagonal": "same: head 0 passes nothing, whatever it sees",
        "attend (k.pos <= q.pos + 1) if head == 0 else diagonal": "same: head 0 passes nothing, whatever it sees", "stop k, v where head <= 0": "same: no head is below 0"},
    # ---------------------------------------------------------------------------------------- flow and grad
    "attend k.pos == q.pos - 1 assert flow where k.pos < q.pos": {"attend k.pos <= q.pos - 1": "more: directly, too"},
    "layout prompt * 4, gist * 2, repeat { token } attend causal and not (q is token and k is prompt) assert flow where q is token and k is prompt": {
        "attend (k.pos < q.pos) and not (q is token and k is prompt)": "no row on the way has to see itself", "attend (k.pos <= q.pos + 1) and not (q is token and k is prompt)": NEXT},
    "attend causal and (window(4) or layer == 0) assert flow where k.pos <= q.pos": {
        "attend causal and (window(4) or layer <= 0)": "same: no layer is below 0", "attend causal and (window(3) or layer == 0)": "layer 0 sees all, and is there in every stack",
        "attend causal and (window(5) or layer == 0)": "more: a longer window", "attend (k.pos < q.pos) and (window(4) or layer == 0)": "a row reaches itself without a hop",
        "attend (k.pos <= q.pos + 1) and (window(4) or layer == 0)": NEXT},
    "attend causal stop v assert grad where k.pos < q.pos": {"attend (k.pos <= q.pos + 1)": NEXT, "without stop v": "more: through v, too"},
    # ---------------------------------------------------------------------------------------- no leak
    "attend causal predict token -> index where pos < length - 1 predict token -> index + 1 assert no leak": {
        "attend (k.pos < q.pos)": ITSELF, "predict token -> index where pos < length - 2": "same: where both have a target the last sets it"},
    "layout repeat { return, state, action } data action attend causal predict state -> index + 1 assert no leak": {
        "attend (k.pos < q.pos)": ITSELF, "predict state -> index + 2": AHEAD},
    "param ahead = 4 given 1 <= ahead layout repeat { token, register } attend causal predict register -> index + ahead": {
        "param ahead = 4 given 1 < ahead": VALUES, "param ahead = 4 given 2 <= ahead": VALUES, "attend (k.pos < q.pos)": ITSELF},
    # ---------------------------------------------------------------------------------------- examples
    "coconut": {"attend (k.pos < q.pos)": ITSELF, "predict finish -> index + 2": AHEAD, "predict answer -> index + 2": AHEAD},
    "decision_transformer": {"attend (k.pos < q.pos)": ITSELF, "predict state -> index + 2": AHEAD},
    "quiet_star": {"attend (k.pos < q.pos) and (k is token or same(step))": ITSELF, "predict token -> index + 2": AHEAD, "predict finish -> index + 2": AHEAD},
    "pause_tokens": {
        "attend (k.pos < q.pos)": ITSELF, "predict answer -> index + 2": AHEAD, "predict pause -> index + 2 where slot == pauses - 1": AHEAD,
        "predict pause -> index + 1 where slot <= pauses - 1": "every pause stands before the answer", "predict pause -> index + 1 where slot == pauses - 0": "fewer: no pause predicts",
        "predict pause -> index + 1 where slot == pauses - 2": "every pause stands before the answer"},
    "packed_documents: assert every query attends": {
        "attend (k.pos <= q.pos + 1) and same(start)": NEXT, **dict.fromkeys((
            "predict token -> index + 1 where start[pos + 1] <= start", "predict token -> index + 0 where start[pos + 1] == start",
            "predict token -> index + 2 where start[pos + 1] == start", "predict token -> index + 1 where start[pos + 0] == start",
            "predict token -> index + 1 where start[pos + 2] == start"), PREDICT)},
    "packed_documents: assert no leak": {
        "attend (k.pos < q.pos) and same(start)": ITSELF, "predict token -> index + 2 where start[pos + 1] == start": AHEAD, **dict.fromkeys((
            "predict token -> index + 1 where start[pos + 1] <= start", "predict token -> index + 1 where start[pos + 0] == start",
            "predict token -> index + 1 where start[pos + 2] == start"), "nobody reads the next word, of whichever document")},
    "readouts": {"attend k is task or q is not task and k.step < q.step and (k is seen or q is readout)": "fewer: not what is seen at its own step"},
    "registers_look_ahead: assert no flow where k is register and k.pos != q.pos": {
        "param ahead = 4": "who reads whom is no matter of ahead", "param ahead = 4 given 0 <= ahead": "who reads whom is no matter of ahead",
        "param ahead = 4 given 1 < ahead": VALUES, "param ahead = 4 given 2 <= ahead": VALUES, "attend (k.pos < q.pos) and (k is token or diagonal)": ITSELF,
        "attend (k.pos <= q.pos + 1) and (k is token or diagonal)": "no one else reads a register, from wherever",
        "predict token -> index + 0": PREDICT, "predict token -> index + 2": PREDICT},
    "registers_look_ahead: assert no leak": {
        "param ahead = 4 given 1 < ahead": VALUES, "param ahead = 4 given 2 <= ahead": VALUES, "attend (k.pos < q.pos) and (k is token or diagonal)": ITSELF,
        "predict token -> index + 2": AHEAD},
    "self_reasoning: assert no flow where k.step > q.step": {
        "attend (k.pos < q.pos)": ITSELF, **dict.fromkeys((
            "let too_soon = k is reason and 0 <= q.step - k.step <= horizon", "let too_soon = k is reason and 0 < q.step - k.step < horizon",
            "let too_soon = k is reason and (-1) < q.step - k.step <= horizon", "let too_soon = k is reason and 1 < q.step - k.step <= horizon",
            "without stop k, v where too_soon", "stop k where too_soon", "stop v where too_soon"), STOP), **dict.fromkeys((
            "predict token -> index + 0", "predict token -> index + 2", "predict reason -> index + 0", "predict reason -> index + 2"), PREDICT)},
    "self_reasoning: assert no grad where too_soon": {
        "let too_soon = k is reason and 0 < q.step - k.step < horizon": "it is claimed of what is stopped, one step less far", "attend (k.pos < q.pos)": ITSELF, **dict.fromkeys((
            "predict token -> index + 0", "predict token -> index + 2", "predict reason -> index + 0", "predict reason -> index + 2"), PREDICT)},
    "self_reasoning: assert no leak": {
        "attend (k.pos < q.pos)": ITSELF, "predict token -> index + 2": AHEAD, "predict reason -> index + 2": AHEAD, **dict.fromkeys((
            "let too_soon = k is reason and 0 <= q.step - k.step <= horizon", "let too_soon = k is reason and 0 < q.step - k.step < horizon",
            "let too_soon = k is reason and (-1) < q.step - k.step <= horizon", "let too_soon = k is reason and 1 < q.step - k.step <= horizon",
            "without stop k, v where too_soon", "stop k where too_soon", "stop v where too_soon"), STOP)},
    "block_diffusion: assert no flow where q is noisy and k is clean and k.block >= q.block": {
        "attend q is noisy and k is noisy and same(block) or q is noisy and k is clean and k.block < q.block or q is clean and k is clean and k.block < q.block":
            "fewer: no longer clean words of its own block"},
    "block_diffusion: assert no leak": {
        "attend q is noisy and k is noisy and same(block) or q is noisy and k is clean and k.block < q.block or q is clean and k is clean and k.block < q.block":
            "fewer: no longer clean words of its own block"},
    "shared_prompt": {
        "attend (k.pos < q.pos) and (k is prompt or k is response and same(step))": ITSELF,
        "predict response -> index + 2 weight advantage where slot < tokens - 1": AHEAD,
        "predict response -> index + 1 weight advantage where slot <= tokens - 1": "the last word of a response does not read the first of the next",
        "predict response -> index + 1 weight advantage where slot < tokens - 0": "the last word of a response does not read the first of the next",
        "predict response -> index + 1 weight advantage where slot < tokens - 2": "fewer: the last but one predicts nothing"},
    "knowledge_insulation": {"attend k is context or q is fast and k is fast and k.slot < q.slot or q is action and k is action": ITSELF},
}
# fmt: on
