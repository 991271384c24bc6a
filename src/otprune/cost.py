"""What a decoder costs: multiply-adds of prefill and decoding, bytes of the key-value cache.

Published tables of this field count multiply-adds and call them FLOPs. This module counts the same
and calls them multiply-adds; floating-point operations are twice as many. Two conventions are in
use (n tokens in a layer, d hidden size, m width of the feed-forward network):

- ``2ndm``: 4nd² + 2n²d + 2ndm a layer; FastV, DivPrune, OTPrune.
- ``3ndm``: 4nd² + 2n²d + 3ndm a layer, for LLaMA's gated network; SparseVLM, PyramidDrop,
  TransPrune.

Both leave out embeddings, norms, the output head, the vision encoder and the pruning itself, and
count attention as if keys and values had d channels, which grouped queries do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from otprune.checks import check_choice, check_count

Convention = Literal["2ndm", "3ndm"]
_FEED_FORWARD_FACTOR = {"2ndm": 2, "3ndm": 3}


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes of a language model's decoder.

    Attributes:
        hidden: d, channels of the residual stream.
        feed_forward: m, channels inside the feed-forward network.
        layers: number of decoder layers.
        heads: query heads.
        kv_heads: key and value heads; None if there are as many as query heads.
        head_dim: channels of a head; hidden / heads if not given.
    """

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int | None = None
    head_dim: int | None = None

    def __post_init__(self) -> None:
        """Check that all sizes are counts and that heads divide the hidden size."""
        for name in ("hidden", "feed_forward", "layers", "heads"):
            check_count(name, getattr(self, name), least=1)
        for name in ("kv_heads", "head_dim"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=1)
        if self.head_dim is None and self.hidden % self.heads:
            raise ValueError(f"heads must divide hidden = {self.hidden}, got {self.heads}")

    @property
    def kv_channels(self) -> int:
        """Channels of one token's keys in one layer; its values have as many."""
        head_dim = self.head_dim or self.hidden // self.heads
        return (self.kv_heads or self.heads) * head_dim


VICUNA_7B = DecoderShape(hidden=4096, feed_forward=11008, layers=32, heads=32)
VICUNA_13B = DecoderShape(hidden=5120, feed_forward=13824, layers=40, heads=40)


def prefill_multiply_adds(
    shape: DecoderShape, tokens: int | Sequence[int], convention: Convention
) -> int:
    """Return the multiply-adds of one prefill.

    Args:
        shape: the decoder.
        tokens: text and visual tokens that a layer processes; one number for all layers, or one for
            each.
        convention: "2ndm" or "3ndm", see the start of this file.

    Raises:
        ValueError: a count below 0, not one count for each layer, an unknown convention.
    """
    factor = _feed_forward_factor(convention)
    d, m = shape.hidden, shape.feed_forward
    return sum(
        4 * n * d * d + 2 * n * n * d + factor * n * d * m for n in _per_layer(shape, tokens)
    )


def decode_multiply_adds(
    shape: DecoderShape, cached: int | Sequence[int], new: int, convention: Convention
) -> int:
    """Return the multiply-adds of decoding ``new`` tokens one by one after a prefill.

    ``cached`` is the number of tokens in each layer's cache before. The i-th new token attends to
    cached + i keys, itself included: 4d² + 2(cached + i)d + 2dm or 3dm in each layer.

    Raises:
        ValueError: as `prefill_multiply_adds`; ``new`` below 0.
    """
    factor = _feed_forward_factor(convention)
    check_count("new", new)
    d, m = shape.hidden, shape.feed_forward
    fixed = 4 * d * d + factor * d * m
    return sum(
        new * fixed + 2 * d * (new * c + new * (new + 1) // 2) for c in _per_layer(shape, cached)
    )


def kv_cache_bytes(
    shape: DecoderShape, tokens: int | Sequence[int], bytes_per_element: int = 2
) -> int:
    """Return the bytes of keys and values of one sequence; 2 bytes an element is half precision.

    Raises:
        ValueError: a count below 0, not one count for each layer.
    """
    check_count("bytes_per_element", bytes_per_element, least=1)
    return sum(2 * n * shape.kv_channels * bytes_per_element for n in _per_layer(shape, tokens))


def _feed_forward_factor(convention: str) -> int:
    check_choice("convention", convention, tuple(_FEED_FORWARD_FACTOR))
    return _FEED_FORWARD_FACTOR[convention]


def _per_layer(shape: DecoderShape, tokens: int | Sequence[int]) -> Sequence[int]:
    counts = [tokens] * shape.layers if isinstance(tokens, int) else tokens
    if len(counts) != shape.layers:
        raise ValueError(
            f"tokens must have one count for each of {shape.layers} layers, got {len(counts)}"
        )
    for count in counts:
        check_count("tokens", count)
    return counts
