"""The zoo's schemes at about 8,000 tokens: sizes and inputs for what is measured of plans, by tests and benchmarks alike."""

import numpy as np
from zoo import begins, case, rng, runs, tree_ends

N = 8192
_docs = runs(N, (100, 900), 20)
_turns = runs(N, (200, 700), 21)
_places = np.arange(N)
_back = np.minimum(_places + rng(29).integers(1, 2000, N), N)

AT_8K = {
    "causal": case(N),
    "bert padding": case(N, inputs={"valid": _places < 5000}),
    "prefix lm": case(N, inputs={"prefix": 3000}),
    "sliding window": case(N, params={"span": 1000}),
    "longformer": case(N, heads=2, params={"reach": 200}, inputs={"gap": [1, 2], "marked": np.isin(_places, [0, 1, 4000])}),
    "bigbird": case(N, params={"size": 64, "picks": 3}, inputs={"random": rng(22).integers(0, 128, (1, 128, 3))}),
    "sparse transformer, strided": case(N, heads=2, params={"stride": 128}),
    "llama 4 chunks": case(N, layers=4, params={"chunk": 1000}),
    "semi-autoregressive": case(N, params={"size": 48}),
    "streaming sinks": case(N, params={"span": 1000, "sinks": 4}),
    "gemma 3": case(N, layers=6, params={"span": 1000}),
    "head windows at run time": case(N, heads=2, layers=1, params={"sinks": 3}, inputs={"span": [[300, 2000]]}),
    "neighbourhood attention": case(params={"height": 90, "width": 91, "side": 13}),
    "axial": case(N, layers=2, params={"width": 128}),
    "packed documents": case(N, inputs={"start": begins(_docs)}),
    "packed reasoning": case(N // 3, inputs={"doc": runs(N // 3, (50, 400), 23)}),
    "left padding": case(N, inputs={"pad": 3000}),
    "shared prompt": case(params={"prompts": 2000, "rollouts": 8, "tokens": 770}, inputs={"advantage": np.zeros(2000 + 8 * 770)}),
    "documents in a graph": case(N, inputs={"doc": _docs, "linked": rng(25).integers(0, 2, (_docs.max() + 1,) * 2) | np.eye(_docs.max() + 1, dtype=int)}),
    "blocks for retrieval": case(N, inputs={"block": _docs, "final": _docs.max()}),
    "past thoughts are dropped": case(N, inputs={"turn": _turns, "thought": (_places - begins(_turns)) // 100 == 1}),
    "moba": case(N, params={"size": 512}, inputs={"picked": rng(27).integers(0, 4, (N, 1, 16)) == 0}),
    "flashmask columns": case(
        N, inputs={"below_from": _back, "below_to": np.full(N, N), "above_from": np.zeros(N, int), "above_to": np.maximum(_places - 40, 0)}
    ),
    "clusters": case(N, heads=1, inputs={"cluster": rng(30).integers(0, 16, (N, 1))}),
    "block diffusion": case(N // 2, params={"size": 32}),
    "medusa tree": case(
        params={"past": N - 64, "nodes": 64}, inputs={"ancestor": np.tri(64, dtype=int) * rng(31).integers(0, 2, (64, 64)), "depth": np.arange(64) // 4}
    ),
    "registers look ahead": case(N // 2, params={"ahead": 4}),
    "quiet-star": case(N // 8, params={"thoughts": 5}),
    "pause tokens": case(N - 100, params={"prompts": 3000, "pauses": 100}),
    "self reasoning, stopped": case(N // 5, params={"reasons": 4, "horizon": 16}),
    "self reasoning, hidden": case(N // 5, params={"reasons": 4, "horizon": 16}),
    "patient heads": case(N, heads=2, params={"patient": 1, "far": 1000}),
    "myopic training": case(N),
    "knowledge insulation": case(params={"images": 768, "words": 200, "spoken": 64, "actions": 50}),
    "gist tokens": case(N // 2, params={"prompts": N // 2, "gists": 16}),
    "summaries": case(16, params={"words": 500, "slots": 12}),
    "transformer-xl": case(N // 2, params={"kept": N // 2}),
    "transfusion": case(N, inputs={"image": np.where(_turns % 2, _turns, 0)}),
    "xlnet": case(N // 2, inputs={"rank": rng(39).permutation(N // 2)}),
    "encoder-decoder": case(N // 2, params={"sources": N // 2}, inputs={"valid": np.arange(N // 2) < 3000}),
    "speculative verification": case(params={"room": N, "drafted": 8}, inputs={"used": 5000}),
    "meta tokens": case(N - 128, layers=3, params={"metas": 128, "span": 1000}),
    "vision registers": case(N - 17, params={"registers": 16}),
    "in-context rows": case(N // 2, params={"examples": N // 2}),
    "decision transformer": case(N // 3),
    "token tree": case(N, inputs={"last": tree_ends(N, 41)}),
    "shifted windows": case(91 * 90, layers=2, params={"width": 91, "side": 7}),
    "readouts": case(31, params={"tasks": 16, "patches": 256, "readouts": 4}),
    "retrieved chunks": case(N, params={"chunks": 128, "chunk": 64, "passage": 64}),
    "streaming speech": case(300, params={"frames": 16, "ahead": 8, "back": 32, "memories": 4}),
}  # A table of gates for every pair (three gates) has no size worth measuring; coconut has a layout of a few rows.
