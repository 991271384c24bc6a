"""Sizes of the language model's decoder."""

from typing import Any

from otprune.cost import DecoderShape


def decoder_shape(config: Any) -> DecoderShape:
    """Return the sizes that a model configuration names."""
    return DecoderShape(
        hidden=config.hidden_size,
        feed_forward=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=getattr(config, "num_key_value_heads", None),
        head_dim=getattr(config, "head_dim", None),
    )
