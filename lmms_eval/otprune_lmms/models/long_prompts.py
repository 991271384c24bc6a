"""Prompts far longer than a model takes are cut before they are tokenised and embedded.

The model itself cuts what does not fit, but only after all of it has become embeddings: a question
of 100 000 letters would take gigabytes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PromptBound:
    """Cuts prompts whose ends no model could read; whatever fits is unchanged.

    Attributes:
        positions: the most positions that the model takes.
        tokenizer: its tokenizer.
        image: an image's place in the text.
        image_id: an image's place among the ids.
    """

    positions: int
    tokenizer: Any
    image: str
    image_id: int

    @cached_property
    def letters(self) -> int:
        """More letters than any text of ``positions`` tokens has."""
        return (self.positions + 64) * max(map(len, self.tokenizer.get_vocab()))

    def text(self, text: str) -> str:
        """Return a text's beginning, which has more tokens than fit, and all of its images."""
        if len(text) <= self.letters:
            return text
        kept = text[: self.letters]
        return kept + self.image * (text.count(self.image) - kept.count(self.image))

    def ids(self, ids: Tensor) -> Tensor:
        """Return ids [t] cut to one more than fits, so that the cut is seen, and all images."""
        last = self.positions + 1
        if len(ids) <= last:
            return ids
        rest = ids[last:]
        return torch.cat([ids[:last], rest[rest == self.image_id]])
