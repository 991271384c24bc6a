"""What methods that read the question are given: its text, its words, its place in CLIP's space."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from llava.checkpoint.files import CheckpointFiles
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.model.devices import execution_device
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.clip_text import ClipText
from llava.model.multimodal_encoder.tower import VisionTower

CLIP_SIGNALS = frozenset({"clip_text", "clip_patches"})
"""Signals that need CLIP's text half or its projection."""


class TextTools:
    """A tokenizer, and CLIP's text half once a method asks for it.

    Args:
        tokenizer: the language model's.
        clip_source: files of the repository that the vision tower comes from; None if the
            checkpoint does not say.
        device: where questions are encoded by CLIP.
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
        """Return the question that a prompt ends with: the text after its last image.

        What a conversation template puts after it to ask for the answer is taken off, and white
        space at both ends.
        """
        places = (ids == IMAGE_TOKEN_INDEX).nonzero()[:, 0].tolist()
        asked = ids[places[-1] + 1 :] if places else ids
        text = str(self.tokenizer.decode(asked.tolist(), skip_special_tokens=False))
        text = text.removeprefix(str(self.tokenizer.bos_token or "")).strip()
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

        Raises:
            ValueError: there is no text half.
        """
        return self._loaded().text(question)

    def clip_patches(self, tower: VisionTower, hidden: Float[Tensor, "*b c"]) -> Tensor:
        """Return patches [*b p] in that space, from the hidden states that the projector takes.

        Raises:
            ValueError: the tower is not CLIP's, or there is no projection.
        """
        own = _clip_tower(tower)
        return self._loaded().patches(own, hidden)

    def check(self, needs: frozenset[str], tower: VisionTower) -> None:
        """Load what signals need.

        Raises:
            ValueError: a signal of CLIP's text half where the tower is not CLIP's, or where the
                repository that the tower comes from does not hold it.
        """
        if needs & CLIP_SIGNALS:
            _clip_tower(tower)
            self._loaded()

    def _loaded(self) -> ClipText:
        if self._clip is None:
            if self.clip_source is None:
                raise ValueError(
                    "clip_text and clip_patches need CLIP's text half; the checkpoint does not say "
                    "where its vision tower comes from: set model.text_tools.clip_source"
                )
            self._clip = ClipText.load(self.clip_source, self.device)
        return self._clip


def _clip_tower(tower: VisionTower) -> CLIPVisionTower:
    if not isinstance(tower, CLIPVisionTower):
        raise ValueError(
            "clip_text and clip_patches need a CLIP vision tower with its text half; "
            f"{type(tower).__name__} has none"
        )
    return tower


@lru_cache(maxsize=1)
def _endings() -> tuple[str, ...]:
    """Return what the templates put after a question to ask for the answer, longest first."""
    question, endings = "\ufffc", set()
    for template in conv_templates.values():
        conversation = template.copy()
        conversation.append_message(conversation.roles[0], question)
        conversation.append_message(conversation.roles[1], None)
        endings.add(conversation.get_prompt().rpartition(question)[2].strip())
    return tuple(sorted(endings - {""}, key=len, reverse=True))
