"""LLaVA-1.6 (LLaVA-NeXT) and LLaVA-OneVision: one piece an image, its tiles put together.

Rows of the tiles' raster end with the model's ``image_newline`` vector. By default these rows are
candidates like patches, as in the released code of the methods; ``keep_newlines`` keeps them all.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from otprune.hf.families.family import Family


class LlavaNext(Family):
    """LLaVA-NeXT, LLaVA-NeXT-Video and LLaVA-OneVision."""

    def newline(self, tokens: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Return which tokens are the newline vector.

        The layout of tiles is not given beside the tokens, but the vector is put in unchanged, and
        no projected patch equals it in every channel.
        """
        vector = getattr(self.base, "image_newline", None)
        if vector is None:
            return super().newline(tokens)
        with torch.no_grad():
            return (tokens == vector.to(tokens)).all(-1).cpu()

    def frames(self, part: int, n: int, inputs: Mapping[str, Any]) -> list[int] | None:
        """Return the tokens of each frame; a newline vector at a video's end is of the last one."""
        pixels = inputs.get("pixel_values_videos")
        if pixels is None:
            return None
        count = int(pixels.shape[1])
        sizes = [n // count] * count
        sizes[-1] += n % count
        return sizes if n % count in (0, 1) else None
