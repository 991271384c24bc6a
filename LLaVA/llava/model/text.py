"""The question of a prompt as methods read it: its text, its words, its place in CLIP's space."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from llava.checkpoint.files import CheckpointFiles
from llava.constants import DEFAULT_IM_END_TOKEN, IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.model.devices import execution_device
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.clip_text import ClipText
from llava.model.multimodal_encoder.tower import VisionTower

CLIP_SIGNALS = frozenset({"clip_text", "clip_patches"})
"""Signals that need CLIP's text encoder or its projections."""


class TextTools:
    """A tokenizer, and CLIP's text encoder, which is loaded when a method first needs it.

    Args:
        tokenizer: the language model's.
        clip_source: files of the repository that the vision tower comes from; None if the
            checkpoint does not say.
        device: on which CLIP encodes questions.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        clip_source: CheckpointFiles | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.tokenizer = tokenizer
        self.clip_source = clip_source
        self.device = torch.device(device)
        self._clip: ClipText | None = None

    def question(self, ids: Int64[Tensor, " t"]) -> str:
        """Return the question at the end of a prompt: the text after its last image.

        The words by which a conversation template asks for the answer are removed, and white space
        at both ends.
        """
        places = (ids == IMAGE_TOKEN_INDEX).nonzero()[:, 0].tolist()
        after = ids[places[-1] + 1 :] if places else ids
        text = str(self.tokenizer.decode(after.tolist(), skip_special_tokens=False))
        text = text.removeprefix(str(self.tokenizer.bos_token or "")).strip()
        if places:
            text = text.removeprefix(DEFAULT_IM_END_TOKEN).strip()
        for ending in _endings():
            if text.endswith(ending):
                return text.removesuffix(ending).strip()
        return text

    def embed_words(self, words: Sequence[str], embed: nn.Module) -> Float[Tensor, "m d"]:
        """Return embeddings of words, each tokenised alone, one after the other."""
        ids: list[int] = []
        for word in words:
            ids += self.tokenizer(word, add_special_tokens=False).input_ids
        with torch.no_grad():
            return embed(torch.tensor(ids, dtype=torch.long, device=execution_device(embed)))

    def clip_text(self, question: str) -> Float[Tensor, "s p"]:
        """Return a question in the space that CLIP shares between images and texts.

        One row for each of its 77-token segments; none for a question without text.

        Raises:
            ValueError: there is no text encoder.
        """
        rows = self._loaded().text(question)
        return rows if question.strip() else rows[:0]

    def clip_patches(self, tower: VisionTower, hidden: Float[Tensor, "*b c"]) -> Tensor:
        """Return patches [*b p] in that space, from the hidden states that the projector takes.

        Raises:
            ValueError: the tower is not CLIP's, or there is no projection.
        """
        own = _clip_tower(tower)
        return self._loaded().patches(own, hidden)

    def check(self, needs: frozenset[str], tower: VisionTower) -> None:
        """Load what the signals that a method needs are computed with.

        Raises:
            ValueError: a signal of CLIP's text encoder where the tower is not CLIP's, or where the
                repository that the tower comes from does not hold it.
        """
        if needs & CLIP_SIGNALS:
            _clip_tower(tower)
            self._loaded()

    def _loaded(self) -> ClipText:
        if self._clip is None:
            if self.clip_source is None:
                raise ValueError(
                    "clip_text and clip_patches need CLIP's text encoder; the checkpoint does not "
                    "say where its vision tower comes from: set model.text_tools.clip_source"
                )
            self._clip = ClipText.load(self.clip_source, self.device)
        return self._clip


class QuestionText:
    """The question of one prompt: `otprune.pruning.questions.QuestionSignals` for LLaVA.

    Each attribute is computed when it is first read.

    Args:
        model: a `LlavaMetaForCausalLM`.
        ids: ids of the question's tokens.
        hidden: their hidden states at some layer; None before the language model.
    """

    def __init__(self, model: Any, ids: Int64[Tensor, " t"], hidden: Tensor | None = None) -> None:
        self.model, self.ids, self.hidden = model, ids, hidden

    def signal(self, name: str) -> Any:
        """Return the signal of this name; see `otprune.signals.TEXT_SIGNALS`."""
        return getattr(self, name)

    def inside(self, hidden: Tensor) -> "QuestionText":
        """Return the same question with the hidden states of its tokens at some layer."""
        return QuestionText(self.model, self.ids, hidden)

    @cached_property
    def text_embeddings(self) -> Tensor:
        """Embeddings of the question's tokens, or their hidden states if these are given."""
        if self.hidden is not None:
            return self.hidden
        embed = self.model.get_model().embed_tokens
        return embed(self.ids.to(execution_device(embed)))

    @cached_property
    def question(self) -> str:
        """The question as text."""
        return self._tools.question(self.ids)

    @cached_property
    def embed_words(self) -> Callable[[Sequence[str]], Tensor]:
        """Function from words to the language model's embeddings of their tokens."""
        return partial(self._tools.embed_words, embed=self.model.get_model().embed_tokens)

    @cached_property
    def clip_text(self) -> Tensor:
        """The question in CLIP's space."""
        return self._tools.clip_text(self.question)

    @property
    def _tools(self) -> TextTools:
        tools = self.model.text_tools
        if tools is None:
            raise ValueError(
                "question, embed_words and clip_text need a tokenizer, which comes with "
                "load_pretrained_model"
            )
        return tools


def _clip_tower(tower: VisionTower) -> CLIPVisionTower:
    if not isinstance(tower, CLIPVisionTower):
        raise ValueError(
            "clip_text and clip_patches need a CLIP vision tower with its text encoder; "
            f"{type(tower).__name__} has none"
        )
    return tower


@lru_cache(maxsize=1)
def _endings() -> tuple[str, ...]:
    """Return the texts by which templates ask for the answer after a question, longest first."""
    question, endings = "\ufffc", set()
    for template in conv_templates.values():
        conversation = template.copy()
        conversation.append_message(conversation.roles[0], question)
        conversation.append_message(conversation.roles[1], None)
        endings.add(conversation.get_prompt().rpartition(question)[2].strip())
    return tuple(sorted(endings - {""}, key=len, reverse=True))
