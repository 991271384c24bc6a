"""The prompts of a batch: where visual tokens stand, and where what is kept comes from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from otprune.hf.layers import Side
from otprune.hf.layers.rows import stacked


@dataclass(frozen=True, slots=True)
class Layout:
    """What each position is, see `otprune.hf.layers.BatchLayout`; [b t] each, on the CPU."""

    image_of: Int64[Tensor, "b t"]
    token_of: Int64[Tensor, "b t"]
    question: Bool[Tensor, "b t"]
    answer: Bool[Tensor, "b t"]


@dataclass(frozen=True, slots=True)
class PrunedRows:
    """A batch with fewer positions.

    Attributes:
        index: which unpruned position each one comes from, 0 at padding.
        valid: which are no padding.
        layout: what they are.
    """

    index: Int64[Tensor, "b u"]
    valid: Bool[Tensor, "b u"]
    layout: Layout


class Prompts:
    """The unpruned prompts of a batch, on the CPU.

    Args:
        ids: token ids, [b t].
        mask: which are no padding.
        places: for each unit the row and the columns of its placeholders.
        labels: which ids are a given answer; None if there are none.
    """

    def __init__(
        self,
        ids: Int64[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
        places: Sequence[tuple[int, Int64[Tensor, " n"]]],
        labels: Int64[Tensor, "b t"] | None,
    ) -> None:
        self.ids, self.mask, self.places = ids, mask, places
        image_of, token_of = torch.full_like(ids, -1), torch.full_like(ids, -1)
        for unit, (row, columns) in enumerate(places):
            image_of[row, columns] = unit
            token_of[row, columns] = torch.arange(len(columns))
        is_visual = image_of >= 0
        last = torch.where(is_visual, torch.arange(ids.shape[1]), -1).amax(1, keepdim=True)
        after = (torch.arange(ids.shape[1]) > last) & mask
        question = after
        if labels is not None:
            unlabelled = labels == -100
            # If all text is labelled, labels do not tell an answer from a question.
            if bool((unlabelled & mask & ~is_visual).any()):
                question = after & unlabelled
        self.layout = Layout(image_of, token_of, question, after & ~question)

    def question(self, row: int) -> Int64[Tensor, " q"]:
        """Return the ids of the text after the last image or video of a prompt."""
        return self.ids[row][self.layout.question[row]]

    def unpruned(self) -> PrunedRows:
        """Return the batch as it is."""
        index = torch.arange(self.ids.shape[1]).expand(len(self.ids), -1)
        return PrunedRows(index, self.mask, self.layout)

    def pruned(self, kept: Sequence[Int64[Tensor, " k"]], side: Side) -> PrunedRows:
        """Return the batch without what is dropped.

        Tokens of a unit stand in the order that its method returns, at the places of those that are
        kept. A new token that takes no single token's place stands at the unit's first place.

        Args:
            kept: for each unit the numbers of its tokens that stay, -1 for a new token.
            side: where shorter rows are padded.
        """
        source: list[list[Tensor]] = [[] for _ in self.ids]
        order: list[list[Tensor]] = [[] for _ in self.ids]
        number: list[list[Tensor]] = [[] for _ in self.ids]
        for row, mask in enumerate(self.mask):
            text = (mask & (self.layout.image_of[row] < 0)).nonzero()[:, 0]
            source[row].append(text)
            order[row].append(text)
            number[row].append(torch.full_like(text, -1))
        for keep, (row, columns) in zip(kept, self.places, strict=True):
            places = keep.clamp(min=0)
            source[row].append(columns[places])
            order[row].append(columns[places.sort().values])
            new = torch.arange(len(keep)) + len(columns)
            number[row].append(torch.where(keep < 0, new, keep))
        picks, numbers = [], []
        for row in range(len(self.ids)):
            # Text and each unit are ascending already; a stable sort keeps a unit's own order.
            sorted_to = torch.cat(order[row]).argsort(stable=True)
            picks.append(torch.cat(source[row])[sorted_to])
            numbers.append(torch.cat(number[row])[sorted_to])
        index, valid = stacked(picks, side)
        token_of, _ = stacked(numbers, side)
        layout = Layout(
            self.layout.image_of.gather(1, index).masked_fill(~valid, -1),
            token_of.masked_fill(~valid, -1),
            self.layout.question.gather(1, index) & valid,
            self.layout.answer.gather(1, index) & valid,
        )
        return PrunedRows(index, valid, layout)
