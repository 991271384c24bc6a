"""What a model can tell methods about the question of a prompt."""

import dataclasses
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor

from otprune.signals import TEXT_SIGNALS, Signals


class QuestionSignals(Protocol):
    """The question of one prompt: the text after the prompt's last image, without a given answer.

    Every model has a class of its own for this, which computes a signal only when it is read.
    """

    def signal(self, name: str) -> Any:
        """Return the value of one of the `Signals` fields that `TEXT_SIGNALS` names.

        Raises:
            ValueError: the model cannot give it.
        """
        ...

    def inside(self, hidden: Float[Tensor, "t d"]) -> "QuestionSignals":
        """Return the same question with the hidden states of its tokens at some layer.

        Its ``text_embeddings`` are these hidden states.
        """
        ...


def question_signals(
    image: Signals, needs: frozenset[str], question: QuestionSignals, image_id: int | None
) -> Signals:
    """Return an image's signals together with those of its question that ``needs`` names."""
    about_question = {name: question.signal(name) for name in sorted(needs & TEXT_SIGNALS)}
    return dataclasses.replace(image, image_id=image_id, **about_question)
