"""A Hugging Face model with stop rules.

A small Llama of `transformers`, from its config, with two reasoning tokens behind every byte. The attention is that of a spec; the model, its weights and
its labels are Hugging Face's. `horizon` grows while it trains, which compiles nothing: at first the next two steps may not train a reasoning token, in
the end the next sixteen.
"""

import argparse
import pydoc_data.topics
import sys

import torch

import srt_masks as srt

try:
    import transformers
except ImportError:
    sys.exit("this example needs transformers: pip install transformers")

SPEC = srt.parse("""
param horizon = 16
layout repeat { token, reason * 2 }
attend causal
stop k, v where k is reason and 0 < q.step - k.step <= horizon
predict token -> index + 1
predict reason -> index + 1
""")
REASONS = {"reason": [256, 257]}  # ids of their own


def main(quick: bool) -> None:
    steps, words, dim = (3, 8, 16) if quick else (200, 48, 96)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=258, hidden_size=dim, intermediate_size=2 * dim, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    model = srt.huggingface.set_spec(transformers.LlamaForCausalLM(config), SPEC)
    text = torch.tensor(list("\n".join(pydoc_data.topics.topics.values()).encode()))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(1, steps + 1):
        x = text[torch.randint(0, len(text) - words, (16, 1)) + torch.arange(words)]
        batch = srt.huggingface.interleave(SPEC, x, REASONS)
        horizon = 2 + 14 * step // steps
        out = model(**batch, horizon=horizon)
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
        if step % max(1, steps // 5) == 0:
            last = torch.nn.functional.cross_entropy(srt.huggingface.word_logits(SPEC, out.logits).flatten(0, 1), x[:, 1:].flatten())
            print(f"step {step:4}  horizon {horizon:2}  loss of all rows {out.loss.item():.3f}, of the last row of each byte {last.item():.3f} nats")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(arguments.parse_args().quick)
