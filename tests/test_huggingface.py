"""Specs inside tiny random models of transformers: `attend causal` is their own attention, and gradient rules are those of pairs written out by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from conftest import ROOT
from torch import Tensor

import srt_masks as srt
from srt_masks import huggingface as hf

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = [
    # Of transformers and of Python's own libraries beneath it, not of ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

WORDS, VOCABULARY = 12, 50
CAUSAL = srt.parse("attend causal")
REASONING = srt.parse("""
param horizon = 1
layout repeat { token, reason * 2 }
let too_soon = k is reason and 0 < q.step - k.step <= horizon
attend causal
stop k, v where too_soon
predict token -> index + 1
predict reason -> index + 1
""")

SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
}  # fmt: skip
GROUPED = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2}


def configs() -> dict[str, Any]:
    t = transformers
    return {
        "llama": t.LlamaConfig(**GROUPED),
        "qwen": t.Qwen2Config(**GROUPED),
        "gemma": t.GemmaConfig(**GROUPED, head_dim=8),
        "gemma 3": t.Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=5, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8),
        "gpt2": t.GPT2Config(**SIZES, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0),
    }


NAMES = ("llama", "qwen", "gemma", "gemma 3", "gpt2")


def model_of(name: str = "llama", spec: srt.Spec | None = None, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(configs()[name], attn_implementation="eager").eval()
    return model if spec is None else hf.set_spec(model, spec)


def words(batch: int = 3, tokens: int = WORDS) -> Tensor:
    return torch.randint(2, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(1))


def padding(side: str, tokens: int = WORDS, lengths: tuple[int, ...] = (12, 7, 3)) -> Tensor:
    place = torch.arange(tokens) if side == "right" else torch.arange(tokens).flip(0)
    return (place < torch.tensor(lengths)[:, None]).long()


def learned(model: Any, x: Tensor, real: Tensor | None = None, **named: Any) -> tuple[Tensor, Tensor]:
    """Logits of the real rows, and all gradients of the loss of real rows."""
    real = torch.ones_like(x) if real is None else real
    labels = torch.where(real.bool(), x, -100)
    labels[:, 1:][~real.bool()[:, :-1]] = -100  # a word that stands behind padding: nothing but padding would predict it
    model.zero_grad()
    out = model(input_ids=x, labels=labels, **named)
    out.loss.backward()
    return out.logits[real.bool()].detach(), torch.cat([p.grad.flatten() for p in model.parameters()])


def assert_alike(a: tuple[Tensor, ...], b: tuple[Tensor, ...], bound: float = 1e-5) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, atol=bound, rtol=0)


# ------------------------------------------------------------------------------------------------ by hand


def by_hand(spec: srt.Spec) -> None:
    """Registers attention by every pair's own copies of query, key and value, written for one row without padding."""

    def attention(module: Any, q: Tensor, k: Tensor, v: Tensor, attention_mask: Any, scaling: float | None = None, **_: Any) -> tuple[Tensor, None]:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        layout = spec.checked.queries
        masks = srt.dense(spec, steps=layout.steps(q.shape[2]), heads=q.shape[1], layers=module.config.num_hidden_layers)
        seen, gates = masks.attend[module.layer_idx], [g[module.layer_idx].float()[None, ..., None] for g in (masks.gate_q, masks.gate_k, masks.gate_v)]
        pairs = (q[:, :, :, None], k[:, :, None], v[:, :, None])
        q, k, v = (g * x + (1 - g) * x.detach() for g, x in zip(gates, pairs, strict=True))
        weights = ((q * k).sum(-1) * scaling).masked_fill(~seen, -torch.inf).softmax(-1)
        return (weights[..., None] * v).sum(3).transpose(1, 2), None

    transformers.AttentionInterface.register("by_hand", attention)


def hand_written(spec: srt.Spec, x: Tensor, name: str = "llama", **named: Any) -> tuple[Tensor, Tensor]:
    by_hand(spec)
    model = model_of(name)
    model.set_attn_implementation("by_hand")
    return learned(model, x, **named)


# ------------------------------------------------------------------------------------------------ one pass


