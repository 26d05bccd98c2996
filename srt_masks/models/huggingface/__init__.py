"""Specs inside models of Hugging Face `transformers`: `register()` once, `set_spec(model, spec)`, then train and generate as ever.

    settings.py    the spec of a model, kept in its config
    sequences.py   rows of memory, padded or packed -> sequences that begin at 0 and have a length
    masks.py       what transformers asks of a mask -> sequences and limits, or a refusal
    hook.py        one layer's attention, and `register`
    words.py       words <-> the rows of a layout: `interleave`, `word_logits`

`transformers` is imported by `register` and not before.
"""

from .hook import NAME, register
from .settings import set_spec, spec_of
from .words import interleave, word_logits

__all__ = ["NAME", "interleave", "register", "set_spec", "spec_of", "word_logits"]
