"""mask.lark -> an LALR(1) automaton, kept in `tables.json`: reading a text needs no parser generator, nor the 0.7 s it takes.

lark makes the tables where the grammar changes; a test holds the two together. To renew them:

    python -m srt_masks.grammar.tables > tables.json && mv tables.json srt_masks/grammar/

Input: the grammar; or a statement's tokens. Output: `Tables`; or the statement's tree, made by the caller's `build`. Non-goals:
where a statement ends, what a node is (`parser.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

NAME, NUMBER, END = "<name>", "<number>", "<end>"  # no text spells these; every other terminal is called as it is written
START = "start"
SYMBOLS_A_LEVEL = 10  # at most so many symbols of one node wait for what is nested in it

# What the grammar's terminals are cut from: the longest sign wins, a word ends where its letters end.
PIECES = re.compile(
    r"\s+|#[^\n]*|(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<number>[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(?P<sign>->|//|\*\*|[<>=!]=|.)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Rule:
    """`result: ...`, of `size` symbols. Those at `keep` are the children of a new `node`; those at `spread` are lists, and add
    their items. Without a node, the only child stands for itself; what is called `_...` is a list that another rule spreads."""

    result: str
    size: int
    node: str
    keep: tuple[int, ...]
    spread: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tables:
    """An automaton that begins in state 0. For each state and terminal an action: above 0, go to that state with the token; below, reduce by
    `rules[action]`."""

    rules: tuple[Rule, ...]
    hands_on: tuple[str, ...]  # for each rule its result, if it only hands on a single symbol: most reductions do; else ""
    actions: tuple[dict[str, int], ...]
    goto: tuple[dict[str, int], ...]
    soft: frozenset[str]  # words of the language that are names where the state does not ask for the word


class Token(NamedTuple):
    key: str
    start: int
    end: int
    text: str


class Unexpected(Exception):
    """No statement goes on with this token. `expected` holds every terminal with which one does."""

    def __init__(self, token: Token, expected: frozenset[str]):
        self.token = token
        self.expected = expected


class TooDeep(Exception):
    """What spans these characters is nested deeper than allowed."""

    def __init__(self, start: int, end: int):
        self.start = start
        self.end = end


@cache
def load() -> Tables:
    raw = json.loads(_read("tables.json"))
    rules = tuple(Rule(result, size, node, tuple(keep), tuple(spread)) for result, size, node, keep, spread in raw["rules"])
    ahead = [keys.split() for keys in raw["ahead"]]
    actions = tuple(shifts | {key: action for action, keys in reduces for key in ahead[keys]} for shifts, reduces, _ in raw["states"])
    return _tables(rules, actions, tuple(goto for _, _, goto in raw["states"]), frozenset(raw["soft"]))


def _tables(rules: tuple[Rule, ...], actions: tuple[dict[str, int], ...], goto: tuple[dict[str, int], ...], soft: frozenset[str]) -> Tables:
    hands_on = tuple(r.result if r.size == 1 and not r.node and not r.result.startswith("_") else "" for r in rules)
    return Tables(rules, hands_on, actions, goto, soft)


# --------------------------------------------------------------------------------------------------- tokens -> a tree


def run(tables: Tables, tokens: Sequence[Token], leaf: Callable[[Token], Any], build: Callable[[str, int, int, list[Any]], Any], levels: int) -> Any:
    """The tree of one statement; the last token is END. In linear time and without recursion; the stack is no deeper than `levels` ask.

    `leaf` makes a child of a token; `build` makes a node of its name, the characters it spans and its children. A node's
    characters include the brackets round its first and last child. Raises Unexpected; TooDeep past so many `levels` of nodes.
    """
    highest = SYMBOLS_A_LEVEL * levels
    hands_on, actions, goto, soft = tables.hands_on, tables.actions, tables.goto, tables.soft
    states = [0]
    made: list[tuple[Any, int, int, int]] = []  # for each state but the first: value, start, end, levels
    for token in tokens:
        key, start, end, _ = token
        while True:
            row = actions[states[-1]]
            action = row.get(key) or (row.get(NAME, 0) if key in soft else 0)
            if action > 0:
                states.append(action)
                made.append((token, start, end, 0))
                if len(made) > highest:
                    raise TooDeep(start, end)
                break
            if action == 0:
                raise Unexpected(token, expected_after(tables, states))
            if handed := hands_on[action]:
                states[-1] = goto[states[-2]][handed]
                continue
            rule = tables.rules[action]
            if rule.result == START:
                return made[0][0]
            size, node, spread = rule.size, rule.node, rule.spread
            parts = made[-size:]
            del made[-size:], states[-size:]
            children: list[Any] = []
            depth = 0
            for i in rule.keep:
                value, _, _, below = parts[i]
                depth = max(depth, below)
                if i not in spread:
                    children.append(leaf(value) if type(value) is Token else value)
                elif children:
                    children += value
                else:
                    children = value  # its only holder was the list's rule: a long list grows in place
            first, last = parts[0][1], parts[-1][2]
            if node:
                depth += 1
                if depth > levels:
                    raise TooDeep(first, last)
                value = build(node, first, last, children)
            else:
                value = children if rule.result[0] == "_" else children[0]
            states.append(goto[states[-1]][rule.result])
            made.append((value, first, last, depth))
    raise AssertionError("the last token is END")


def expected_after(tables: Tables, states: list[int]) -> frozenset[str]:
    """Every terminal that the automaton takes from here."""
    found = frozenset(key for key in tables.actions[states[-1]] if _takes(tables, states[:], key))
    return found - tables.soft if NAME in found else found


def _takes(tables: Tables, states: list[int], key: str) -> bool:
    while True:
        action = tables.actions[states[-1]].get(key, 0)
        if action >= 0:
            return action > 0
        rule = tables.rules[action]
        if rule.result == START:
            return True
        del states[-rule.size :]
        states.append(tables.goto[states[-1]][rule.result])


# ------------------------------------------------------------------------------------------------- grammar -> tables


def grammar() -> str:
    """`mask.lark`, every word in quotes made a terminal that ends where the word ends: `attendcausal` is no `attend causal`."""
    text = re.sub(r'"([a-z]+)"', lambda m: f"_{m[1].upper()}", _read("mask.lark"))
    return text + "".join(f"\n_{w.upper()}: /{w}(?![A-Za-z0-9_])/" for w in _words())


def _words() -> list[str]:
    return sorted(set(re.findall(r'"([a-z]+)"', _read("mask.lark"))))


def _read(name: str) -> str:
    return resources.files("srt_masks.grammar").joinpath(name).read_text(encoding="utf-8")


def make() -> Tables:
    """The tables of `mask.lark`, by lark. States are numbered in the order in which sorted symbols lead to them: every run gives the same."""
    from lark import Lark
    from lark.grammar import Rule as LarkRule
    from lark.lexer import TerminalDef

    parser = Lark(grammar(), parser="lalr", lexer="contextual", maybe_placeholders=False)
    data, memo = parser.memo_serialize([LarkRule, TerminalDef])
    automaton = data["parser"]["parser"]
    named = {key: _rule(r) for key, r in memo.items() if r["__type__"] == "Rule"}
    order = {key: i - len(named) for i, key in enumerate(sorted(named, key=lambda k: (named[k].result, str(memo[k]["expansion"]))))}
    spellings = {t.name: _spellings(t.name, t.pattern.to_regexp()) for t in parser.terminals} | {"$END": [END]}

    actions: list[dict[str, int]] = []
    goto: list[dict[str, int]] = []
    (first,) = automaton["start_states"].values()
    numbers = {first: 0}
    for state in (waiting := [first]):  # grows as states are met
        shifts: dict[str, int] = {}
        reduces: dict[str, int] = {}
        leads: dict[str, int] = {}
        for symbol, (is_reduce, to) in automaton["states"][state].items():
            name = automaton["tokens"][symbol]
            for key in spellings.get(name, [name]):
                into = reduces if is_reduce else shifts if name in spellings else leads
                assert key not in into, f"{key} is two terminals in one state"
                into[key] = order[to["@"]] if is_reduce else to
        leads.pop(START, None)
        for target in [to for kind in (shifts, leads) for _, to in sorted(kind.items())]:
            if target not in numbers:
                numbers[target] = len(numbers)
                waiting.append(target)
        assert not shifts.keys() & reduces.keys()
        actions.append(dict(sorted((reduces | {k: numbers[to] for k, to in shifts.items()}).items())))
        goto.append({k: numbers[to] for k, to in sorted(leads.items())})
    soft = frozenset(w for w in _words() if re.fullmatch(parser.get_terminal("NAME").pattern.to_regexp(), w))
    assert not any(NAME in row and soft & row.keys() for row in actions), "a state takes a word both for itself and for a name"
    return _tables(tuple(named[k] for k in order), tuple(actions), tuple(goto), soft)


def _rule(raw: dict[str, Any]) -> Rule:
    """As lark shapes a tree: unnamed signs and `_words` are left out, the lists it makes of `*` and `+` are spread, and a rule marked
    `?` of one child is that child."""
    symbols = raw["expansion"]
    keep = tuple(i for i, s in enumerate(symbols) if not s.get("filter_out"))
    spread = tuple(i for i in keep if symbols[i]["__type__"] == "NonTerminal" and symbols[i]["name"].startswith("_"))
    result = raw["origin"]["name"]
    stands_for_itself = raw["options"]["expand1"] and not raw["alias"] and len(keep) == 1 and not spread
    node = "" if stands_for_itself or result.startswith("_") else raw["alias"] or result
    return Rule(result, len(symbols), node, keep, spread)


def _spellings(terminal: str, pattern: str) -> list[str]:
    if terminal in ("NAME", "NUMBER"):
        return [{"NAME": NAME, "NUMBER": NUMBER}[terminal]]
    signs = ["->", "//", "**", "<=", ">=", "==", "!=", *"+-*/%<>=()[]{},:."]
    return [text for text in (*_words(), *signs) if re.fullmatch(pattern, text)]


def dump(tables: Tables) -> str:
    """One rule and one state a line, so that one can read what a change of the grammar changes. States reduce by a rule before a few
    different sets of terminals (`ahead`)."""
    ahead: dict[str, int] = {}
    states: list[tuple[dict[str, int], list[list[int]], dict[str, int]]] = []
    for row, goto in zip(tables.actions, tables.goto, strict=True):
        reduces = {a: " ".join(k for k in row if row[k] == a) for a in sorted({a for a in row.values() if a < 0})}
        states.append(({k: a for k, a in row.items() if a > 0}, [[a, ahead.setdefault(keys, len(ahead))] for a, keys in reduces.items()], goto))
    parts = {
        "soft": [json.dumps(word) for word in sorted(tables.soft)],
        "rules": [json.dumps([r.result, r.size, r.node, r.keep, r.spread]) for r in tables.rules],
        "ahead": [json.dumps(keys) for keys in ahead],
        "states": [json.dumps(state) for state in states],
    }
    return "{" + ",\n".join(f'"{name}": [\n' + ",\n".join(lines) + "\n]" for name, lines in parts.items()) + "}\n"


if __name__ == "__main__":
    print(dump(make()), end="")
