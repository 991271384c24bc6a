"""Calls of a model about images that are encoded already: for engines that encode once."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from otprune.hf.encoded import EncodedImage, ImageInputs, encode_images, geometry_of, joined
from otprune.hf.families import UnsupportedModelError, family_of
from otprune.hf.inputs import ImageOptions, PrunedInputs, check_pruning, prepare, unpruned
from otprune.hf.inside import Call, PrunedDecoder, calling
from otprune.hf.prefixes import Prefixes
from otprune.hf.visual import units_from
from otprune.pruning import Pruning, Trace

_TYPES = ("mm_token_type_ids", "token_type_ids")
"""Arguments that mark which ids are visual."""


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts of one call, with all of their placeholders.

    Attributes:
        ids: token ids, [b t], on the CPU.
        mask: which are no padding, [b t].
        images: of all prompts, in order.
        image_ids: a number for each image, by which seeded methods tell images apart.
        answers: for each prompt, how many ids at its end are a given answer; methods that read the
            prompt's text do not see them. None for none.
    """

    ids: Int64[Tensor, "b t"]
    mask: Bool[Tensor, "b t"]
    images: Sequence[EncodedImage]
    image_ids: Sequence[int | None]
    answers: Sequence[int] | None = None


class EncodedCalls:
    """Encodes images of a model, and makes the arguments of its calls about them.

    Args:
        model: a ``...ForConditionalGeneration`` of transformers.
        tokenizer: its tokenizer, for methods that read the question as text.

    Attributes:
        family: the model as pruning sees it.

    Raises:
        UnsupportedModelError: visual tokens of the model cannot be pruned.
    """

    def __init__(self, model: Any, tokenizer: Any = None) -> None:
        self.family, self.tokenizer = family_of(model), tokenizer
        self._types = [
            name for name in _TYPES if name in inspect.signature(model.forward).parameters
        ][:1]

    def check(self, pruning: Pruning | None) -> None:
        """Raise ``ValueError`` with one sentence unless the model can carry out a pruning."""
        if pruning is not None:
            check_pruning(self.family, pruning)

    def encode(
        self, images: Sequence[ImageInputs], wanted: frozenset[str] = frozenset()
    ) -> list[EncodedImage]:
        """Return images encoded; see `encode_images`."""
        return encode_images(self.family, images, wanted)

    @contextmanager
    def call(
        self, batch: PromptBatch, pruning: Pruning | None, trace: Trace, *, repeats: int = 1
    ) -> Iterator[dict[str, Any]]:
        """Give the arguments of `forward` or `generate`, which must be called in this block.

        The arguments have the kept tokens only; what is pruned inside the decoder is pruned while
        the block is open. What `generate` returns begins with the given ``input_ids``.

        Args:
            batch: the prompts.
            pruning: what to prune; None for nothing.
            trace: filled.
            repeats: beams, or answers, of each prompt.

        Raises:
            UnsupportedModelError: a family that would mix up images of unequal counts under beams.
            ValueError: placeholders that do not fit the images.
        """
        found = self._prepared(batch, pruning, trace)
        if found.ragged_beams and repeats > 1:
            raise UnsupportedModelError(
                f"{self.family.name} mixes up images where a prompt has several beams or answers, "
                f"got {repeats}: {self.family.beams_need}, or ask for one answer"
            )
        # Whatever the ids are for besides (a loss), the answer was only to be hidden.
        found.inputs.pop("labels", None)
        if found.plan is None:
            with calling(Call(None)):
                yield found.inputs
            return
        with PrunedDecoder(self.family).installed(), calling(Call(found.plan)):
            yield found.inputs

    @torch.no_grad()
    def prefixes(self, batch: PromptBatch, pruning: Pruning | None, trace: Trace) -> Prefixes:
        """Return beginnings of prompts, read by the language model and ready to be continued.

        Args:
            batch: the beginnings, with all images of their prompts.
            pruning: what to prune, before the language model and without reading the prompt's text;
                None for nothing.
            trace: filled.

        Raises:
            UnsupportedModelError: a family that does not share prefixes (`Family.shares_prefixes`).
            ValueError: a pruning that depends on what follows; placeholders that do not fit.
        """
        if not self.family.shares_prefixes:
            raise UnsupportedModelError(f"{self.family.name} cannot share prefixes of prompts")
        if pruning is not None and not pruning.decided_by_images:
            raise ValueError("pruning must be decided by images alone where prefixes are shared")
        keeps = "logits_to_keep" in inspect.signature(self.family.model.forward).parameters
        kept = {"logits_to_keep": 1} if keeps else {}
        with self.call(batch, pruning, trace) as arguments:
            mask = arguments["attention_mask"].bool()
            # `generate` counts positions without the padding, `forward` alone with it.
            arguments.setdefault("position_ids", (mask.long().cumsum(1) - 1).clamp(min=0))
            output = self.family.model(**arguments, **kept, use_cache=True)
        return Prefixes(output.past_key_values, mask, self._following(batch, pruning, mask))

    def _following(
        self, batch: PromptBatch, pruning: Pruning | None, mask: Bool[Tensor, "b t"]
    ) -> Tensor:
        """Return the rotary position of a text id behind each prompt: [b], or [m b] with axes.

        Args:
            batch: the prompts, unpruned.
            pruning: what is pruned.
            mask: which positions of the pruned prompts are no padding.
        """
        compact = mask.sum(1)
        if self.family.multimodal_positions and batch.images:
            # A text id more: the family's own rule says where it stands.
            ids = torch.cat([batch.ids, torch.zeros_like(batch.ids[:, :1])], dim=1)
            valid = torch.cat([batch.mask, torch.ones_like(batch.mask[:, :1])], dim=1)
            ids, valid = ids.to(mask.device), valid.to(mask.device)
            visual = ids == self.family.placeholder("image")
            inputs = {"input_ids": ids, **{name: visual.long() for name in self._types}}
            inputs |= {name: one.to(ids) for name, one in geometry_of(batch.images).items()}
            return torch.cat([compact[None], self.family.positions(inputs, valid)[..., -1]])
        if pruning is None or pruning.positions_at(0) == "compact":
            return compact
        return batch.mask.sum(1).to(mask.device)

    def _prepared(self, batch: PromptBatch, pruning: Pruning | None, trace: Trace) -> PrunedInputs:
        device = self.family.model.device
        ids = batch.ids.to(device)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": batch.mask.to(ids)}
        visual = ids == self.family.placeholder("image")
        inputs |= {name: visual.long() for name in self._types}
        if not batch.images:
            layers = self.family.model.config.get_text_config().num_hidden_layers
            trace.begin([], [0] * len(ids), None)
            trace.lengths[:] = [batch.mask.sum(1).tolist() for _ in range(layers)]
            return PrunedInputs(inputs, None, False)
        inputs |= {name: one.to(device) for name, one in geometry_of(batch.images).items()}
        units = units_from(self.family, inputs, joined(self.family, batch.images), batch.images)
        if pruning is None:
            return unpruned(self.family, inputs, units, trace)
        if batch.answers is not None:
            inputs["labels"] = _labels(ids, batch.answers)
        options = ImageOptions(tokenizer=self.tokenizer, image_ids=batch.image_ids)
        return prepare(self.family, inputs, pruning, options, trace, units)


def _labels(ids: Int64[Tensor, "b t"], answers: Sequence[int]) -> Int64[Tensor, "b t"]:
    """Return the ids with -100 before the last ``answers`` of each row, padded on the left."""
    length = ids.shape[1]
    begins = length - torch.tensor(answers, device=ids.device)
    before = torch.arange(length, device=ids.device) < begins[:, None]
    return ids.masked_fill(before, -100)
