"""Drop visual tokens at the input of decoder layers, with caches of unequal length.

`DecoderAdapter` says where a decoder's modules are. `install_hooks` puts hooks on its layers once;
`layer_run` prunes the forward calls that are made inside it, as a `LayerPlan` says.

    adapter = DecoderAdapter(model.model)
    install_hooks(adapter)
    with layer_run(adapter, plan, cache, new=prompt_length):
        model(inputs_embeds=..., past_key_values=cache, ...)
"""

from otprune.hf.layers.adapter import DecoderAdapter, decoder_shape
from otprune.hf.layers.decoders import ADAPTERS
from otprune.hf.layers.hooks import install_hooks, layer_run
from otprune.hf.layers.plan import BatchLayout, LayerPlan
from otprune.hf.layers.prefill import PrefillRun
from otprune.hf.layers.rows import Side

__all__ = [
    "ADAPTERS",
    "BatchLayout",
    "DecoderAdapter",
    "LayerPlan",
    "PrefillRun",
    "Side",
    "decoder_shape",
    "install_hooks",
    "layer_run",
]
