"""LLaVA-1.6 (LLaVA-NeXT) and LLaVA-OneVision: one piece an image, its tiles put together.

Rows of the tiles' raster end with the model's ``image_newline`` vector. By default these rows are
candidates like patches, as in the released code of the methods; ``keep_newlines`` keeps them all.
"""

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
