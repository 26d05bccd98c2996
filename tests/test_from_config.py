"""Configs of Hugging Face as specs: their masks are recorded from its own models (golden/huggingface_masks.json)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import srt_masks as srt
from srt_masks.diagnostics import Source
from srt_masks.elsewhere.families import EVERY
from srt_masks.grammar.formatter import format_text

RECORDED = json.loads((Path(__file__).parent / "golden" / "huggingface_masks.json").read_text())["cases"]


class Config:
    """A config as an object: it writes other units to a file than it holds."""

    def __init__(self, record: dict[str, Any]):
        self.model_type, self.sliding_window, self._file = record["asked"]["model_type"], record["window"], record["config.json"]

    def to_dict(self) -> dict[str, Any]:
        return self._file


@pytest.mark.parametrize("record", RECORDED, ids=lambda r: "-".join(str(x) for x in r["asked"].values())[:60])
def test_configs_mean_what_their_models_do(record: dict[str, Any]):
    """`masks` holds the pairs with a positive weight in the model's own attention, layer by layer."""
    masks = torch.stack([torch.tensor([[x == "1" for x in row] for row in record["masks"][i]]) for i in record["layers"]])
    for config in (record["asked"], record["config.json"], Config(record)):
        spec = srt.from_config(config)
        assert torch.equal(srt.dense(spec, steps=masks.shape[-1], layers=len(masks)).attend[:, 0], masks), spec
        assert format_text(Source(spec.text)) == spec.text
        assert srt.equivalent(spec, config, steps=masks.shape[-1])


def test_recorded_models_span_the_families():
    kinds = {r["asked"]["model_type"] for r in RECORDED}
    assert len(RECORDED) >= 30 and {
        "mistral",
        "qwen2",
        "gemma2",
        "gemma3_text",
        "cohere2",
        "gpt_oss",
        "llama4_text",
        "modernbert",
        "gpt_neo",
        "smollm3",
        "bert",
    } <= kinds <= set(EVERY)


