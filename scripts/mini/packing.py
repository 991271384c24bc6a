"""Lessons as sequences: many questions share one image, and none of them sees another.

Each turn continues the image as if it were the only one, in mask and in rotary position: training
on sixteen turns of a scene takes one pass over its visual tokens and teaches what sixteen prompts
would.
"""

from dataclasses import dataclass

import numpy as np
import torch
from formats import Turn
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.mm_utils import tokenizer_image_token
from llava.tokenizer import LlavaTokenizer
from torch import Tensor

IGNORED = -100


@dataclass(frozen=True)
class Packed:
    """A batch of lessons; t counts prefix, visual tokens and text.

    Attributes:
        ids: text tokens, [b t]; 0 where a visual token or padding stands.
        labels: what comes next, [b t]; `IGNORED` wherever nothing is taught.
        positions: rotary positions, [b t]; [3 b t] where they have a time, a row and a column.
        mask: what a position may look at, [b 1 t t].
        visual: the columns of the visual tokens.
        families: family of each turn, and the columns that predict its answer, by row.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    mask: Tensor
    visual: slice
    families: list[list[tuple[str, slice]]]


class Packer:
    """Turns lessons into batches for a tokenizer and a number of visual tokens.

    Args:
        tokenizer: the model's.
        visual: visual tokens of an image.
        full: visual tokens at the size that is evaluated; fewer are spread over its positions.
    """

    def __init__(self, tokenizer: LlavaTokenizer, visual: int, full: int) -> None:
        self.tokenizer = tokenizer
        self.visual = visual
        prompt = self._prompt("")
        self.prefix = prompt[: prompt.index(IMAGE_TOKEN_INDEX)]
        side, full_side = int(visual**0.5), int(full**0.5)
        step = full_side // side
        rows = np.arange(side) * step
        grid = rows[:, None] * full_side + rows[None]
        self.head = np.concatenate([np.arange(len(self.prefix)), len(self.prefix) + grid.ravel()])
        self.start = len(self.prefix) + full
        self.after: list[int] = []
        self._seen: dict[str, list[int]] = {}

    def _prompt(self, text: str) -> list[int]:
        conversation = conv_templates["vicuna_v1"].copy()
        conversation.append_message(conversation.roles[0], "<image>\n" + text)
        conversation.append_message(conversation.roles[1], None)
        return tokenizer_image_token(conversation.get_prompt(), self.tokenizer, IMAGE_TOKEN_INDEX)

    def _turn(self, turn: Turn) -> tuple[list[int], int]:
        """Return a turn's tokens and how many of them are the answer with its end."""
        asked = self._seen.get(turn.prompt)
        if asked is None:
            asked = self._asked(turn.prompt)
            if len(self._seen) < 200_000:
                self._seen[turn.prompt] = asked
        answer = self._answered(turn.answer)
        return [*asked, *answer], len(answer)

    def _asked(self, prompt: str) -> list[int]:
        """Return the tokens from the image to the answer."""
        tokens = self._prompt(prompt)
        return tokens[tokens.index(IMAGE_TOKEN_INDEX) + 1 :]

    def _answered(self, answer: str) -> list[int]:
        """Return the tokens of an answer and its end."""
        tokens = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        return [*tokens, self.tokenizer.eos_token_id]

    def _fitting(self, turns: list[Turn], text: int) -> list[Turn]:
        lengths = np.cumsum([len(self._turn(turn)[0]) for turn in turns])
        return turns[: int((lengths <= text).sum())]

    def pack(self, lessons: list[list[Turn]], text: int | None = None) -> Packed:
        """Return one batch, a row for each lesson.

        Args:
            lessons: turns of each row.
            text: tokens of text in each row; turns that do not fit are left out. Without it rows
                are as long as the longest. A fixed length is compiled once.
        """
        lessons = lessons if text is None else [self._fitting(turns, text) for turns in lessons]
        rows = [[self._turn(turn) for turn in lesson] for lesson in lessons]
        head = len(self.head)
        length = head + (text or max(sum(len(ids) for ids, _ in row) for row in rows))
        ids = np.zeros((len(rows), length), dtype=np.int64)
        labels = np.full_like(ids, IGNORED)
        positions = np.zeros_like(ids)
        mask = np.zeros((len(rows), length, length), dtype=bool)
        causal = np.tri(length, dtype=bool)
        mask[:, :head, :head] = causal[:head, :head]
        ids[:, : len(self.prefix)] = self.prefix
        ids[:, head - len(self.after) : head] = self.after
        positions[:, :head] = self.head
        families: list[list[tuple[str, slice]]] = []
        for i, row in enumerate(rows):
            at, spans = head, []
            for turn, (tokens, answer) in zip(lessons[i], row, strict=True):
                end = at + len(tokens)
                ids[i, at:end] = tokens
                labels[i, end - answer - 1 : end - 1] = tokens[-answer:]
                positions[i, at:end] = self.start + np.arange(len(tokens))
                mask[i, at:end, :head] = True
                mask[i, at:end, at:end] = causal[: end - at, : end - at]
                spans.append((turn.family, slice(end - answer - 1, end - 1)))
                at = end
            # A row of a softmax must see something.
            mask[i, np.arange(at, length), np.arange(at, length)] = True
            families.append(spans)
        return Packed(
            torch.from_numpy(ids),
            torch.from_numpy(labels),
            torch.from_numpy(positions),
            torch.from_numpy(mask)[:, None],
            slice(len(self.prefix), head - len(self.after)),
            families,
        )
