"""What methods may ask about the question of a prompt, made only for those that ask; names."""

import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from llava.model.devices import execution_device
from otprune import Signals
from otprune.signals import TEXT_SIGNALS


class Question:
    """The question of one prompt; what is asked for is made once.

    Args:
        model: a `LlavaMetaForCausalLM`.
        ids: ids of the question's tokens.
        hidden: their hidden states, inside the language model.
    """

    def __init__(self, model: Any, ids: Int64[Tensor, " t"], hidden: Tensor | None = None) -> None:
        self.model, self.ids, self.hidden = model, ids, hidden

    def inside(self, hidden: Tensor) -> "Question":
        """Return the question as a layer inside the language model sees it."""
        return Question(self.model, self.ids, hidden)

    @cached_property
    def text_embeddings(self) -> Tensor:
        """Embeddings of the question's tokens; where there are hidden states, those."""
        if self.hidden is not None:
            return self.hidden
        embed = self.model.get_model().embed_tokens
        return embed(self.ids.to(execution_device(embed)))

    @cached_property
    def question(self) -> str:
        """The question as text."""
        return self._tools.question(self.ids)

    @cached_property
    def embed_words(self) -> Any:
        """What embeds words."""
        return partial(self._tools.embed_words, embed=self.model.get_model().embed_tokens)

    @cached_property
    def clip_text(self) -> Tensor:
        """The question in CLIP's space."""
        return self._tools.clip_text(self.question)

    @property
    def _tools(self) -> Any:
        tools = self.model.text_tools
        if tools is None:
            raise ValueError(
                "question, embed_words and clip_text need a tokenizer, which comes with "
                "load_pretrained_model"
            )
        return tools


def question_signals(
    image: Signals, needs: frozenset[str], question: Question, image_id: int | None
) -> Signals:
    """Return what is known about an image together with what ``needs`` ask about the question."""
    asked = {name: getattr(question, name) for name in sorted(needs & TEXT_SIGNALS)}
    return replace(image, image_id=image_id, **asked)


def names_of(image_ids: Sequence[int | None] | None, images: int) -> list[int | None]:
    """Return one name for each image, as Python's integers."""
    names = [None] * images if image_ids is None else list(image_ids)
    if len(names) != images:
        raise ValueError(
            f"image_ids must have one entry for each of {images} images, got {len(names)}"
        )
    return [None if name is None else operator.index(name) for name in names]
