"""The question of a prompt for methods that read it, through the model's own embeddings."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.hf.families import UnsupportedModelError

_MARK = "\ufffc"


class Question:
    """The text after a prompt's last image: `otprune.pruning.questions.QuestionSignals`.

    Each attribute is computed when it is first read.

    Args:
        embed: the model's input embeddings.
        ids: ids of the question's tokens.
        tokenizer: the model's; None if the caller has not given one.
        hidden: hidden states of the tokens at some layer; None before the language model.
    """

    def __init__(
        self, embed: Any, ids: Int64[Tensor, " t"], tokenizer: Any, hidden: Tensor | None = None
    ) -> None:
        self.embed, self.ids, self.tokenizer, self.hidden = embed, ids, tokenizer, hidden

    def signal(self, name: str) -> Any:
        """Return the signal of this name; see `otprune.signals.TEXT_SIGNALS`.

        Raises:
            UnsupportedModelError: a signal that no model of transformers gives.
        """
        if name == "clip_text":
            raise UnsupportedModelError(
                "clip_text needs CLIP's text encoder, which models of transformers do not hold"
            )
        return getattr(self, name)

    def inside(self, hidden: Float[Tensor, "t d"]) -> "Question":
        """Return the same question with the hidden states of its tokens at some layer."""
        return Question(self.embed, self.ids, self.tokenizer, hidden)

    @cached_property
    def text_embeddings(self) -> Float[Tensor, "t d"]:
        """Embeddings of the question's tokens, or their hidden states if these are given."""
        return self._embedded(self.ids) if self.hidden is None else self.hidden

    @cached_property
    def question(self) -> str:
        """The question as text, without the words by which a chat template asks for the answer."""
        text = self._given.decode(self.ids.tolist(), skip_special_tokens=True).strip()
        ending = self._ending
        return text.removesuffix(ending).strip() if ending else text

    @property
    def embed_words(self) -> Callable[[Sequence[str]], Tensor]:
        """Function from words to embeddings of their tokens, each word tokenised alone."""
        return self._embed_words

    def _embed_words(self, words: Sequence[str]) -> Float[Tensor, "m d"]:
        ids: list[int] = []
        for word in words:
            ids += self._given(word, add_special_tokens=False).input_ids
        return self._embedded(torch.tensor(ids, dtype=torch.long))

    def _embedded(self, ids: Int64[Tensor, " t"]) -> Float[Tensor, "t d"]:
        weight = self.embed.weight
        with torch.no_grad():
            # Offloaded embeddings are brought back by their module, which moves the ids as well.
            return self.embed(ids if weight.is_meta else ids.to(weight.device))

    @property
    def _given(self) -> Any:
        if self.tokenizer is None:
            raise UnsupportedModelError(
                "this method reads the question as text: give pruned() the model's processor or "
                "tokenizer as tokenizer="
            )
        return self.tokenizer

    @property
    def _ending(self) -> str:
        """What the chat template puts after a user's text, as text; empty without a template."""
        if not getattr(self._given, "chat_template", None):
            return ""
        asked = [{"role": "user", "content": _MARK}]
        rendered = self._given.apply_chat_template(
            asked, tokenize=False, add_generation_prompt=True
        )
        after = rendered.rpartition(_MARK)[2]
        ids = self._given(after, add_special_tokens=False).input_ids
        return str(self._given.decode(ids, skip_special_tokens=True)).strip()