def test_texts_read_well():
    config = {"model_type": "gemma2", "num_hidden_layers": 26, "sliding_window": 4096, "attn_logit_softcapping": 50.0}
    assert srt.from_config(config).text == (
        "# gemma2: 26 layers\n"
        "# attn_logit_softcapping changes scores, not the mask: it is no part of this text\n"
        "param sliding = 4096  # keys on one side, the query's own among them\n"
        "attend causal and (layer % 2 == 1 or window(sliding))\n"
    )
    kinds = ["full_attention", "sliding_attention", "chunked_attention", "sliding_attention", "sliding_attention"]
    config = {"model_type": "mine", "layer_types": kinds, "sliding_window": 3, "attention_chunk_size": 4, "is_causal": True}
    spec = srt.from_config(config)
    masks = srt.dense(spec, steps=9, layers=5).attend[:, 0]
    q, k = torch.arange(9)[:, None], torch.arange(9)
    wanted = {"full_attention": k <= q, "sliding_attention": (k <= q) & (q - k < 3), "chunked_attention": (k <= q) & (q // 4 == k // 4)}
    assert torch.equal(masks, torch.stack([wanted[x] for x in kinds]))


def test_a_prefix_comes_as_an_input():
    for config in (
        {"model_type": "paligemma", "num_hidden_layers": 2},
        {"model_type": "paligemma", "text_config": {"model_type": "gemma", "num_hidden_layers": 2}, "vision_config": {}},
    ):
        spec = srt.from_config(config)
        q, k = torch.arange(6)[:, None], torch.arange(6)
        assert torch.equal(srt.dense(spec, steps=6, inputs={"prefix": torch.tensor(3)}).attend[0, 0], (k <= q) | (k < 3))


def test_a_prefix_before_layers_that_slide_sees_all_of_itself():
    """PaliGemma 2: its text model slides, and says so by its own kind; the prefix goes beyond the window, and what follows does not."""
    text = {"model_type": "gemma2", "num_hidden_layers": 2, "sliding_window": 2}
    spec = srt.from_config({"model_type": "paligemma", "text_config": text, "vision_config": {}})
    masks = srt.dense(spec, steps=7, layers=2, inputs={"prefix": torch.tensor(4)}).attend[:, 0]
    q, k = torch.arange(7)[:, None], torch.arange(7)
    prefix = (q < 4) & (k < 4)
    assert torch.equal(masks, torch.stack([(k <= q) & (q - k < 2) | prefix, (k <= q) | prefix]))


def test_encoders_that_are_no_decoders_whatever_they_say():
    for kind, words in (("albert", "attend full"), ("distilbert", "attend full"), ("deberta-v2", "attend full"), ("bert", "attend causal")):
        assert words in srt.from_config({"model_type": kind, "num_hidden_layers": 2, "is_decoder": True}).text


def test_which_layers_of_mixtures_of_experts_slide():
    """As their models have it: of Qwen2-MoE every second below max_window_layers, of Qwen3-MoE all."""
    config = {"num_hidden_layers": 6, "use_sliding_window": True, "sliding_window": 2, "max_window_layers": 4}
    q, k = torch.arange(5)[:, None], torch.arange(5)
    for kind, slides in (("qwen2_moe", (0, 2)), ("qwen3_moe", range(6)), ("qwen3", (4, 5))):
        masks = srt.dense(srt.from_config({**config, "model_type": kind}), steps=5, layers=6).attend[:, 0]
        assert torch.equal(masks, torch.stack([(k <= q) & (q - k < (2 if i in slides else 9)) for i in range(6)])), kind


@pytest.mark.parametrize(("kind", "setting"), [
    ("mistral", "sliding_window"), ("gemma2", "sliding_window"), ("gemma3_text", "sliding_window"), ("gpt_oss", "sliding_window"), ("cohere2", "sliding_window"),
    ("olmo3", "sliding_window"), ("exaone4", "sliding_window"), ("qwen2", "sliding_window"), ("modernbert", "local_attention"), ("llama4_text", "attention_chunk_size"),
])  # fmt: skip
def test_a_limit_that_models_have_by_default_has_to_be_said(kind: str, setting: str):
    """The models' own configs have a number for it: a file without it is not one without a limit."""
    config = {"model_type": kind, "num_hidden_layers": 6, **({"use_sliding_window": True} if kind == "qwen2" else {})}
    with pytest.raises(srt.InputError, match=f"limited by {setting}, and this config does not say it"):
        srt.from_config(config)
    assert "param" not in srt.from_config({**config, setting: None}).text


@pytest.mark.parametrize(("config", "words"), [
    ({"num_hidden_layers": 2, "model_type": "longformer", "attention_window": 512}, r"attention_window=512, and what that does"),
    ({"num_hidden_layers": 2, "model_type": "llama", "block_size": 64, "num_random_blocks": 3}, r"block_size=64, num_random_blocks=3"),
    ({"num_hidden_layers": 2, "model_type": "llama", "index_topk": 64}, "index_topk=64"),
    ({"num_hidden_layers": 2, "model_type": "mistral", "window_size": 64}, "window_size=64"),
    ({"num_hidden_layers": 2, "model_type": "llama", "layer_types": ["full_attention", "linear_attention"]}, r"layer_types\[1\] is 'linear_attention', and only attention"),
    ({"num_hidden_layers": 3, "model_type": "llama", "layer_types": ["full_attention"]}, "each of the 3 layers; got 1"),
    ({"num_hidden_layers": 2, "model_type": "mistrel", "sliding_window": 4}, "which layers slide.*did you mean `mistral`"),
    ({"num_hidden_layers": 2, "model_type": "unheard"}, "causal=True or causal=False"),
    ({"num_hidden_layers": 2, "model_type": "gemma2", "use_bidirectional_attention": True}, "use_bidirectional_attention of 'gemma2'"),
    ({"model_type": "llama"}, "how many layers"),
    ({"num_hidden_layers": 0, "model_type": "llama"}, "1 or more; got 0"),
    ({"num_hidden_layers": 2, "model_type": "mistral", "sliding_window": -3}, "sliding_window is a whole number of tokens"),
    ({"num_hidden_layers": 2, "model_type": "mistral", "sliding_window": "4096"}, "sliding_window is a whole number of tokens"),
    ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}, "vision_config": {}}, r"several models \(text_config, vision_config\).*config.text_config"),
    ({"num_hidden_layers": 2, "model_type": "exaone4", "sliding_window": 4, "sliding_window_pattern": "LLLG"}, "letters"),
    ({"num_hidden_layers": 3, "model_type": "llama4_text", "attention_chunk_size": 4, "no_rope_layers": [1, 0]}, "each of the 3 layers; got 2"),
    ({"num_hidden_layers": 2, "model_type": "gpt_neo", "attention_types": [[["global", "sparse"], 1]]}, "`global` or `local`"),
])  # fmt: skip
def test_settings_that_are_not_understood_are_named(config: dict[str, Any], words: str):
    with pytest.raises(srt.InputError, match=words):
        srt.from_config(config)


