"""Pictures and the page of the zoo: marks and distinct masks by hand, the drawings, the files, and that docs/ is what its script makes."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import ROOT

import srt_masks as srt
from srt_masks import schemes
from srt_masks.diagnostics import Source
from srt_masks.grammar.formatter import format_text
from srt_masks.view.html import document, page
from srt_masks.view.picture import MOST_PICTURES, Mark, Picture, picture, pictures
from srt_masks.view.save import save
from srt_masks.view.svg import COLOURS, svg
from srt_masks.view.terminal import render

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "a\"b'c</svg><script>&lt;\x1b[0m\x00\ud800$\\frac{"


def cells(p: Picture) -> list[str]:
    return ["".join(m.character for m in row) for row in p.cells]


def drawn(made: str) -> list[str]:
    """The cells of the one picture of an SVG, read back from the colours and widths of its rectangles."""
    marks = {colour: mark for mark, colour in COLOURS.items()}
    group = ET.fromstring(made).find(f"{SVG}g")
    assert group is not None
    rows: dict[float, str] = {}
    for r in group.iter(f"{SVG}rect"):
        count = round(float(r.attrib["width"]) / float(r.attrib["height"]))
        rows[float(r.attrib["y"])] = rows.get(float(r.attrib["y"]), "") + marks[r.attrib["fill"]].character * count
    return [rows[y] for y in sorted(rows)]


# ------------------------------------------------------------------------------------------------ marks


@pytest.mark.parametrize(("rules", "mark"), [
    ("", "#"), ("stop q", "+"), ("stop k", "+"), ("stop v", "+"), ("stop hidden", "+"), ("stop k, v", "o"), ("stop q, k, v, hidden", "o"),
    ("stop k\nscale v by 0.5", "+"), ("scale k, v by 2", "+"), ("scale k, v by 1", "#"), ("scale k, v by 0", "o"), ("stop q, k", "+"),
])  # fmt: skip
def test_a_mark_is_what_the_gates_say(rules: str, mark: str):
    assert cells(picture(srt.parse(f"attend causal\n{rules}"), steps=2)) == [f"{mark}.", mark * 2]


def test_the_part_mark_is_explained_only_where_it_is():
    plain, part = (picture(srt.parse(f"attend causal\n{r}"), steps=2) for r in ("", "stop k"))
    assert "+ sees, trains in part" not in render(plain, False) and "+ sees, trains in part" in render(part, False)
    assert "in part" not in svg([plain]) and svg([part]).count("sees, trains in part") > 1
    assert "in part:" not in plain.note and "in part:" in part.note


def test_tokens_that_do_not_ask_are_columns_and_no_rows():
    p = picture(srt.parse("layout memory * 2, repeat { token }\nqueries where role is token\nattend causal"), steps=2)
    assert cells(p) == ["###.", "####"]
    assert p.rows == ("0 token", "1 token") and p.columns == ("0 memory0", "0 memory1", "0 token", "1 token")


def test_rows_that_ask_keep_their_number():
    p = picture(srt.parse("layout repeat { token, reason * 2 }\nqueries where slot == 0\nattend causal"), steps=1)
    assert p.rows == ("0 token", "0 reason0") and p.columns[2] == "0 reason1"


def test_two_axes_have_names_of_their_own():
    p = picture(srt.parse("queries layout repeat { target }\nkeys layout repeat 2 { source * 2, stop_sign }\nattend k is source"), steps=1)
    assert p.rows == ("0 target",) and p.columns == ("0 source0", "0 source1", "0 stop_sign", "1 source0", "1 source1", "1 stop_sign")
    assert cells(p) == ["##.##."] and p.column_starts == (0, 3)


def test_a_given_layout_is_drawn():
    given = {"role": ["a", "b", "a"], "step": [0, 0, 1], "slot": [0, 0, 0]}
    p = picture(srt.parse("layout given { a, b }\nattend k is a"), given=given)
    assert cells(p) == ["#.#"] * 3 and p.rows == ("0 a", "0 b", "1 a") and p.row_starts == (0, 2)


def test_steps_and_sections_begin_groups():
    p = picture(srt.parse("layout prompt * 2, gist, repeat { token, reason }\nattend causal"), steps=2)
    assert p.row_starts == p.column_starts == (0, 2, 3, 5)


@pytest.mark.parametrize(("text", "words"), [
    ("attend causal and layer == 0", "speaks of layers"), ("param n = 300\nlayout token * n\nattend causal", "300 tokens are too many"),
    ("input a: bool per token\nattend k.a", "missing input `a`"), ("param n = 0\nlayout token * n\nattend causal", "nothing to draw"),
])  # fmt: skip
def test_what_cannot_be_drawn_says_so(text: str, words: str):
    spec = srt.parse(text)
    with pytest.raises(srt.InputError, match=words):
        picture(spec)
    assert words in page(spec)


# ------------------------------------------------------------------------------------------------ distinct masks


def test_alike_heads_and_layers_share_a_picture():
    spec = srt.parse("attend causal and (head % 2 == 0 or layer == 2 or q.pos == k.pos)")
    found = pictures(spec, steps=2, heads=5, layers=4)
    assert [(p.which, cells(p)) for p in found] == [
        ("layers 0-1, 3, heads 0, 2, 4; layer 2", ["#.", "##"]),
        ("layers 0-1, 3, heads 1, 3", ["#.", ".#"]),
    ]
    assert found[0].title == found[1].title == "<spec>" and found[1].heading == "<spec>: layers 0-1, 3, heads 1, 3"


def test_one_mask_for_all_needs_no_name():
    assert [p.which for p in pictures(srt.parse("attend causal"), heads=3, layers=2)] == [""]
    assert [p.which for p in pictures(srt.parse("attend causal and head >= 0"), heads=3)] == [""]


def test_a_chosen_head_or_layer_is_drawn_alone():
    spec = srt.parse("attend causal and window(1 + head + layer)")
    assert [(p.which, cells(p)) for p in pictures(spec, steps=2, heads=2, layers=2, layer=1)] == [("layer 1", ["#.", "##"])]
    assert [p.which for p in pictures(spec, steps=2, heads=2, layers=2, head=0)] == ["layer 0, head 0", "layer 1, head 0"]
    assert picture(spec, steps=2, heads=2, layers=2).which == "layer 0, head 0"
    with pytest.raises(srt.InputError, match=r"head is from 0 to 1 here; got 2"):
        pictures(spec, steps=2, heads=2, layers=2, head=2)


def test_at_most_so_many_are_drawn_and_the_rest_are_counted():
    found = pictures(srt.parse("attend causal and window(1 + head)"), steps=12, heads=11)
    assert len(found) == MOST_PICTURES
    assert "3 more masks differ: choose one with head= and layer=" in found[-1].note and "more masks" not in found[0].note
    assert "more masks differ" in svg(found)


def test_gates_alone_tell_masks_apart():
    found = pictures(srt.parse("attend causal\nstop k, v where head == 1"), steps=1, heads=2)
    assert [(p.which, cells(p)) for p in found] == [("head 0", ["#"]), ("head 1", ["o"])]


def test_several_in_a_terminal_stand_under_one_title_and_over_one_legend():
    lines = render(pictures(srt.parse("attend causal and (layer == 1 or diagonal)"), steps=2, layers=2), False).splitlines()
    assert lines == [
        "<spec>", "", "layer 0", "         t t", "0 token  # .", "1 token  . #", "", "layer 1", "         t t", "0 token  # .", "1 token  # #", "",
        "# sees and trains   o sees only   . nothing", "rows ask, columns are seen; a pair trains if it moves the key or the value it reads",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ drawings


def test_the_drawing_has_the_cells_of_the_picture():
    p = picture(srt.parse("layout repeat { a, b * 2 }\nattend causal and k.pos != 2\nstop k, v where k is b\nstop q where k.pos == 0"), steps=3)
    assert {m for row in p.cells for m in row} == set(Mark)
    assert drawn(svg([p])) == cells(p)


def test_equal_neighbours_are_one_rectangle_that_says_what_it_is():
    made = ET.fromstring(svg([picture(srt.parse("attend causal"), steps=3)]))
    titles = [t.text for r in made.iter(f"{SVG}rect") for t in r.iter(f"{SVG}title")]
    assert titles == [
        "0 token, 0 token: sees and trains", "0 token, 1 token to 2 token: nothing", "1 token, 0 token to 1 token: sees and trains",
        "1 token, 2 token: nothing", "2 token, 0 token to 2 token: sees and trains",
    ]  # fmt: skip


def test_large_pictures_fit_and_name_what_there_is_room_for():
    made = svg([picture(srt.parse("layout repeat { token, reason * 4 }\nattend causal"), steps=40)])
    root = ET.fromstring(made)
    assert float(root.attrib["width"]) < 900 and len(drawn(made)) == 200
    names = [t.text for t in root.iter(f"{SVG}text") if re.fullmatch(r"\d+ token", t.text or "")]
    assert names == [f"{i} token" for i in range(40)] * 2


def test_pictures_stay_inside_the_drawing():
    root = ET.fromstring(svg(pictures(srt.parse("attend causal and window(1 + head)"), steps=12, heads=8)))
    groups = root.findall(f"{SVG}g")
    assert len(groups) == 8
    for g in groups:
        place = re.fullmatch(r"translate\(([\d.]+) ([\d.]+)\)", g.attrib["transform"])
        assert place is not None
        for r in g.iter(f"{SVG}rect"):
            assert float(place[1]) + float(r.attrib["x"]) + float(r.attrib["width"]) <= float(root.attrib["width"])
            assert float(place[2]) + float(r.attrib["y"]) + float(r.attrib["height"]) <= float(root.attrib["height"])


def test_hostile_text_stays_text():
    p = picture(srt.parse("attend causal", filename=HOSTILE), steps=1)
    p = replace(p, rows=(HOSTILE,), columns=(HOSTILE,), note=HOSTILE, which=HOSTILE)
    for found in ([p], [p, p], [p, replace(p, title="other")]):
        root = ET.fromstring(svg(found))
        assert {e.tag.removeprefix(SVG) for e in root.iter()} == {"svg", "title", "text", "g", "rect", "path"}
        assert "<script" not in svg(found) and "<script" not in document(found)
        svg(found).encode("utf-8")
    said = root.find(f"{SVG}g/{SVG}rect/{SVG}title")
    assert said is not None and said.text is not None and HOSTILE[:20] in said.text and "\x1b" not in said.text


def test_no_rows_and_no_reach_are_drawn_too():
    spec = srt.parse("layout a, b\nqueries where role is a and role is b\nattend causal")
    assert cells(picture(spec)) == []
    ET.fromstring(svg([picture(spec)]))


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(("name", "begins"), [("a.svg", b"<svg"), ("a.HTML", b"<!doctype html>"), ("a.png", b"\x89PNG\r\n")])
def test_a_file_is_of_the_kind_its_name_ends_in(tmp_path: Path, name: str, begins: bytes):
    found = pictures(srt.parse("attend causal\nstop k, v where head == 1", filename="$x$"), steps=3, heads=2)
    save(found, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    assert first.startswith(begins)
    save(found, str(tmp_path / name))
    assert (tmp_path / name).read_bytes() == first


def test_what_cannot_be_saved_says_so(tmp_path: Path):
    found = pictures(srt.parse("attend causal"), steps=2)
    for path in ("a.jpg", "svg", "a.svg.gz", ""):
        with pytest.raises(srt.InputError, match=r"\.svg, \.html, \.png"):
            save(found, path)
    with pytest.raises(srt.InputError, match="cannot write"):
        save(found, tmp_path / "missing" / "a.svg")
    with pytest.raises(srt.InputError, match="path is wanted"):
        save(found, "a\0.svg")
    with pytest.raises(srt.InputError, match="no picture"):
        save((), tmp_path / "a.svg")


# ------------------------------------------------------------------------------------------------ the texts of the zoo


def test_the_zoo_is_the_files_of_the_folder():
    assert sorted(e.path.name for e in schemes.entries()) == sorted(p.name for p in (ROOT / "examples").glob("*.mask"))
    assert len(schemes.names()) == len(set(schemes.names())) == 52


@pytest.mark.parametrize("entry", schemes.entries(), ids=lambda e: e.slug)
def test_a_text_of_the_zoo_is_whole(entry: schemes.Entry):
    assert entry.text == format_text(Source(entry.text))
    assert schemes.text_of(entry.name) == entry.path.read_text()
    lines = entry.words.splitlines()
    assert 3 <= len(lines) <= 9 and all(len(line) <= 105 for line in lines)
    assert entry.source and entry.attempt.startswith(f"srt-masks show zoo:{entry.slug} ")
    assert entry.body.startswith(("param", "input", "layout", "queries layout", "let", "attend")) and "# try:" not in entry.body
    spec = schemes.zoo(entry.name)
    assert spec.text == entry.text and spec.filename == f"zoo:{entry.slug}"


@pytest.mark.parametrize("name", ["gemma 3", "Gemma-3", "GEMMA_3", "gemma3", " gemma  3 "])
def test_a_name_is_known_in_any_spelling(name: str):
    assert schemes.zoo(name, params={"span": 7}).params == {"span": 7}
    assert schemes.entry_of(name).name == "gemma 3"


def test_a_name_and_a_file_name_are_one():
    assert schemes.entry_of("self reasoning, stopped") == schemes.entry_of("self_reasoning") == schemes.entry_of("self-reasoning")
    assert schemes.entry_of("self-reasoning-hidden").name == "self reasoning, hidden"


@pytest.mark.parametrize(("name", "words"), [
    ("gema 3", "did you mean `gemma 3`"), ("self_reasonin", "did you mean `self reasoning"), ("../../etc/passwd", r"the zoo has no `../../etc/passwd`\. "),
    ("/etc/passwd", "list its 52"), ("", "list its 52"), ("gemma_3.mask", "no `gemma_3.mask`: did you mean `gemma 3`"), ("x" * 10_000, "no `x{60}`"), (3, "got int"),
])  # fmt: skip
def test_an_unknown_name_opens_nothing(name: str, words: str, monkeypatch: pytest.MonkeyPatch):
    schemes.entries()
    monkeypatch.setattr(schemes, "read_text", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(srt.InputError, match=words):
        schemes.zoo(name)


def test_the_zoo_reads_without_torch():
    assert schemes.zoo("gemma 3", params={"span": 5}) == srt.zoo("Gemma-3", params={"span": 5})
    first = "import srt_masks as s; s.zoo('gemma 3'); assert 'torch' not in __import__('sys').modules"
    subprocess.run([sys.executable, "-c", first], check=True, cwd=ROOT)


def test_the_texts_lie_in_the_package_or_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schemes, "__file__", str(tmp_path / "srt_masks" / "schemes.py"))
    inside, beside = tmp_path / "srt_masks" / "examples", tmp_path / "examples"
    beside.mkdir()
    (beside / "somebody_elses.mask").write_text("")
    with pytest.raises(srt.Error, match="texts of the zoo are missing"):
        schemes._folder()
    (beside / "causal.mask").write_text("")
    assert schemes._folder() == beside
    inside.mkdir(parents=True)
    (inside / "causal.mask").write_text("")
    assert schemes._folder() == inside


def test_line_ends_of_another_system_change_nothing(tmp_path: Path):
    mine = schemes.entry_of("gemma 3")
    (tmp_path / "gemma_3.mask").write_bytes(mine.text.replace("\n", "\r\n").encode())
    theirs = schemes._entry(tmp_path / "gemma_3.mask", mine.group)
    assert replace(theirs, path=mine.path) == mine and theirs.body == mine.body and theirs.text == mine.text


# ------------------------------------------------------------------------------------------------ the page


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_zoo", ROOT / "docs" / "make_zoo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_its_script_makes(maker: ModuleType):
    text = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    assert text == maker.page(), "run: python docs/make_zoo.py"
    headings = {maker.anchor(h) for h in re.findall(r"^#+ (.*)$", text, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target[1:] in headings if target.startswith("#") else (ROOT / "docs" / target).exists(), target


def test_the_pictures_are_what_the_commands_draw(maker: ModuleType, tmp_path: Path):
    maker.draw(tmp_path)
    made = {p.name: p.read_text(encoding="utf-8") for p in tmp_path.iterdir()}
    kept = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "docs" / "pictures").iterdir()}
    assert made.keys() == kept.keys()
    assert [n for n in made if made[n] != kept[n]] == [], "run: python docs/make_zoo.py"
    assert max(len(x) for x in kept.values()) < 50_000


def test_a_command_of_the_page_draws_small(maker: ModuleType):
    for path in (ROOT / "docs" / "pictures").iterdir():
        root = ET.fromstring(path.read_text(encoding="utf-8"))
        assert float(root.attrib["width"]) <= 1000 and float(root.attrib["height"]) <= 1000, path.name


def test_a_batch_of_inputs_is_refused_by_name():
    spec = srt.parse("input a: bool per token\nattend k.a")
    assert cells(picture(spec, steps=2, inputs={"a": torch.tensor([[True, False]])})) == ["#.", "#."]
    with pytest.raises(srt.InputError, match="one row of the batch"):
        picture(spec, steps=2, inputs={"a": torch.ones(2, 2, dtype=torch.bool)})
