"""Decode step by step with less around the arithmetic, and the same bits.

`LeanDecoder` takes the place of a decoder's `forward` where one token is appended to each row:

    lean = LeanDecoder(model.model)
    with lean.installed():
        model.generate(**inputs)

It calls the same products, norms and attention on the same numbers; what it leaves out is calls of
modules, a mask for each layer, and the concatenation that copies all keys and values at every step.
Whatever it does not know runs as before. `generate` itself, its stopping and its settings stay
transformers'.
"""

from otprune.hf.decoding.lean import LeanDecoder

__all__ = ["LeanDecoder"]
