"""Sixty statements that are true and sixty that are false, of every kind of claim, over every part of the language: the last claim of each text, and
the reason. White space means nothing in the language, so most stand in a line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Statement:
    """`may_be_open`: true, and the prover does not see it; why it does not."""

    text: str
    why: str
    may_be_open: str = ""


S = Statement

# fmt: off
TRUE = [
    # attended pairs
    S("attend causal assert k.pos <= q.pos", "it is what causal says"),
    S("param span = 4 attend causal and window(span) assert q.pos - k.pos < span", "window(n) is a distance below n, whatever n"),
    S("attend dilated(4, 3) assert abs(q.pos - k.pos) <= 9", "below 12, and a multiple of 3"),
    S("attend same(pos // 8) assert abs(q.pos - k.pos) < 8", "a chunk of 8 is no longer"),
    S("attend causal and (window(4) if head % 2 == 0 else first(2)) assert head % 2 == 1 or q.pos - k.pos < 4", "even heads have the window"),
    S("attend causal and (window(4) or layer % 6 == 5) assert layer % 6 == 5 or q.pos - k.pos < 4", "the other layers have the window"),
    S("attend any(q.pos - k.pos == 2 ** i for i in range(5)) assert 1 <= q.pos - k.pos <= 16", "1, 2, 4, 8, 16"),
    S("attend all((q.pos - k.pos) % i != 0 for i in range(2, 4)) assert q.pos != k.pos", "0 is a multiple of 2"),
    S("layout sink * 2, repeat { token, note } attend causal and k in {sink, token} assert k is not note", "the set has no notes"),
    S("layout a * 3, repeat { b } attend same(section) assert q is a implies k is a", "a role a section"),
    S("layout repeat { token, note * 3 } attend q is note and k is note and same(step) and k.slot <= q.slot assert causal", "slots of a step are in order"),
    S("layout repeat { token, note } attend causal and role[k.pos + 1] is note assert k is token", "what stands before a note is a token"),
    S("queries where pos % 2 == 0 attend causal assert q.pos % 2 == 0", "odd rows do not ask"),
    S("queries layout repeat { target } keys layout repeat { source } attend causal assert k.step <= q.step", "on both axes pos is the step"),
    S("layout given { a, b } attend k.step < q.step or same(step) and k is a assert k.step == q.step implies k is a", "the second way alone has equal steps"),
    S("input valid: bool per token attend causal and k.valid assert k.valid", "attend asks for it"),
    S("input doc: int per token input linked: bool[docs, docs] attend linked[q.doc, k.doc] assert 0 <= q.doc", "a subscript out of range reads false"),
    S("input score: float per token attend k.score > 0.5 assert k.score > 0.25", "NaN is above neither"),
    S("input span: int per layer, head attend causal and window(span) assert q.pos - k.pos < span", "a number for each head, as a number"),
    S("input prefix: int per sequence attend causal or k.pos < prefix assert k.pos > q.pos implies k.pos < prefix", "what comes later is in the prefix"),
    S("layout repeat { token, note * 2 } input doc: int per step attend causal and same(doc) assert k.step == q.step or k.step < q.step", "causal is causal in steps"),
    S("input parent: int per token given parent < pos attend diagonal or k.pos == q.parent assert causal", "a parent stands before, as is given"),
    S("input doc: int per token given pos == 0 or doc[pos - 1] <= doc attend k.pos == q.pos - 1 assert k.doc <= q.doc", "documents do not fall, as is given"),
    S("input doc: int per token given pos == 0 or doc[pos - 1] <= doc attend causal assert k.doc <= q.doc", "documents do not fall from row to row, as is given",
      "it takes an induction over rows, and a claim about pairs is asked of one"),
    S("input next: int per token given next[pos + 1] > next or pos == length - 1 attend k.pos == q.pos - 1 assert k.next != q.next", "neighbours differ, as is given"),
    S("param d = 3 given d > 0 attend (q.pos - k.pos) % d == 0 assert (q.pos - k.pos) % d <= 0", "0 is the rest that is asked for"),
    S("attend full assert (q.pos - k.pos) // 3 * 3 + (q.pos - k.pos) % 3 == q.pos - k.pos", "floored, for negatives too"),
    S("param d = 0 attend full assert d != 0 or q.pos // d == 0 and q.pos % d == 0", "a division by 0 gives 0"),
    S("attend full assert -3 < (q.pos - k.pos) % (-3) <= 0", "the rest by a number below 0 is none above it"),
    S("attend full assert q.pos * 4611686018427387904 * 4 == 0", "2 ** 64 wraps to 0 in 64 bits"),
    S("attend full assert 2 ** (q.pos + 64) == 0", "2 ** 64 and beyond wrap to 0"),
    S("let twice = pos * 2 let even = twice % 2 == 0 attend q.even and k.even assert q.twice % 2 == 0 and full", "twice a number is even"),
    S("layout repeat 4 { a, b } attend q.pos - k.pos == 3 assert q is a implies k is b", "an odd distance leads to the other role"),
    # every query attends
    S("attend causal assert every query attends", "each sees itself"),
    S("attend first(2) assert every query attends", "where there is a query, there is row 0"),
    S("layout bos, repeat { token } attend k is bos or k.pos == q.pos + 1 assert every query attends", "each sees the first"),
    S("attend causal if layer % 2 == 0 else same(pos // 4) assert every query attends", "itself in either layer"),
    S("queries where pos > 0 attend k.pos == q.pos - 1 assert every query attends", "the one row without a row before it does not ask"),
    S("input start: int per token given 0 <= start <= pos attend causal and k.pos >= q.start assert every query attends", "itself is not before its start"),
    S("queries layout repeat { target } keys layout bos, repeat { source } attend k is bos or k.pos < q.pos assert every query attends", "the first key is there"),
    # cacheable
    S("layout repeat { a, b } attend k.step <= q.step assert cacheable", "a step is made at once"),
    S("layout prompt * 4, repeat { token } attend causal or q is prompt and k is prompt assert cacheable", "the prompt is made at once"),
    S("queries layout repeat { a } keys layout repeat { b } attend full assert cacheable", "keys of their own are there before any query"),
    # no flow
    S("attend causal assert no flow where k.pos > q.pos", "positions do not rise along a path"),
    S("input doc: int per token attend causal and same(doc) assert no flow where q.doc != k.doc", "every hop keeps the document"),
    S("attend (q.pos - k.pos) % 2 == 0 assert no flow where (q.pos - k.pos) % 2 == 1", "every hop keeps the parity"),
    S("layout repeat { token, register } attend causal and (k is token or diagonal) assert no flow where k is register and k.pos != q.pos", "no one else reads it"),
    S("attend k.pos == q.pos - 1 if layer == 0 else diagonal assert no flow where q.pos - k.pos > 1", "only layer 0 moves anything, once"),
    S("layout memory * 4, repeat { token } queries where role is token attend k is memory or diagonal assert no flow where q is token and k is token and q.pos != k.pos",
      "tokens read memory, which does not ask"),
    S("queries layout repeat { a } keys layout b * 4, repeat { c } attend k is c assert no flow where k is b", "no hop, and a path is one hop"),
    S("layout given { a, b } attend k.step <= q.step assert no flow where k.step > q.step", "steps do not rise along a path"),
    S("layout noisy * 6, clean * 6 let block = slot // 2 attend q is noisy and k is noisy and same(block) or k is clean and (k.block < q.block or q is clean and same(block)) "
      "assert no flow where q is noisy and k is clean and k.block >= q.block", "clean blocks before one's own read none but those before them"),
    # no grad
    S("layout repeat { token, note } attend causal stop k, v where k.step < q.step assert no grad where k.step < q.step", "no pair across steps lets one through"),
    S("layout memory * 4, repeat { token } attend causal stop hidden where k is memory and q is token assert no grad where k is memory and q is token",
      "what a token reads of memory is detached"),
    S("param w = 0.0 given w == 0.0 attend causal scale k, v by w where k.pos < q.pos assert no grad where k.pos < q.pos", "a factor of 0 stops"),
    S("param w = 0.0 given w == 0.0 input u: float per token attend causal scale k, v by k.u scale k, v by w where k.pos < q.pos assert no grad where k.pos < q.pos",
      "whatever is multiplied by 0"),
    S("attend causal if head == 0 else diagonal stop k, v where head == 0 assert no grad where k.pos != q.pos", "the other heads see themselves alone"),
    S("attend k.pos == q.pos - 1 stop v assert no grad where k.pos < q.pos", "a single key has P = 1, and dS = 0",
      "what a path keeps to is asked of pairs, not of how many keys a row has"),
    # flow and grad
    S("attend k.pos == q.pos - 1 assert flow where k.pos < q.pos", "row by row, however many hops"),
    S("layout prompt * 4, gist * 2, repeat { token } attend causal and not (q is token and k is prompt) assert flow where q is token and k is prompt", "by way of a gist"),
    S("attend causal and (window(4) or layer == 0) assert flow where k.pos <= q.pos", "layer 0 is there in every stack"),
    S("attend causal stop v assert grad where k.pos < q.pos", "through k: a row also sees itself, so its P is not 1"),
    # no leak
    S("attend causal predict token -> index where pos < length - 1 predict token -> index + 1 assert no leak", "where both have a target the last sets it"),
    S("layout repeat { return, state, action } data action attend causal predict state -> index + 1 assert no leak", "the action of a step stands behind its state"),
    S("param ahead = 4 given 1 <= ahead layout repeat { token, register } attend causal predict register -> index + ahead", "what is to come is not seen, and none said so"),
]

FALSE = [
    # attended pairs
    S("attend causal assert k.pos < q.pos", "a row sees itself"),
    S("param span = 4 attend causal and window(span) assert q.pos - k.pos < span - 1", "the first of the window is span - 1 away"),
    S("attend dilated(4, 3) assert abs(q.pos - k.pos) < 9", "9 is a multiple of 3 below 12"),
    S("attend same(pos // 8) assert abs(q.pos - k.pos) < 7", "0 and 7"),
    S("attend causal and (window(4) if head % 2 == 0 else first(2)) assert q.pos - k.pos < 4", "odd heads see the first rows from anywhere"),
    S("attend causal and (window(4) or layer % 6 == 5) assert q.pos - k.pos < 4", "layer 5 sees all"),
    S("attend any(q.pos - k.pos == 2 ** i for i in range(5)) assert q.pos - k.pos != 16", "2 ** 4"),
    S("layout sink * 2, repeat { token, note } attend causal and k in {sink, note} assert k is not note", "notes are in the set"),
    S("layout repeat { token, note * 3 } attend q is note and k is note and k.slot <= q.slot assert causal", "slot 0 of a later step"),
    S("layout repeat { token, note } attend causal and role[k.pos + 2] is not note assert k is token", "behind the last note stands no role, which is not note"),
    S("queries where pos % 2 == 0 attend causal assert k.pos % 2 == 0", "odd rows do not ask, and are read"),
    S("queries layout repeat { target } keys layout repeat { source } attend causal assert k.pos == q.pos", "row 1 reads key 0"),
    S("layout given { a, b } attend k.step <= q.step assert causal", "steps given need not rise with the position"),
    S("input score: float per token attend not (k.score < 0.5) assert k.score >= 0.5", "NaN is neither"),
    S("input doc: int per token attend same(doc) assert doc[q.pos + 1] == doc[k.pos + 1] or q.pos == k.pos", "their neighbours may be of other documents"),
    S("input prefix: int per sequence attend causal or k.pos < prefix assert causal", "the prefix is seen from before"),
    S("input parent: int per token given parent <= pos + 1 attend diagonal or k.pos == q.parent assert causal", "what is given allows one behind"),
    S("input doc: int per token attend k.pos == q.pos - 1 assert k.doc <= q.doc", "nothing is given of documents"),
    S("param d = 3 attend (q.pos - k.pos) % d == 0 assert q.pos == k.pos or abs(q.pos - k.pos) >= 3", "with another d it is nearer"),
    S("attend full assert (k.pos - q.pos) // 2 * 2 == k.pos - q.pos or k.pos - q.pos > 0 and full", "-1 // 2 is -1"),
    S("attend full assert q.pos * 4611686018427387904 >= 0", "2 * 2 ** 62 wraps to -2 ** 63"),
    S("attend full assert 2 ** q.pos >= 0", "2 ** 63 is the least number there is"),
    S("attend full assert 2 ** q.pos > 0", "2 ** 63 is the least number there is, and 2 ** 64 is 0"),
    S("input n: int per token attend full assert q.n + 1 > q.n", "the largest number wraps"),
    S("input n: int per token attend full assert abs(q.n) >= 0", "the least number has no negative"),
    S("input picks: int[3] attend any(k.pos == picks[i] for i in range(4)) assert k.pos == picks[0] or k.pos == picks[1] or k.pos == picks[2]", "picks[3] reads 0"),
    S("input rank: int per token given 0 <= rank attend k.rank <= q.rank assert k.rank < q.rank or k.pos == q.pos", "two of one rank"),
    S("input span: int per head attend causal and window(span) assert q.pos - k.pos < 3", "a span may be longer"),
    S("attend causal assert layer < 3", "there may be a fourth layer"),
    # every query attends
    S("attend k.pos < q.pos assert every query attends", "row 0 has none before it"),
    S("attend causal and k.pos >= 2 assert every query attends", "rows 0 and 1"),
    S("input valid: bool per token attend k.valid assert every query attends", "all may be padding"),
    S("attend diagonal if head % 3 != 2 else k.pos == q.pos + 1 assert every query attends", "the last row in head 2"),
    S("layout repeat { a, b } attend k is b and k.step < q.step assert every query attends", "step 0"),
    S("queries layout repeat { target } keys layout repeat { source } attend k.pos < q.pos assert every query attends", "row 0 has no key before it"),
    S("queries where pos >= 2 attend k.pos == q.pos - 3 assert every query attends", "row 2"),
    S("queries layout repeat { a } keys layout b * 2, repeat { a } attend k.pos > q.pos + 2 assert every query attends", "with two keys none is that far on"),
    S("input start: int given 0 <= start attend k.pos >= start assert every query attends", "a start beyond the end"),
    # cacheable
    S("attend causal or k.pos < 3 assert cacheable", "row 0 reads row 2"),
    S("layout prompt * 2, repeat { token } attend k is token or causal assert cacheable", "the prompt reads tokens"),
    S("layout given { a, b } attend causal and (k is a or k.step < 3) assert k.pos > 0 or k.slot == q.slot", "no role is data, and nothing counts"),
    S("layout given { a, b } attend causal assert cacheable", "a later step may stand at an earlier position"),
    S("layout a * 2, repeat { b } attend same(step) assert cacheable", "each section has its step 0, and the second is made later"),
    # no flow
    S("attend causal or k.pos == q.pos + 1 and q.pos % 2 == 0 assert no flow where k.pos > q.pos", "an even row reads the next"),
    S("attend k.pos == q.pos - 1 assert no flow where q.pos == 100 and k.pos == 0", "a hundred hops"),
    S("input doc: int per token attend causal and (same(doc) or k.pos == 0) assert no flow where q.doc != k.doc", "row 0 is seen from every document"),
    S("attend causal and not (q.pos == 5 and k.pos == 2) assert no flow where q.pos == 5 and k.pos == 2", "round about, by way of row 3"),
    S("layout prompt * 4, gist * 2, repeat { token } attend causal and not (q is token and k is prompt) assert no flow where q is token and k is prompt", "by way of a gist"),
    S("attend k.pos == q.pos - 1 if layer == 0 else k.pos == q.pos - 2 assert no flow where q.pos - k.pos == 3", "a hop of layer 0, then one of layer 1"),
    S("attend k.pos < q.pos assert no flow where k.pos >= q.pos", "a row reaches itself, by its residual stream"),
    S("attend diagonal if head == 0 else k.pos == q.pos - 1 assert no flow where q.pos - k.pos == 2", "twice through head 1"),
    S("attend causal assert no flow where layer == 3 and k.pos < q.pos", "a claim of layer 3 is one of a stack that has it"),
    S("attend causal assert no flow where heads == 5 and k.pos < q.pos", "there may be five heads"),
    S("queries layout repeat { a } keys layout b * 4, repeat { c } attend k.pos <= q.pos + 2 assert no flow where k is b and k.slot == 2", "row 0 reads key 2"),
    S("layout memory * 4, repeat { token } queries where role is token attend k is memory or causal assert no flow where q is token and k is token and k.pos < q.pos", "directly"),
    S("layout given { a, b } attend k is a or q.pos == k.pos assert no flow where k.step > q.step", "nothing is said of steps"),
    # no grad
    S("layout repeat { token, note } attend causal stop k where k.step < q.step assert no grad where k.step < q.step", "through v"),
    S("layout repeat { token, note, end } attend causal stop k, v where k is note and k.step < q.step assert no grad where k is note and k.step < q.step",
      "by way of the end of the note's own step"),
    S("param w = 0.0 attend causal scale k, v by w where k.pos < q.pos assert no grad where k.pos < q.pos", "w may be another"),
    S("attend causal stop k, v where head == 0 assert no grad where k.pos < q.pos", "head 1 stops nothing"),
    S("attend causal stop q assert no grad where k.pos < q.pos", "the gate of q cuts no path to the key"),
    S("attend causal stop k, v where k.pos == q.pos - 2 assert no grad where k.pos == q.pos - 2", "by way of the row between"),
    # flow and grad
    S("attend k.pos == q.pos - 2 assert flow where k.pos < q.pos", "an odd distance is none of many twos"),
    S("attend k.pos == q.pos - 1 stop v assert grad where k.pos < q.pos", "a single key has P = 1, and dS = 0"),
    S("attend k.pos == q.pos - 1 stop v assert grad where k.pos == q.pos - 1", "of a single key not even the pair itself"),
    S("attend causal and layer == 1 assert flow where k.pos < q.pos", "a stack of one layer has no layer 1"),
    S("attend causal stop k, v where k.pos < q.pos assert grad where k.pos < q.pos", "all is stopped"),
    # no leak
    S("attend window(2) predict token -> index + 1 assert no leak", "a row sees the next"),
    S("attend causal predict token -> index predict token -> index + 1 assert no leak", "the last row has no next, and so its own word for a target"),
    S("layout repeat { token, register } param ahead = 4 attend causal predict register -> index + ahead", "with ahead = 0 it sees what it is to predict"),
]
# fmt: on