@pytest.mark.parametrize(("config", "words"), [
    ({"model_type": "t5", "num_layers": 2, "is_encoder_decoder": True}, "an encoder and a decoder, which attend by three masks"),
    ({"model_type": "rwkv", "num_hidden_layers": 2}, "layers of 'rwkv' have no attention"),
])  # fmt: skip
def test_what_has_not_one_mask_has_none_whichever_way_it_looks(config: dict[str, Any], words: str):
    for causal in (None, True, False):
        with pytest.raises(srt.InputError, match=words):
            srt.from_config(config, causal=causal)
    assert "causal" in str(srt.from_config({"model_type": "bart", "num_hidden_layers": 2, "is_encoder_decoder": False}, causal=True))


def test_a_config_that_differs_is_called_one():
    config = {"model_type": "mistral", "num_hidden_layers": 2, "sliding_window": 3}
    verdict = srt.equivalent(srt.parse("attend causal and window(4)"), config, steps=9)
    assert verdict.reason == "the spec attends query 3 and key 0 (row 0 of the batch, layer 0, head 0), the config does not"
    assert "2 only the config" in verdict.picture and repr(verdict) == f"<Verdict different: {verdict.reason}>"
    window = srt.parse("attend causal and window(4)")
    assert repr(srt.equivalent(window, window, steps=4)) == "<Verdict equal: the first and the second attend the same pairs>"


def test_a_config_is_one_mask_in_so_many_layers():
    config = {"model_type": "gpt_oss", "num_hidden_layers": 4, "sliding_window": 128}
    for text in ("attend causal and (layer in {1, 3} or window(128))", "param sliding = 128 attend causal and (layer % 2 == 1 or window(sliding))"):
        for verdict in (srt.equivalent(srt.parse(text), config), srt.equivalent(srt.parse(text), config, layers=4)):
            assert verdict.outcome == "proved" and verdict.scope == "any number of steps, 4 layers, params as written"
    assert srt.equivalent(srt.from_config(config), config)
    wrong = srt.equivalent(srt.parse("param sliding = 64 attend causal and (layer % 2 == 1 or window(sliding))"), config)
    assert wrong.reason.startswith("they differ in who attends: query 64 and key 0") and wrong.reason.endswith(", with sliding = 64 and 128")
    last = srt.equivalent(srt.parse("attend causal and (layer == 1 or window(128))"), config)
    assert not last and last.pair is not None and (last.pair.layer, last.pair.query) == (3, 128)


def test_what_is_no_config():
    for other in (3, "gpt2", None, torch.ones(2)):
        with pytest.raises(srt.InputError, match="a Hugging Face config is wanted"):
            srt.from_config(other)
    with pytest.raises(srt.InputError, match="causal is True or False"):
        srt.from_config({"model_type": "x", "num_hidden_layers": 1}, causal=1)  # type: ignore[arg-type]
    assert "causal" not in srt.from_config({"model_type": "x", "num_hidden_layers": 1}, causal=False).text
    assert "attend causal" in srt.from_config(SimpleNamespace(model_type="x", num_hidden_layers=1), causal=True).text
