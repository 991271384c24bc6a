"""A forward call over whole prompts that drops visual tokens at the stages inside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from transformers import Cache
from transformers.masking_utils import create_causal_mask

from llava.model.splice import Spliced
from llava.model.visual_tokens import ImageTokens
from llava.pruning.choose import Candidates, choose
from llava.pruning.decode import Segment
from llava.pruning.rows import as_rows, stacked, take_positions
from llava.pruning.settings import Pruning, Stage
from llava.pruning.trace import Trace


@dataclass(frozen=True)
class LayerPlan:
    """What the stages inside the language model need to know about a batch of prompts.

    Attributes:
        pruning: the settings.
        batch: the prompts as they enter layer 0.
        images: visual tokens of each image before any pruning.
        image_ids: names of the images, for seeded methods.
        trace: filled if given.
        key: tells a cache's own plan from another one without holding on to its tensors.
    """

    pruning: Pruning
    batch: Spliced
    images: Sequence[ImageTokens]
    image_ids: Sequence[int | None]
    trace: Trace | None = None
    key: object = field(default_factory=object)


@dataclass
class _Sequence:
    """The prompts as the layers since the last stage see them; rows of one prompt's beams alike.

    Attributes:
        origin: number of each position in the batch as it entered layer 0, -1 at padding.
        lengths: positions of each prompt that are no padding.
    """

    origin: Int64[Tensor, "b t"]
    lengths: list[int]
    swapped: dict[str, Any] = field(default_factory=dict)


class PrefillRun:
    """One forward call over whole prompts."""

    def __init__(self, text_model: Any, plan: LayerPlan, cache: Cache | None, new: int) -> None:
        rows, length = plan.batch.image_of.shape
        if new != length:
            raise ValueError(
                "pruning inside the language model needs the whole prompt in one call: "
                f"{length} positions, got {new}"
            )
        self.text_model = text_model
        self.plan = plan
        self.cache = cache
        self.stages = {stage.layer: stage for stage in plan.pruning.inside}
        origin = torch.arange(length).expand(rows, -1)
        padding = plan.batch.attention_mask.cpu() == 0
        self.sequence = _Sequence(origin.masked_fill(padding, -1), list(plan.batch.lengths))
        self.segments: list[Segment] = []
        self.lengths: list[list[int]] = []

    def enter(
        self, number: int, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the hidden states and the changed arguments of a layer."""
        stage = self.stages.get(number)
        if stage is not None:
            hidden = self._drop(stage, hidden, kwargs)
        self.lengths.append(self.sequence.lengths)
        return hidden, self.sequence.swapped

    def finish(self) -> None:
        """Tell the caller what was done.

        Raises:
            RuntimeError: the layers were not told, as in compiled code: nothing was pruned.
        """
        if len(self.segments) < len(self.stages):
            raise RuntimeError(
                "pruning inside the language model was not carried out: its layers were called "
                "without their hooks (torch.compile?)"
            )
        if self.plan.trace is not None:
            self.plan.trace.lengths[:] = self.lengths

    def labels(self, labels: Int64[Tensor, "b t"], ignore: int) -> Int64[Tensor, "b t"]:
        """Return the labels of what is left after the last layer."""
        origin = self.sequence.origin.to(labels.device)
        return labels.gather(1, origin.clamp(min=0)).masked_fill(origin < 0, ignore)

    def _drop(self, stage: Stage, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """Gather what stays at a stage, and everything that travels with it."""
        before = self.sequence
        picks = self._picks(stage, hidden)
        side = self.plan.batch.side
        index, valid = stacked(picks, side)
        repeats = len(hidden) // len(picks)
        self.sequence = after = _Sequence(
            before.origin.gather(1, index).masked_fill(~valid, -1), [len(p) for p in picks]
        )
        index, valid = (t.repeat_interleave(repeats, 0) for t in (index, valid))
        hidden = take_positions(hidden, index)
        everything = bool(valid.all())
        kept_mask = None if everything else valid.to(hidden.device)
        seen = {**kwargs, **before.swapped}
        shift = None
        if self.plan.pruning.positions_at(stage.layer) == "compact":
            unpruned = as_rows(kwargs["position_ids"], len(hidden))
            position_ids = (valid.cumsum(1) - 1).masked_fill(~valid, 0).to(unpruned.device)
            shift = (unpruned.amax(1) - position_ids.amax(1))[:, None]
            angles = self.text_model.rotary_emb(hidden, position_ids=position_ids)
        else:
            position_ids = take_positions(as_rows(seen["position_ids"], len(hidden)), index)
            angles = tuple(
                take_positions(as_rows(a, len(hidden)), index) for a in seen["position_embeddings"]
            )
        # position_ids stay out of the mask: gaps would be taken for packed sequences.
        mask = create_causal_mask(
            config=self.text_model.config,
            inputs_embeds=hidden,
            attention_mask=kept_mask,
            past_key_values=self.cache,
            position_ids=None,
            layer_idx=stage.layer,
        )
        after.swapped = {
            "attention_mask": mask,
            "position_ids": position_ids,
            "position_embeddings": angles,
        }
        self.segments.append(Segment(stage.layer, kept_mask, index.shape[1], shift))
        return hidden

    def _picks(self, stage: Stage, hidden: Tensor) -> list[Int64[Tensor, " t"]]:
        """Return for each prompt the positions that stay, ascending, on the CPU."""
        batch, plan = self.plan.batch, self.plan
        repeats = len(hidden) // len(batch.lengths)
        candidates, places, numbers = [], [], []
        stays = self.sequence.origin >= 0
        for row in range(len(stays)):
            origin = self.sequence.origin[row].clamp(min=0)
            image_of = batch.image_of[row][origin].masked_fill(~stays[row], -1)
            asked = batch.question[row][origin] & stays[row]
            text = None
            if "text_embeddings" in stage.selector.needs:
                text = hidden[row * repeats][asked.to(hidden.device)]
            for image in image_of[image_of >= 0].unique().tolist():
                place = (image_of == image).nonzero()[:, 0]
                alive = batch.token_of[row][origin[place]]
                tokens = hidden[row * repeats][place.to(hidden.device)]
                candidates.append(
                    Candidates(plan.images[image], alive, tokens, plan.image_ids[image], text)
                )
                places.append((row, place))
                numbers.append(image)
        kept = choose(stage, candidates, plan.pruning.keep_newlines) if candidates else []
        for (row, place), keep in zip(places, kept, strict=True):
            stays[row, place] = False
            stays[row, place[keep]] = True
        if plan.trace is not None:
            # An image that was cut off with the end of its prompt has nothing left to keep.
            per_image = [torch.empty(0, dtype=torch.long) for _ in plan.images]
            for image, one, keep in zip(numbers, candidates, kept, strict=True):
                per_image[image] = one.alive[keep.sort().values]
            plan.trace.kept[stage.layer] = per_image
        return [row.nonzero()[:, 0] for row in stays]
