"""Prune as the released forks do, mistakes included, for comparison with their numbers.

The forks of OTPrune (3414730) and DivPrune (799e2d9) prune the finished batch:

- the block of positions 35 to 35 + n, whatever it holds: 35 is where the image of a vicuna_v1
  prompt starts, so with another template text competes with image tokens and is dropped;
- with the n and the selection of row 0 for all rows;
- once, so further images stay whole;
- after rows have been cut to ``tokenizer_model_max_length``;
- at layer 0 only: any other ``LAYER_INDEX`` prunes nothing.

`prune_as_released` is used under ``compat="reference"`` only.
"""

import dataclasses

import torch
from jaxtyping import Int64
from torch import Tensor

from llava.model.splice import Spliced
from otprune import Selector, resolve_budget
from otprune.greedy.reference import greedy_reference
from otprune.pruning import Stage

TEXT_BEFORE_IMAGE = 35


def greedy_select(
    kernel_matrix: Tensor,
    max_length: int,
    item_size: int | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    epsilon: float | None = None,
) -> list[int]:
    """Return ``max_length`` greedy picks of a full kernel matrix, in the order of picking.

    The released code's function with its arguments: ``dtype`` is that of the Cholesky rows;
    ``item_size``, ``device`` and ``epsilon`` are not used. Picks never repeat.
    """
    return greedy_reference(kernel_matrix, max_length, dtype).order.tolist()


def prune_as_released(batch: Spliced, stage: Stage, n: int) -> tuple[Spliced, Int64[Tensor, " k"]]:
    """Return a batch as the released forks prune it, and what they keep of the block.

    Kept positions are counted from the block's start, in the order in which they enter the model.

    Args:
        batch: the whole batch, unpruned and padded on the right.
        stage: method and budget.
        n: visual tokens of the first image of the batch.

    Raises:
        ValueError: the block reaches beyond the batch, which is an exception in the forks, too.
    """
    length = batch.embeds.shape[1]
    first, last = TEXT_BEFORE_IMAGE, TEXT_BEFORE_IMAGE + n
    if last > length:
        raise ValueError(
            f"compat='reference' prunes positions {first} to {last}, the batch has {length}"
        )
    budget = resolve_budget(n, keep_ratio=stage.keep_ratio, k=stage.k)
    block = batch.embeds[0, first:last]
    if not isinstance(stage.method, Selector):
        raise ValueError(f"compat='reference' knows selectors only, got {stage.method!r}")
    kept = stage.method.select_batch([block], k=[budget])[0].cpu()
    keep = torch.cat([torch.arange(first), kept + first, torch.arange(last, length)])
    valid = batch.attention_mask[:, keep.to(batch.attention_mask.device)]
    place = (valid.cumsum(1) - 1).masked_fill(~valid, 0)
    labels = None if batch.labels is None else batch.labels[:, keep.to(batch.labels.device)]
    pruned = dataclasses.replace(
        batch,
        embeds=batch.embeds[:, keep.to(batch.embeds.device)],
        attention_mask=valid,
        position_ids=place,
        labels=labels,
        image_of=batch.image_of[:, keep],
        token_of=batch.token_of[:, keep],
        question=batch.question[:, keep],
        answer=batch.answer[:, keep],
        lengths=valid.sum(1).tolist(),
    )
    return pruned, kept