@pytest.mark.parametrize("side", [None, "left", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_attend_causal_is_the_models_own_attention(name: str, side: str | None):
    real = None if side is None else padding(side)
    named = {} if real is None else {"attention_mask": real}
    assert_alike(learned(model_of(name, CAUSAL), words(), real, **named), learned(model_of(name), words(), real, **named))


@pytest.mark.parametrize("name", NAMES)
def test_D8_packed_positions_keep_documents_apart_beside_a_mask_of_ones_or_a_cache(name: str):
    """There transformers looks for no documents, and they mix."""
    positions = torch.tensor([[*range(5), *range(7)], [*range(12)], [*range(2), *range(1), *range(9)]])
    theirs = learned(model_of(name), words(), position_ids=positions, use_cache=False)
    for beside in ({"use_cache": False}, {"use_cache": True}, {"use_cache": False, "attention_mask": torch.ones_like(words())}):
        assert_alike(learned(model_of(name, CAUSAL), words(), position_ids=positions, **beside), theirs)


def test_positions_that_several_rows_share_begin_no_document():
    laid = hf.interleave(REASONING, words(1, 4), {"reason": [40, 41]})
    twice = {name: x.repeat(1, 2) for name, x in laid.items() if name in ("input_ids", "position_ids")}
    model = model_of(spec=REASONING)
    alone = model(laid["input_ids"], attention_mask=laid["attention_mask"], position_ids=laid["position_ids"]).logits
    assert_alike((model(**twice, attention_mask=torch.ones_like(twice["input_ids"])).logits,), (alone.repeat(1, 2, 1),))
    other = laid["input_ids"].index_fill(1, torch.tensor([0]), 7)
    moved = model(other, attention_mask=laid["attention_mask"], position_ids=laid["position_ids"]).logits
    assert (moved - alone)[:, -1].abs().max() > 1e-4  # its last row sees its first


def test_documents_that_cannot_be_kept_apart_are_refused():
    model, x = model_of(spec=CAUSAL), words(1)
    positions = torch.tensor([[0, *range(6), *range(5)]])
    real = padding("left", lengths=(11,))
    with pytest.raises(srt.InputError, match=r"begin anew at token 7 of row 0.*beside padding"):
        model(x, attention_mask=real, position_ids=positions)
    cache = transformers.DynamicCache()
    model(x[:, :4], past_key_values=cache)
    with pytest.raises(srt.InputError, match="begin anew at token 3 of row 0"):
        model(x[:, 4:], past_key_values=cache, position_ids=torch.tensor([[4, 5, 6, 0, 1, 2, 3, 4]]))


def test_a_packed_document_is_laid_out_as_if_alone():
    """`first(1)` is each document's own first token."""
    spec, x = srt.parse("attend causal and (first(1) or window(2))"), words(1)
    model = model_of(spec=spec)
    packed = model(x, position_ids=torch.tensor([[*range(5), *range(7)]]), use_cache=False).logits
    alone = torch.cat([model(x[:, :5]).logits, model(x[:, 5:]).logits], 1)
    assert_alike((packed,), (alone,))


def test_scales_that_differ_by_layer_are_kept():
    torch.manual_seed(0)
    config = transformers.GPT2Config(**SIZES, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0, scale_attn_by_inverse_layer_idx=True)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    theirs = learned(model, words())
    assert_alike(learned(hf.set_spec(model, CAUSAL), words()), theirs)
    assert (theirs[0] - learned(model_of("gpt2"), words())[0]).abs().max() > 1e-4


def test_cross_attention_is_refused():
    config = transformers.GPT2Config(**SIZES, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0, add_cross_attention=True)
    model = hf.set_spec(transformers.AutoModelForCausalLM.from_config(config).eval(), CAUSAL)
    with pytest.raises(srt.BackendError, match="cross attention"):
        model(words(1), encoder_hidden_states=torch.zeros(1, 3, SIZES["hidden_size"]))


@pytest.mark.parametrize("alone", [False, True], ids=["model", "config"])
def test_an_encoder_with_its_decoder_is_refused_before_it_is_called(alone: bool):
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 8))}
    config = transformers.BartConfig(vocab_size=VOCABULARY, d_model=8, max_position_embeddings=32, **sizes)
    with pytest.raises(srt.BackendError, match=r"is an encoder, and a decoder that looks at it.*cross attention is not served"):
        hf.set_spec(config if alone else transformers.BartForConditionalGeneration(config), CAUSAL)
    assert not hasattr(config, hf.NAME)


