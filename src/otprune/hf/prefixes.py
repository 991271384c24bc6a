"""Prompts that begin alike: the beginning goes through the language model once for all of them.

Under a causal mask nothing that stands later changes what stands before, so the keys and values of
a prefix are the same whatever follows. They are computed once and repeated for each prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_BY_LENGTH = ("dynamic", "longrope")
"""Kinds of rotary angles that depend on the length of the whole prompt."""


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Prefixes of prompts that a language model has read.

    Attributes:
        cache: their keys and values.
        mask: which cached positions are no padding, [p t].
        following: rotary position of the id that follows each prefix: [p]; or [m p] with axes.
    """

    cache: DynamicCache
    mask: Bool[Tensor, "p t"]
    following: Int64[Tensor, " p"] | Int64[Tensor, "m p"]

    def continued(
        self, suffixes: Sequence[Int64[Tensor, " s"]], prefix_of: Sequence[int], padding: int
    ) -> dict[str, Any]:
        """Return the arguments of `forward` or `generate` that read the rest of each prompt.

        Suffixes are padded on the left, so that padding may stand between a prefix and its suffix,
        where the mask hides it. The cache is changed, so this can be done once.

        Args:
            suffixes: the rest of each prompt, one or more ids without images.
            prefix_of: number of each prompt's prefix.
            padding: id at padding.
        """
        device = self.mask.device
        longest = max(map(len, suffixes))
        ids = torch.full((len(suffixes), longest), padding, dtype=torch.long)
        valid = torch.zeros_like(ids, dtype=torch.bool)
        for row, suffix in enumerate(suffixes):
            ids[row, longest - len(suffix) :] = suffix
            valid[row, longest - len(suffix) :] = True
        valid = valid.to(device)
        rows = torch.tensor(prefix_of, device=device)
        self.cache.batch_select_indices(rows)
        steps = (valid.long().cumsum(1) - 1).clamp(min=0)
        positions = self.following.to(device)[..., rows, None] + steps
        return {
            "input_ids": ids.to(device),
            "attention_mask": torch.cat([self.mask[rows], valid], dim=1).long(),
            "position_ids": positions.masked_fill(~valid, 0),
            "past_key_values": self.cache,
        }


def keeps_prefixes(config: Any) -> bool:
    """Return whether a causal decoder's keys and values of a prefix hold whatever follows it.

    They do not where layers have a window, or a state instead of keys, or where rotary angles
    depend on the length of the whole prompt (``rope_type`` dynamic and longrope).

    Args:
        config: the decoder's, or that of the model around it.
    """
    layers = DynamicCache(config=config).layers
    parameters = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    # One set of parameters, or one for each kind of layer.
    kinds = [one for one in parameters.values() if isinstance(one, dict)] or [parameters]
    by_length = any(one.get("rope_type") in _BY_LENGTH for one in kinds)
    return all(type(layer) is DynamicLayer for layer in layers) and not by_length
