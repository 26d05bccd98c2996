"""docs/errors.md, run: each bad text gives exactly what the page shows, each good text none, and no slug is missing."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

import srt_masks as srt

PAGE = ROOT / "docs" / "errors.md"
ENTRY = re.compile(
    r"^## (?P<slug>[\w-]+)\n(?P<words>.*?)```mask bad[^\n]*\n(?P<bad>.*?)```\n(?P<said>```text\n.*?```\n)?```mask good\n(?P<good>.*?)```\n", re.M | re.S
)


def entries() -> list[re.Match[str]]:
    return list(ENTRY.finditer(PAGE.read_text()))


def said_of(text: str) -> str:
    with pytest.raises(srt.SpecError) as error:
        srt.parse(text.removesuffix("\n"), filename="bad.mask")
    return error.value.report + "\n"


@pytest.mark.parametrize("slug", [e["slug"] for e in entries()])
def test_the_page_says_what_happens(slug: str, update_golden):
    entry = next(e for e in entries() if e["slug"] == slug)
    said = f"```text\n{said_of(entry['bad'])}```\n"
    if update_golden:
        page = PAGE.read_text()
        whole = entry.group(0)
        fresh = whole.replace(entry["said"], said) if entry["said"] else whole.replace("```mask good", said + "```mask good")
        PAGE.write_text(page.replace(whole, fresh))
    else:
        assert entry["said"] == said
    assert f"error[{slug}]" in said
    srt.parse(entry["good"])


def test_every_slug_is_on_the_page():
    known = {e["slug"] for e in entries()}
    assert len(known) == PAGE.read_text().count("\n## ")
    used = set()
    for path in (ROOT / "srt_masks").rglob("*.py"):
        used |= set(re.findall(r"(?:mistake|Diagnostic)\(\s*\"([a-z][a-z-]+)\"", path.read_text()))
    used -= {"text-too-long"}  # the page cannot hold a text of a million characters; test_grammar has it
    assert used == known


def test_carets_stand_right_under_tabs_and_wide_characters():
    report = said_of("attend causal # 一二\n\tand nme")
    line, carets = report.splitlines()[3:5]
    assert line == "2 | \tand nme" and carets.startswith("  | \t    ^^^")
    report = said_of("attend causal and # ü\nfoo  # comment")
    assert report.splitlines()[4].strip().startswith("| ^^^")


def test_independent_mistakes_come_together_and_followers_do_not():
    with pytest.raises(srt.SpecError) as error:
        srt.parse("input doc: int per tokn\nlet a = q.doc == k.doc\nlet b = a and nothing\nattend a and b or mising\nstop w")
    assert [d.slug for d in error.value.diagnostics] == ["unknown-axis", "unknown-name", "unknown-name", "unknown-target"]


def test_every_kind_of_mistake_is_found_in_one_run():
    with pytest.raises(srt.SpecError) as error:
        srt.parse("let f(a) = nothing + q.nope + q.a + a\nqueries layout repeat { b }\nlet g(x) = f(x)", params={"n": 3})
    assert [d.slug for d in error.value.diagnostics] == ["unknown-name", "unknown-attribute", "two-axes", "no-attend"]
    with pytest.raises(srt.SpecError, match="unfinished"):
        srt.parse("param n =\nattend window(n)", params={"n": 3})


def test_mistakes_inside_the_prelude_point_at_the_call():
    report = said_of("attend same(3)")
    assert "bad.mask:1:8" in report and "prelude" not in report


def test_errors_travel_between_processes():
    import pickle

    with pytest.raises(srt.SpecError) as error:
        srt.parse("attend x")
    again = pickle.loads(pickle.dumps(error.value))
    assert again.report == error.value.report and again.diagnostics == error.value.diagnostics