def test_packed_documents_under_torch_compile_are_kept_in_parts():
    named = {"position_ids": torch.tensor([[*range(5), *range(7)]]), "use_cache": False}
    model = model_of(spec=CAUSAL)
    alone = model(words(1), **named).logits
    torch._dynamo.reset()
    assert_alike((torch.compile(model, backend="eager")(words(1), **named).logits,), (alone,))


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma"])
def test_gradient_rules_are_those_of_pairs_written_out(name: str):
    x = words()
    ours = learned(model_of(name, REASONING), x)
    assert_alike(ours, hand_written(REASONING, x, name))
    plain = learned(model_of(name), x)
    assert_alike(ours[:1], plain[:1])  # a rule changes no value
    assert (ours[1] - plain[1]).abs().max() > 1e-4  # and it does change gradients


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_is_laid_out_as_if_alone(side: str):
    """Where the padding is no whole steps, reading steps off memory would be another rule; with padding in the middle, too."""
    x, lengths = words(3, 14), (12, 9, 3)
    real = padding(side, 14, lengths)
    model = model_of(spec=REASONING)
    padded = torch.zeros(())
    for b, n in enumerate(lengths):
        out = model(x[b : b + 1], attention_mask=real[b : b + 1]).logits[real[b : b + 1].bool()]
        padded = padded + (out[n // 2 :] ** 2).sum()
    whole = (model(x, attention_mask=real).logits[real.bool()] ** 2).sum()
    model.zero_grad()
    logits = model(x, attention_mask=real).logits
    sum((logits[b][real[b].bool()][n // 2 :] ** 2).sum() for b, n in enumerate(lengths)).backward()
    ours = [p.grad.clone() for p in model.parameters()]
    by_hand(REASONING)
    oracle = model_of()
    oracle.set_attn_implementation("by_hand")
    total = sum((oracle(x[b][real[b].bool()][None], position_ids=real[b].nonzero().T).logits[0, n // 2 :] ** 2).sum() for b, n in enumerate(lengths))
    total.backward()
    assert whole > 0
    assert_alike((padded,), (total,), 1e-4)
    assert_alike(tuple(ours), tuple(p.grad for p in oracle.parameters()))


def test_layers_and_heads_follow_rules_of_their_own():
    spec = srt.parse("attend causal and (window(3) if layer == 0 else full)\nstop v where head == 1 and k.pos < q.pos")
    assert_alike(learned(model_of(spec=spec), words()), hand_written(spec, words()))


@pytest.mark.parametrize("side", ["left", "right"])
def test_inputs_and_params_come_by_keyword(side: str):
    spec = srt.parse("param reach = 9\ninput docs: int per token\nattend causal and same(docs) and window(reach)")
    x, real = words(), padding(side)
    docs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(3))
    model = model_of(spec=spec)
    ours = model(x, attention_mask=real, docs=docs, reach=4).logits
    for b, here in enumerate(real.bool()):
        place = here.nonzero().T
        alone = model(x[b][here][None], position_ids=place, attention_mask=torch.ones_like(place), docs=docs[b][here], reach=4).logits
        assert_alike((ours[b][here],), (alone[0],))
    assert (ours - model(x, attention_mask=real, docs=docs, reach=2).logits)[real.bool()].abs().max() > 1e-4
    assert (ours - model(x, attention_mask=real, docs=docs * 0, reach=4).logits)[real.bool()].abs().max() > 1e-4
    with pytest.raises(srt.InputError, match="docs"):
        model(x)


@pytest.mark.parametrize("spec", [CAUSAL, REASONING], ids=["causal", "rules"])
def test_gradient_checkpointing_changes_nothing(spec: srt.Spec):
    real = padding("left", lengths=(12, 6, 3))
    model = model_of(spec=spec)
    plain = learned(model, words(), real, attention_mask=real)
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    calls = []
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    assert_alike(learned(model, words(), real, attention_mask=real, use_cache=False), plain)
    assert len(calls) == 2  # and it was called again in the backward


@pytest.mark.parametrize("side", ["left", None])
def test_torch_compile_keeps_the_whole_graph_where_a_mask_is_given(side: str | None):
    real = padding(side) if side else torch.ones_like(words())
    model = model_of(spec=REASONING)
    real = padding("left", lengths=(12, 6, 3)) if side else real
    plain = learned(model, words(), real, attention_mask=real)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_alike(learned(compiled, words(), real, attention_mask=real), plain)


def test_padding_beside_a_window_is_no_whole_graph_and_is_kept_in_parts():
    model, real = model_of("gemma 3", CAUSAL), padding("left")
    plain = learned(model, words(), real, attention_mask=real)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(model, backend="eager", fullgraph=True)(words(), attention_mask=real)
    torch._dynamo.reset()
    assert_alike(learned(torch.compile(model, backend="eager"), words(), real, attention_mask=real), plain)


# ------------------------------------------------------------------------------------------------ generate


@pytest.mark.parametrize(
    "how", [{}, {"cache_implementation": "static"}, {"num_beams": 3}, {"use_cache": False}], ids=["dynamic", "static", "beams", "no cache"]
)
@pytest.mark.parametrize("name", NAMES)
def test_generate_writes_what_the_models_own_attention_writes(name: str, how: dict[str, Any]):
    real = padding("left")

    def written(model: Any) -> tuple[Tensor, Tensor]:
        out = model.generate(
            words(), attention_mask=real, max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True, disable_compile=True, **how
        )
        return out.sequences, torch.stack(out.logits)

    ours, theirs = written(model_of(name, CAUSAL)), written(model_of(name))
    assert torch.equal(ours[0], theirs[0])
    assert_alike(ours[1:], theirs[1:])


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("side", [None, "left"])
def test_a_cache_fed_by_pieces_equals_one_pass(kind: str, side: str | None):
    """In pieces that end in mid-step, by a spec that is neither causal alone nor blind to what stands behind in a static cache."""
    spec = srt.parse("layout repeat { token, reason * 2 }\nattend q.step >= k.step and not (q is token and k is reason and k.step == q.step - 1)")
    spec = srt.parse(spec.text.replace("q.step >= k.step", "causal"))
    x = words(2)
    real = torch.ones_like(x) if side is None else padding("left", lengths=(12, 9))
    model = model_of(spec=spec)
    whole = model(x, attention_mask=real).logits
    cache = transformers.DynamicCache() if kind == "dynamic" else transformers.StaticCache(model.config, max_cache_len=20)
    parts = []
    with torch.no_grad():
        for a, b in ((0, 4), (4, 5), (5, 6), (6, 12)):
            out = model(x[:, a:b], attention_mask=real[:, :b], position_ids=torch.arange(a, b)[None], cache=cache, use_cache=True)
            parts.append(out.logits)
    assert_alike((torch.cat(parts, 1)[real.bool()],), (whole[real.bool()].detach(),))


# ------------------------------------------------------------------------------------------------ kept in the config


def test_a_spec_is_saved_and_restored_with_its_model(tmp_path: Any):
    model = model_of(spec=REASONING.with_params(horizon=2))
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="srt_masks").eval()
    assert hf.spec_of(again) == REASONING.with_params(horizon=2)
    assert_alike(learned(again, words()), learned(model, words()), 0)
    made = transformers.AutoModelForCausalLM.from_config(hf.set_spec(configs()["llama"], CAUSAL), attn_implementation="srt_masks")
    assert hf.spec_of(made) == CAUSAL and made(words()).logits.shape == (3, WORDS, VOCABULARY)


def test_importing_srt_masks_imports_no_transformers():
    code = "import sys, srt_masks; srt_masks.huggingface.interleave; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------------ words


def test_words_are_interleaved_by_the_layout():
    x = torch.tensor([[5, 6, 7]])
    laid = hf.interleave(REASONING, x, {"reason": [40, 41]})
    assert laid["input_ids"].tolist() == [[5, 40, 41, 6, 40, 41, 7, 40, 41]]
    assert laid["position_ids"].tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2]]
    assert laid["shift_labels"].tolist() == [[6, 6, 6, 7, 7, 7, -100, -100, -100]]
    assert laid["labels"].tolist() == [[-100, 6, 6, 6, 7, 7, 7, -100, -100]]
    padded = hf.interleave(REASONING, torch.tensor([[0, 5, 6], [5, 6, 7]]), {"reason": 40}, attention_mask=torch.tensor([[0, 1, 1], [1, 1, 1]]))
    assert padded["attention_mask"].tolist() == [[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9]
    assert padded["shift_labels"][0].tolist() == [-100, -100, -100, 6, 6, 6, -100, -100, -100]
    assert padded["input_ids"][0].tolist() == [0, 0, 0, 5, 40, 40, 6, 40, 40]
    hidden = hf.interleave(REASONING, x, {"reason": 40}, labels=torch.tensor([[5, -100, 7]]))
    assert hidden["shift_labels"].tolist() == [[-100, -100, -100, 7, 7, 7, -100, -100, -100]]


def test_the_loss_of_what_is_interleaved_is_the_mean_over_the_rows_that_predict():
    model, x = model_of(spec=REASONING), words(2, 4)
    laid = hf.interleave(REASONING, x, {"reason": 40})
    out = model(**laid)
    logits = out.logits.view(2, 4, 3, VOCABULARY)[:, :-1]
    wanted = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), x[:, 1:, None].expand(-1, -1, 3).reshape(-1))
    torch.testing.assert_close(out.loss, wanted)
    shifted = model(**{n: v for n, v in laid.items() if n != "shift_labels"}).loss
    torch.testing.assert_close(shifted, wanted)
    torch.testing.assert_close(hf.word_logits(REASONING, out.logits), logits[:, :, 2])
    assert_alike((model(**laid).loss,), (hand_loss(laid),))


def hand_loss(laid: dict[str, Tensor]) -> Tensor:
    by_hand(REASONING)
    model = model_of()
    model.set_attn_implementation("by_hand")
    return model(**laid).loss


def test_the_page_prints_what_it_shows():
    from test_docs import test_python_blocks_run_and_print_what_the_page_shows as run

    run(ROOT / "docs" / "huggingface.md")


# ------------------------------------------------------------------------------------------------ refused


def masked_by(model: Any, **more: Any) -> None:
    """What a model does that has a mask function of its own."""
    from transformers.masking_utils import create_causal_mask

    create_causal_mask(config=model.config, inputs_embeds=torch.zeros(1, 4, 32), attention_mask=None, cache=None, **more)


def test_a_mask_function_that_is_not_known_is_refused():
    model = model_of(spec=CAUSAL)
    for more in ({"or_mask_function": lambda b, h, q, k: k < 2}, {"and_mask_function": lambda b, h, q, k: k > 2}, {"block_sequence_ids": torch.zeros(1, 4)}):
        with pytest.raises(srt.BackendError, match="the model masks by"):
            masked_by(model, **more)


def test_a_mask_of_four_axes_is_refused():
    with pytest.raises(srt.InputError, match=r"attention_mask of shape \(1, 1, 4, 4\)"):
        model_of(spec=CAUSAL)(words(1, 4), attention_mask=torch.ones(1, 1, 4, 4, dtype=torch.bool))


def test_soft_caps_are_refused():
    config = transformers.Gemma2Config(**GROUPED, head_dim=8, attn_logit_softcapping=30.0)
    model = hf.set_spec(transformers.AutoModelForCausalLM.from_config(config), CAUSAL)
    with pytest.raises(srt.BackendError, match="softcap"):
        model(words())


@pytest.mark.parametrize("name", ["position_bias", "s_aux", "horizn"])
def test_an_argument_that_nobody_would_keep_is_refused(name: str):
    with pytest.raises(srt.BackendError, match=name):
        model_of(spec=REASONING)(words(), **{name: torch.zeros(1)})


def test_dropout_is_refused_where_it_would_act():
    config = configs()["llama"]
    config.attention_dropout = 0.1
    model = hf.set_spec(transformers.AutoModelForCausalLM.from_config(config), CAUSAL)
    model.eval()(words())
    with pytest.raises(srt.BackendError, match="attention_dropout"):
        model.train()(words())


def test_a_model_without_a_spec_says_how_to_give_it_one():
    hf.register()
    model = model_of()
    model.set_attn_implementation("srt_masks")
    with pytest.raises(srt.InputError, match="set_spec"):
        model(words())


def own_code() -> dict[str, Any]:
    """Models that transformers gives another attention in its log alone."""
    t = transformers
    return {
        "BloomForCausalLM": t.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
        "FalconForCausalLM": t.FalconConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
        "GPTNeoForCausalLM": t.GPTNeoConfig(vocab_size=VOCABULARY, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]]),
        "OpenAIGPTLMHeadModel": t.OpenAIGPTConfig(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4),
    }


@pytest.mark.parametrize("name", ["BloomForCausalLM", "FalconForCausalLM", "GPTNeoForCausalLM", "OpenAIGPTLMHeadModel"])
def test_a_model_that_attends_by_code_of_its_own_is_refused(name: str):
    model = getattr(transformers, name)(own_code()[name])
    with pytest.raises(srt.BackendError, match=f"{name} attends by code of its own.*would be ignored"):
        hf.set_spec(model, CAUSAL)
    with pytest.raises(srt.InputError, match="this model has no spec"):  # its config is as it was
        hf.spec_of(model)


def test_a_model_that_names_the_attention_and_never_asks_for_it_is_refused():
    """Made by name, its config says that it has the attention."""
    hf.register()
    model = transformers.AutoModelForCausalLM.from_config(own_code()["OpenAIGPTLMHeadModel"], attn_implementation="srt_masks")
    assert model.config._attn_implementation == "srt_masks"
    with pytest.raises(srt.BackendError, match="attends by code of its own"):
        hf.set_spec(model, CAUSAL)


def test_a_model_without_attention_is_refused():
    model = transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2))
    with pytest.raises(srt.BackendError, match="MambaForCausalLM has no attention layers"):
        hf.set_spec(model, CAUSAL)


