"""Put visual tokens where ``<image>`` stands, for a batch of any prompts.

The batch is planned on the host as row numbers into one pool of vectors, from which a single gather
makes it. So an image may stand anywhere, and no arithmetic touches the vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from otprune.hf.layers import BatchLayout, Side
from otprune.pruning import Positions


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """One row of a batch without its padding, on the CPU.

    Attributes:
        ids: token ids; `IMAGE_TOKEN_INDEX` stands for an image.
        labels: one for each id, if given.
        images: numbers of its images in the batch, in order.
        answer: ids at the end that are a given answer.
    """

    ids: Int64[Tensor, " t"]
    labels: Int64[Tensor, " t"] | None
    images: range
    answer: int = 0

    def question(self) -> Bool[Tensor, " t"]:
        """Return which ids are text after the last image; all of them if there is no image.

        A given answer and ids with a label are left out, since nothing may be chosen by them.
        """
        places = (self.ids == IMAGE_TOKEN_INDEX).nonzero()[:, 0]
        is_question = torch.ones(len(self.ids), dtype=torch.bool)
        if len(places):
            is_question[: int(places[-1]) + 1] = False
        if self.answer:
            is_question[-self.answer :] = False
        if self.labels is not None:
            unlabelled = self.labels == IGNORE_INDEX
            # If all text is labelled, labels do not tell an answer from a question.
            if (unlabelled & (self.ids != IMAGE_TOKEN_INDEX)).any():
                is_question &= unlabelled
        return is_question

    def answered(self) -> Bool[Tensor, " t"]:
        """Return which ids after the last image are not the question: nothing is chosen by them."""
        places = (self.ids == IMAGE_TOKEN_INDEX).nonzero()[:, 0]
        given = ~self.question()
        given[: int(places[-1]) + 1 if len(places) else 0] = False
        return given


@dataclass(frozen=True, slots=True)
class Spliced(BatchLayout):
    """A batch as it enters the language model.

    Attributes:
        embeds: vectors, 0 at padding; [b t d].
        labels: `IGNORE_INDEX` at images and padding; None if none were given.
        lengths: positions of each row that are no padding.
        truncated: positions cut off the end of each row.
    """

    embeds: Float[Tensor, "b t d"]
    labels: Int64[Tensor, "b t"] | None
    lengths: list[int]
    truncated: list[int]


def split_prompts(
    input_ids: Int64[Tensor, "b t"],
    attention_mask: Tensor | None,
    labels: Int64[Tensor, "b t"] | None,
    images: int,
    answers: Sequence[int] | None = None,
) -> list[PromptTokens]:
    """Return the rows of a batch without padding, each with its share of ``images`` images.

    Args:
        input_ids: with `IMAGE_TOKEN_INDEX` where an image goes.
        attention_mask: which ids are no padding.
        labels: one for each id.
        images: how many there are.
        answers: ids at the end of each row that are a given answer.

    Raises:
        ValueError: shapes that do not fit, a row of padding alone, not one image for each
            placeholder, not one answer for each row.
    """
    if answers is not None and len(answers) != len(input_ids):
        raise ValueError(
            f"answer_lengths must have one entry for each of {len(input_ids)} rows, "
            f"got {len(answers)}"
        )
    if input_ids.ndim != 2:
        raise ValueError(f"input_ids must be [b t], got shape {tuple(input_ids.shape)}")
    for name, given in (("attention_mask", attention_mask), ("labels", labels)):
        if given is not None and given.shape != input_ids.shape:
            raise ValueError(
                f"{name} must have the shape of input_ids {tuple(input_ids.shape)}, "
                f"got {tuple(given.shape)}"
            )
    ids = input_ids.cpu()
    valid = torch.ones_like(ids, dtype=torch.bool)
    if attention_mask is not None:
        valid = attention_mask.cpu().bool()
    targets = None if labels is None else labels.cpu()
    prompts, first = [], 0
    for row in range(len(ids)):
        mine = ids[row][valid[row]]
        if len(mine) == 0:
            raise ValueError(f"row {row} of input_ids holds nothing but padding")
        count = int((mine == IMAGE_TOKEN_INDEX).sum())
        target = None if targets is None else targets[row][valid[row]]
        answer = 0 if answers is None else answers[row]
        prompts.append(PromptTokens(mine, target, range(first, first + count), answer))
        first += count
    if first != images:
        raise ValueError(
            f"images must have one entry for each <image> of the prompts: "
            f"{first} in {len(prompts)} prompts, got {images} images"
        )
    return prompts


def splice(
    prompts: Sequence[PromptTokens],
    embed: Callable[[Tensor], Tensor],
    visual: Sequence[Float[Tensor, "k d"]],
    kept: Sequence[Int64[Tensor, " k"]],
    sizes: Sequence[int],
    *,
    positions: Positions,
    side: Side,
    max_length: int | None,
    device: torch.device,
) -> Spliced:
    """Return the batch with the kept tokens of each image in the place of its placeholder.

    Args:
        prompts: rows, see `split_prompts`.
        embed: vectors of token ids.
        visual: tokens of each image that enter, in that order.
        kept: for each image the numbers of these tokens before pruning, -1 for a new token that
            takes no single token's place; on the CPU.
        sizes: number of tokens of each image before pruning.
        positions: see `Pruning.positions`.
        side: where shorter rows are padded.
        max_length: rows are cut to this length after pruning; None for no limit.
        device: of the batch.
    """
    text = torch.cat([prompt.ids[prompt.ids != IMAGE_TOKEN_INDEX] for prompt in prompts])
    pool = [embed(text.to(device))]
    pool += [tokens.to(pool[0]) for tokens in visual]
    vectors = torch.cat([*pool, pool[0].new_zeros(1, pool[0].shape[1])])
    first_visual = len(text)
    starts = torch.tensor([0, *(len(keep) for keep in kept)]).cumsum(0) + first_visual
    rows, first_text = [], 0
    for prompt in prompts:
        row = _row(prompt, first_text, starts, sizes, kept)
        first_text += len(prompt.ids) - len(prompt.images)
        rows.append(row)
    truncated = [max(0, row.shape[1] - (max_length or row.shape[1])) for row in rows]
    rows = [row[:, :max_length] for row in rows]
    lengths = [row.shape[1] for row in rows]
    fill = torch.tensor([len(vectors) - 1, 0, -1, -1, IGNORE_INDEX, 0, 0])
    batch = torch.stack([_padded(row, max(lengths), fill, side) for row in rows])
    source, place, image_of, token_of, labels, question, answer = batch.unbind(1)
    valid = source != len(vectors) - 1
    if positions == "compact":
        place = (valid.cumsum(1) - 1).masked_fill(~valid, 0)
    return Spliced(
        embeds=vectors[source.to(vectors.device)],
        attention_mask=valid.to(device),
        position_ids=place.to(device),
        labels=None if prompts[0].labels is None else labels.to(device),
        image_of=image_of,
        token_of=token_of,
        question=question.bool(),
        answer=answer.bool(),
        lengths=lengths,
        truncated=truncated,
        side=side,
    )


def _row(
    prompt: PromptTokens,
    first_text: int,
    starts: Int64[Tensor, " i"],
    sizes: Sequence[int],
    kept: Sequence[Tensor],
) -> Int64[Tensor, "7 t"]:
    """Return as columns: pool row, place, image, token, label, question, answer."""
    labels = torch.full_like(prompt.ids, IGNORE_INDEX) if prompt.labels is None else prompt.labels
    question, answer = prompt.question().long(), prompt.answered().long()
    parts, text, place, at = [], first_text, 0, 0
    for image in [*prompt.images, None]:
        ends = len(prompt.ids)
        if image is not None:
            ends = at + int((prompt.ids[at:] == IMAGE_TOKEN_INDEX).nonzero()[0, 0])
        count = ends - at
        run = torch.arange(count)
        none = torch.full((count,), -1)
        parts.append(
            torch.stack(
                [
                    *(run + text, run + place, none, none),
                    *(labels[at:ends], question[at:ends], answer[at:ends]),
                ]
            )
        )
        text, place, at = text + count, place + count, ends + 1
        if image is not None:
            keep = kept[image]
            rows = torch.arange(len(keep)) + starts[image]
            image_of = torch.full_like(keep, image)
            ignore, no = torch.full_like(keep, IGNORE_INDEX), torch.zeros_like(keep)
            # A token that takes no token's place stands where the image begins, numbered beyond it.
            numbers = torch.where(keep < 0, torch.arange(len(keep)) + sizes[image], keep)
            parts.append(
                torch.stack([rows, keep.clamp(min=0) + place, image_of, numbers, ignore, no, no])
            )
            place += sizes[image]
    return torch.cat(parts, dim=1)


def _padded(row: Tensor, length: int, fill: Tensor, side: Side) -> Tensor:
    padding = fill[:, None].expand(-1, length - row.shape[1])
    return torch.cat([padding, row] if side == "left" else [row, padding], dim=1)
