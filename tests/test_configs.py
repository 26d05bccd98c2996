"""Which configs the Triton kernels get: the table, the cards it serves, and the step down where a mask's own predicate spills."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import srt_masks as srt

pytest.importorskip("triton")

from srt_masks.kernels import dispatch, fit, target
from srt_masks.kernels.backend import Operands
from srt_masks.kernels.cards import CARDS, stand_in
from srt_masks.kernels.configs import Config, Kernel, Kind, Target, choose

ROOT = Path(__file__).parent.parent
CUDA = torch.device("cuda")
HALF, SINGLE = torch.bfloat16, torch.float32


GAP = (Target(90, HALF, 256, Kind.LOOKUPS, True), Kernel.DKV)  # all that were tried spill


def rows_of_the_table():
    for card, dtype, head_dim, kind, grouped in itertools.product(CARDS, (torch.float16, HALF, SINGLE), (16, 32, 64, 128, 256), Kind, (False, True)):
        wanted = Target(card, dtype, head_dim, kind, grouped)
        for kernel in Kernel:
            if (replace(wanted, dtype=HALF if dtype is torch.float16 else dtype), kernel) != GAP:
                yield wanted, kernel, choose(kernel, wanted)


# ------------------------------------------------------------------------------------------------ the table


def test_every_card_dtype_and_head_dim_has_a_row():
    for wanted, kernel, config in rows_of_the_table():
        assert config is not None, (wanted, kernel)
        assert config.within(16).rows == config.within(16).cols == 16 and config.within(512) == config
        assert wanted.capability != 90 or wanted.dtype is SINGLE or config.rows >= 16 * config.warps, (wanted, kernel, config)


def test_the_gap_is_refused_by_name():
    text = "input seen: bool per query, key\nattend causal and seen"
    with pytest.raises(srt.BackendError, match=r"no config for the DKV kernel.*sm_90.*head_dim 256 and several query heads a key head.*tiled"):
        fit.configs_of(_compiled(text), Operands(HALF, 256, 256, 2, CUDA, 90))


def test_what_a_card_has_timed_is_in_the_table():
    """benchmarks/results/tune_kernels.md: the fastest of each kernel that spills nothing."""
    wanted = Target(90, HALF, 64, Kind.PLAIN)
    assert [str(choose(kernel, wanted)) for kernel in Kernel] == ["128x64 w4 s3", "128x64 w4 s3", "64x32 w4 s2"]


def test_a_newer_card_is_served_as_the_nearest_older_one_of_its_generation():
    found = {c: stand_in(c) for c in (0, 75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121, 130)}
    assert found == {0: 0, 75: None, 80: 80, 86: 86, 87: 86, 88: 86, 89: 89, 90: 90, 100: 100, 103: 100, 110: None, 120: 120, 121: 120, 130: None}


def test_a_card_of_another_generation_is_refused_by_name():
    compiled = srt.compile(srt.parse("attend causal")).compiled
    for capability in (75, 110):
        with pytest.raises(srt.BackendError, match=rf"this card is sm_{capability}, of another generation.*tiled"):
            fit.configs_of(compiled, Operands(HALF, 64, 64, 1, CUDA, capability))
    newer, known = (fit.configs_of(compiled, Operands(HALF, 64, 64, 1, CUDA, capability)) for capability in (103, 100))
    assert newer == known


@pytest.mark.parametrize(("head_dim", "value_dim"), [(64, 64), (128, 128), (256, 64), (64, 256)])
@pytest.mark.parametrize("card", CARDS)
def test_what_an_order_is_thought_to_cost_knows_which_launches_there_are(card: int, head_dim: int, value_dim: int):
    """Where dK and dV take a launch each, a tile of both is five products and not four."""
    compiled, operands = _compiled("attend causal"), Operands(HALF, head_dim, value_dim, 1, CUDA, card)
    found = dispatch.backend_of("triton").costs(operands, 128).launches
    assert found == (("q", "k", "v") if fit.configs_of(compiled, operands).splits else ("q", "kv"))
    assert (len(found) == 3) == (card in (90, 100) and max(head_dim, value_dim) == 256)


# ------------------------------------------------------------------------------------------------ the step down


def test_every_step_is_smaller_and_there_is_a_last_one():
    for wanted, _, first in rows_of_the_table():
        for spills in (False, True):
            config, steps = first, 0
            assert config is not None
            while (after := config.smaller(wanted, spills)) is not None:
                assert (after.rows * after.cols, -after.warps, after.stages) < (config.rows * config.cols, -config.warps, config.stages)
                assert (first.rows % after.rows, first.cols % after.cols) == (0, 0)  # so the plan's tile holds whole ones
                assert wanted.capability != 90 or wanted.dtype is SINGLE or after.rows >= 16 * after.warps
                config, steps = after, steps + 1
            assert steps <= 9 and config.cols == 16


@pytest.fixture
def card(monkeypatch, tmp_path):
    """An sm_90 that compiles nothing: `spilling` says which configs spill. Gives back the configs that were looked at."""
    monkeypatch.setenv("SRT_MASKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(target, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    looked: list[tuple[Kernel, Config]] = []

    def install(spilling) -> list[tuple[Kernel, Config]]:
        def problem(kernel, configs, *_):
            looked.append((kernel, configs.of(kernel)))
            return fit.Problem("it spills 8 bytes") if spilling(kernel, configs.of(kernel)) else None

        monkeypatch.setattr(fit, "problem", problem)
        return looked

    def forget():
        for remembered in (target._target, fit._fitted, dispatch.why_tiled, dispatch._warn):
            remembered.cache_clear()

    forget()
    yield install
    forget()


def _compiled(text: str):
    return srt.compile(srt.parse(text)).compiled


def test_a_kernel_that_spills_gets_the_next_smaller_config_and_the_tile_follows(card):
    looked = card(lambda kernel, config: config.sizes != (128, 32) and kernel is not Kernel.DKV)
    compiled, operands = _compiled("attend causal"), Operands(HALF, 64, 64, 1, CUDA)
    found = fit.configs_of(compiled, operands)
    assert [str(found.of(kernel)) for kernel in Kernel] == ["128x32 w8 s2", "128x32 w8 s2", "64x32 w4 s2"]
    assert found.tile == 128 == dispatch.backend_of("triton").tile(compiled, operands)
    assert [str(c) for k, c in looked if k is Kernel.FORWARD] == ["128x64 w4 s3", "128x64 w8 s3", "128x32 w8 s2"]


def test_what_was_found_is_remembered_by_content(card):
    looked = card(lambda kernel, config: config.cols > 32)
    first, operands = fit.configs_of(_compiled("attend causal"), Operands(HALF, 64, 64, 1, CUDA)), Operands(HALF, 64, 64, 1, CUDA)
    count = len(looked)
    assert fit.configs_of(_compiled("attend k.pos <= q.pos"), operands) == first and len(looked) == count  # another spec, the same predicate
    fit.configs_of(_compiled("attend causal and window(9)"), operands)
    assert len(looked) > count
    count = len(looked)
    fit.configs_of(_compiled("attend causal"), Operands(HALF, 64, 48, 1, CUDA))
    assert len(looked) > count


KEPT = '"DQ": [64, 64, 4, 2], "DKV": [64, 32, 4, 2]}'  # which may be


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b'{"FORWARD": [64',
        b"{}",
        b"[]",
        b"\xff",
        *(
            f'{{"FORWARD": {x}, {KEPT}'.encode()
            for x in ("[64, 64]", "[512, 512, 4, 2]", "[48, 64, 4, 2]", "[64, 0, 4, 2]", "[64, 64, 3, 2]", "[64, 64, 4, 99]", "7")
        ),
    ],
)
def test_a_file_that_nobody_can_have_kept_is_found_anew(card, tmp_path, file):
    card(lambda *_: False)
    operands, compiled = Operands(HALF, 64, 64, 1, CUDA), _compiled("attend causal")
    wanted = fit.configs_of(compiled, operands)
    (kept,) = (tmp_path / "cache").glob("*.json")
    good = kept.read_bytes()
    kept.write_bytes(file)
    fit._fitted.cache_clear()
    assert fit.configs_of(compiled, operands) == wanted and kept.read_bytes() == good
    kept.write_bytes(f'{{"FORWARD": [64, 64, 4, 2], {KEPT}'.encode())  # and what may have been kept is believed
    fit._fitted.cache_clear()
    assert fit.configs_of(compiled, operands) != wanted


def test_a_plan_of_another_predicate_finds_configs_within_its_tile(card):
    """Numbers of 64 bits, or an order of tokens: the tile is settled by then."""
    card(lambda kernel, config: config.cols > 32)
    compiled, operands = _compiled("attend causal"), Operands(HALF, 128, 128, 1, CUDA)
    tile = fit.configs_of(compiled, operands).tile
    for source in (target.source_of(compiled, True), target.source_of(compiled, False, frozenset())):
        found = fit.configs_of(compiled, operands, source, tile)
        assert all(tile % size == 0 for kernel in Kernel for size in found.of(kernel).sizes)
    assert fit.configs_of(compiled, operands, target.source_of(compiled, True), 16).tile == 16


def test_where_no_config_is_without_spills_triton_refuses_and_auto_says_it_is_tiled(card):
    card(lambda kernel, config: kernel is Kernel.DQ)
    compiled, operands = _compiled("attend causal"), Operands(HALF, 64, 64, 1, CUDA)
    for _ in range(2):  # found, and remembered
        with pytest.raises(srt.BackendError, match=r"no config for the DQ kernel of this mask on sm_90.*spills 8 bytes.*tiled"):
            fit.configs_of(compiled, operands)
    with pytest.warns(UserWarning, match=r"`tiled`.*DQ kernel"):
        assert dispatch.pick("auto", (compiled,), operands).name == "tiled"
    assert dispatch.pick("auto", (compiled,), operands).name == "tiled"  # and says no more of it: a warning is an error here


@pytest.mark.parametrize("whose", [0, 1], ids=["k and v", "twins"])
def test_auto_asks_for_k_and_v_and_for_their_twins(whose: int, card, monkeypatch):
    """A text with `stop hidden` has two predicates, and either may be what no config is without spills for."""
    card(lambda kernel, config: False)
    attend = srt.compile(srt.parse("layout memory * 2, repeat { token }\nattend causal\nstop hidden where k is memory"))
    operands = Operands(HALF, 64, 64, 1, CUDA)
    assert len(attend.predicates) == 2 and dispatch.pick("auto", attend.predicates, operands).name == "triton"
    dispatch.why_tiled.cache_clear()
    monkeypatch.setattr(fit, "problem", lambda kernel, configs, compiled, *_: fit.Problem("too much") if compiled is attend.predicates[whose] else None)
    fit._fitted.cache_clear()
    monkeypatch.setenv("SRT_MASKS_CACHE", f"{os.environ['SRT_MASKS_CACHE']} of {whose}")  # and nothing of it is known
    assert isinstance(dispatch.refusal("triton", attend.predicates, operands), srt.BackendError)
    monkeypatch.setattr(Operands, "of", lambda *_: operands)
    x = torch.randn(1, 1, 20, 64)
    with pytest.warns(UserWarning, match=r"`tiled`.*FORWARD kernel.*too much"):
        assert attend.planned_call(x, x, x, x, x).backend.name == "tiled"


def test_auto_leaves_triton_where_only_the_plan_shows_that_nothing_fits(card, monkeypatch):
    card(lambda kernel, config: False)
    compiled, operands = _compiled("attend causal"), Operands(HALF, 64, 64, 1, CUDA)
    backend = dispatch.pick("auto", (compiled,), operands)
    plan = srt.compile(srt.parse("attend causal"), tile=128).plan(300)
    monkeypatch.setattr(backend, "pack", lambda *_: [])
    assert dispatch.settle(backend, [(plan, compiled)], operands) is backend

    def refuse(*_):
        raise srt.BackendError("nothing fits")

    monkeypatch.setattr(backend, "pack", refuse)
    with pytest.warns(UserWarning, match="nothing fits"):
        assert dispatch.settle(backend, [(plan, compiled)], operands).name == "tiled"


def test_a_long_predicate_starts_with_fewer_columns(card):
    looked = card(lambda kernel, config: False)
    compiled = _compiled("attend causal and (" + " or ".join(f"q.pos - k.pos == {i * i}" for i in range(200)) + ")")
    fit.configs_of(compiled, Operands(HALF, 64, 64, 1, CUDA))
    assert all(config.rows * config.cols < 128 * 64 for _, config in looked)


def _python(code: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=env, timeout=250, cwd=ROOT)


def test_a_heavy_predicate_is_compiled_until_it_fits(tmp_path):
    """For sm_90, without one: the config that it begins with spills, the next does not, and that is what a call launches. Another process remembers."""
    code = f"""
        import os
        os.environ["SRT_MASKS_CACHE"] = {str(tmp_path / "cache")!r}
        import torch, srt_masks as srt
        from srt_masks.kernels import fit
        from srt_masks.kernels.configs import Config, Kernel, choose
        from srt_masks.kernels.cubin import usage
        from srt_masks.kernels.offline import offline
        looked, real = [], fit.problem
        fit.problem = lambda kernel, *a: looked.append(kernel.name) or real(kernel, *a)
        fit.choose = lambda kernel, target: Config(64, 64, 4, 2) if kernel is Kernel.DKV else choose(kernel, target)
        launched = {{}}
        spec = srt.parse("input seen: int[m, m]\\nattend causal and any(seen[q.pos - s, k.pos + s] > 0 for s in range(4))")
        q, k, v, dout = (torch.randn(1, 1, 64, 64, dtype=torch.bfloat16, requires_grad=True) for _ in range(4))
        with offline(90, lambda name, config, made: launched.__setitem__(name, (str(config), usage(made).stack))):
            srt.compile(spec, backend="triton")(q, k, v, seen=torch.ones(64, 64, dtype=torch.int64)).backward(dout)
        print(len(looked), launched["key_gradient_kernel"], sum(stack for name, (_, stack) in launched.items() if name != "live_kernel"))
    """
    done = _python(code)
    assert done.stdout.splitlines() == ["4 ('64x32 w4 s2', 0) 0"], done.stdout + done.stderr
    assert _python(code).stdout.splitlines() == ["0 ('64x32 w4 s2', 0) 0"]