def test_prefixes_of_keys_are_refused():
    with pytest.raises(srt.InputError, match="prefix tuning"):
        model_of(spec=CAUSAL)(words(1, 4), attention_mask=torch.ones(1, 6, dtype=torch.int64))


def test_padding_within_a_window_is_refused():
    real = torch.ones(1, WORDS, dtype=torch.int64)
    real[0, 4] = 0
    model_of(spec=CAUSAL)(words(1), attention_mask=real)
    with pytest.raises(srt.InputError, match="Pad at one end"):
        model_of("gemma 3", CAUSAL)(words(1), attention_mask=real)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("queries layout repeat { token }\nkeys layout repeat { note }\nattend full", "two layouts"),
        ("attend causal\nstop hidden where q.pos - k.pos > 2", "projected twice"),
        ("layout given { token, reason }\nattend causal", "layout given"),
        ("queries where pos % 2 == 0\nattend causal", "queries where"),
    ],
)
def test_specs_that_such_a_model_cannot_follow_are_refused(text: str, said: str):
    with pytest.raises(srt.InputError, match=said):
        hf.set_spec(configs()["llama"], srt.parse(text))


def test_rows_that_are_no_whole_steps_are_refused_where_a_model_learns():
    model = model_of(spec=REASONING)
    assert model(words(1, 4)).logits.shape[1] == 4
    with pytest.raises(srt.InputError, match="1 steps and 1 tokens"):
        model.train()(words(1, 4))


def test_words_that_do_not_fit_are_refused():
    x = words(1, 3)
    for said, call in {
        "which id stands for a `reason`": lambda: hf.interleave(REASONING, x, {}),
        "ids has `reson`": lambda: hf.interleave(REASONING, x, {"reson": 4, "reason": 4}),
        "ids has 1 for `reason`": lambda: hf.interleave(REASONING, x, {"reason": [4]}),
        "whole numbers; got float32": lambda: hf.interleave(REASONING, x.float(), {"reason": 4}),
        "no whole steps": lambda: hf.word_logits(REASONING, torch.zeros(1, 4, 5)),
        "no `predict`": lambda: hf.word_logits(CAUSAL, torch.zeros(1, 4, 5)),
        "padding between": lambda: hf.interleave(REASONING, x, {"reason": 4}, attention_mask=torch.tensor([[1, 0, 1]])),
        "weighs what it predicts": lambda: hf.interleave(srt.parse("attend causal\npredict token -> index + 1 weight 0.5"), x, {}),
    }.items():
        with pytest.raises(srt.InputError, match=said):
            call()
