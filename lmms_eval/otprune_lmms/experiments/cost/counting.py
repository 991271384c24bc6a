"""Counts of one prefill: visual tokens, FLOPs that torch counts, bytes of keys and values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from otprune.compiled import without_loops
from otprune.cost import Convention, prefill_multiply_adds
from otprune.pruning import Pruning, Trace
from otprune_lmms.models.generation import kept_counts
from otprune_lmms.models.protocol import ModelInput, VisionLanguageModel


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Return the operations of attention from the shapes of query, key and value."""
    return sdpa_flop_count(query, key, value)


# torch has no formula for the CPU's fused attention; it is counted like a GPU's.
_ALSO = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of one prefill of a batch, summed over its rows.

    Attributes:
        visual: visual tokens before any pruning.
        kept: visual tokens after the last pruning.
        text: text tokens, the chat template's included.
        kv_bytes: bytes of keys and values after the prefill, padding included.
        flops: floating-point operations of matrix products, convolutions and attention, padding,
            output head and selection included; a multiply-add is two.
        multiply_adds: of the decoder by a formula of `otprune.cost`, each layer with the tokens
            that entered it; padding, selection and output head are not included.
    """

    visual: int
    kept: int
    text: int
    kv_bytes: int
    flops: int
    multiply_adds: int


def counted_flops(work: Callable[[], Any]) -> tuple[Any, int]:
    """Return what ``work`` returns and the floating-point operations that torch counts in it.

    Selection runs in torch, since what compiled loops do is not counted.
    """
    with without_loops(), FlopCounterMode(display=False, custom_mapping=_ALSO) as counter:
        found = work()
    return found, counter.get_total_flops()


def count_prefill(
    model: VisionLanguageModel,
    inputs: Sequence[ModelInput],
    text: int,
    pruning: Pruning | None,
    convention: Convention,
) -> Counted:
    """Run one prefill of a batch, and return its counts.

    Args:
        model: the model.
        inputs: the batch.
        text: text tokens of all its prompts, the chat template's included.
        pruning: what is pruned.
        convention: formula of the multiply-adds.
    """
    trace = Trace()
    kv_bytes, flops = counted_flops(lambda: model.prefill(inputs, pruning, trace))
    tokens = kept_counts(inputs, trace)
    return Counted(
        visual=sum(sum(candidates) for _, candidates in tokens),
        kept=sum(sum(kept) for kept, _ in tokens),
        text=text,
        kv_bytes=kv_bytes,
        flops=flops,
        multiply_adds=sum(
            prefill_multiply_adds(model.shape, list(layers), convention)
            for layers in zip(*trace.lengths, strict=True)
        ),
    )
