"""Pruning in models of the transformers library (extra ``otprune[hf]``).

    with otprune.hf.pruned(model, "otprune", keep_ratio=0.1):
        model.generate(**inputs)

`prune_inputs` does the same to a processor's output, without touching the model.
`otprune.hf.layers` prunes inside a decoder. Nothing outside this package imports transformers.
"""

from otprune.hf.families import UnsupportedModelError
from otprune.hf.inputs import prune_inputs
from otprune.hf.prune import pruned

__all__ = ["UnsupportedModelError", "pruned", "prune_inputs"]
