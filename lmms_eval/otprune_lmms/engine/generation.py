"""Answers to a batch of questions under one config."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from otprune.pruning import Pruning, Trace
from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.engine.identity import Generation
from otprune_lmms.engine.prompts import padded

Selecting = Callable[[], AbstractContextManager[None]]
"""Is entered around all that chooses or merges tokens, to take its time."""


@dataclass(frozen=True, slots=True)
class Row:
    """One question, ready for the model.

    Attributes:
        ids: of the prompt, [t]; for a loglikelihood with the continuation.
        visual: tokens of each image.
        image_ids: numbers that name the images.
        seed: of what is drawn in this row.
        answer: ids at the end that are the continuation; 0 where an answer is to be written.
    """

    ids: Tensor
    visual: tuple[ImageTokens, ...]
    image_ids: tuple[int, ...]
    seed: int = 0
    answer: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """What came out for one row.

    Attributes:
        text: the answer, cut at the first of the texts that end it.
        tokens: tokens written, the end included.
        kept: tokens of each image that were left.
        candidates: tokens of each image before any pruning.
    """

    text: str
    tokens: int
    kept: tuple[int, ...]
    candidates: tuple[int, ...]


class StopAt(StoppingCriteria):
    """Ends each row once it has written one of some texts.

    Looks at the last tokens only: a text that is complete now ends with the newest one.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Any) -> None:
        self.texts = texts
        self.tokenizer = tokenizer
        # A token is at least a byte; a few more for what stands around the text.
        self.last = max(len(text.encode()) for text in texts) + 4

    def __call__(  # type: ignore[override]
        self, output_ids: Tensor, scores: Tensor, **kwargs: object
    ) -> Tensor:
        """Return for each row whether it has ended, [b]."""
        ends = self.tokenizer.batch_decode(output_ids[:, -self.last :], skip_special_tokens=True)
        done = [any(text in end for text in self.texts) for end in ends]
        return torch.tensor(done, device=output_ids.device)


def cut(text: str, until: Sequence[str]) -> str:
    """Return a text up to the first place where one of ``until`` begins."""
    places = [place for place in (text.find(one) for one in until) if place >= 0]
    return text[: min(places)] if places else text


def write(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    pruning: Pruning | None,
    generation: Generation,
    *,
    use_cache: bool = True,
    selecting: Selecting | None = None,
) -> list[Written]:
    """Return the answers to rows, all in one call of the model."""
    padding = padding_id(tokenizer)
    ids, mask = padded([row.ids for row in rows], padding)
    device, trace = model.device, Trace(watch=selecting)
    criteria = StoppingCriteriaList()
    if generation.until:
        criteria.append(StopAt(generation.until, tokenizer))
    output = model.generate(
        ids.to(device),
        attention_mask=mask.to(device),
        visual=[image for row in rows for image in row.visual],
        image_ids=[number for row in rows for number in row.image_ids],
        pruning=pruning,
        trace=trace,
        pad_token_id=padding,
        stopping_criteria=criteria,
        do_sample=generation.samples,
        temperature=generation.temperature,
        top_p=generation.top_p,
        num_beams=generation.num_beams,
        max_new_tokens=generation.max_new_tokens,
        use_cache=use_cache,
    ).cpu()
    texts = tokenizer.batch_decode(output, skip_special_tokens=True)
    counts = counted(rows, trace)
    return [
        Written(cut(text, generation.until), _written(row, padding), *count)
        for text, row, count in zip(texts, output, counts, strict=True)
    ]


def padding_id(tokenizer: Any) -> int:
    """Return the id that rows are padded with."""
    padding = tokenizer.pad_token_id
    return tokenizer.eos_token_id if padding is None else padding


def counted(rows: Sequence[Row], trace: Trace) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return for each row what was left of each image, and what each image had."""
    left = [len(image) for row in rows for image in row.visual]
    for layer in sorted(trace.kept):
        # Under compat="reference" there is one entry, for the first image.
        for number, kept in enumerate(trace.kept[layer]):
            left[number] = len(kept)
    found, first = [], 0
    for row in rows:
        last = first + len(row.visual)
        found.append((tuple(left[first:last]), tuple(len(image) for image in row.visual)))
        first = last
    return found


def _written(row: Tensor, padding: int) -> int:
    other = (row != padding).nonzero()
    return int(other[-1]) + 1 if len(other) else 0
