"""What one prefill does: tokens of each layer, FLOPs that torch counts, keys and values left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from llava.constants import IMAGE_TOKEN_INDEX
from otprune.cost import Convention, prefill_multiply_adds
from otprune.hf.layers import decoder_shape
from otprune.pruning import Pruning, Trace
from otprune_lmms.engine.generation import Row, counted, padding_id
from otprune_lmms.engine.prompts import padded


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Return the operations of attention between tensors of three shapes, the mask left out."""
    return sdpa_flop_count(query, key, value)


# The CPU's fused attention, which torch has no formula for; counted as that of a GPU.
_ALSO = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


@dataclass(frozen=True, slots=True)
class Counted:
    """One prefill of a batch; all sums over its rows.

    Attributes:
        visual: visual tokens before any pruning.
        kept: visual tokens left after the last pruning.
        text: text tokens, the template's included.
        kv_bytes: of the keys and values it leaves, padding included.
        flops: floating-point operations of matrix products, convolutions and attention, padding,
            output head and selection included; a multiply-add is two.
        multiply_adds: of the decoder by a formula of `otprune.cost`, each layer with the tokens
            that entered it; padding, selection and output head are not in it.
    """

    visual: int
    kept: int
    text: int
    kv_bytes: int
    flops: int
    multiply_adds: int


def counted_flops(work: Callable[[], Any]) -> tuple[Any, int]:
    """Return what ``work`` returns and the floating-point operations that torch counts in it."""
    with FlopCounterMode(display=False, custom_mapping=_ALSO) as counter:
        found = work()
    return found, counter.get_total_flops()


def count_prefill(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    pruning: Pruning | None,
    convention: Convention,
) -> Counted:
    """Return what one prefill of a batch does; nothing of it is timed."""
    trace = Trace()
    ids, mask = padded([row.ids for row in rows], padding_id(tokenizer))

    def prefill() -> Any:
        return model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            visual=[image for row in rows for image in row.visual],
            image_ids=[number for row in rows for number in row.image_ids],
            pruning=pruning,
            trace=trace,
            logits_to_keep=1,
            use_cache=True,
        )

    output, flops = counted_flops(prefill)
    tokens = counted(rows, trace)
    shape = decoder_shape(model.config)
    cache = output.past_key_values.layers
    return Counted(
        visual=sum(sum(candidates) for _, candidates in tokens),
        kept=sum(sum(kept) for kept, _ in tokens),
        text=sum(int((row.ids != IMAGE_TOKEN_INDEX).sum()) for row in rows),
        kv_bytes=sum(layer.keys.nbytes + layer.values.nbytes for layer in cache),
        flops=flops,
        multiply_adds=sum(
            prefill_multiply_adds(shape, list(layers), convention)
            for layers in zip(*trace.lengths, strict=True)
        ),
    )
