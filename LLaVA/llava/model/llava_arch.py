"""Where LLaVA is pruned: images become visual tokens, these are pruned, the rest joins the text.

Each image is pruned before its tokens are put where ``<image>`` stands, in any batch of prompts.
The released forks prune a fixed block of the finished batch instead, see `llava.model.released`.

`OTPrune` is the method that this repository is named after; `greedy_select` is its greedy rule with
the name and arguments of the released code.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llava.images.layouts import Size
from llava.model.devices import execution_device
from llava.model.encoding import encode_visual, project
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.tower import TOWER_SIGNALS, VisionTower
from llava.model.multimodal_projector.builder import build_vision_projector
from llava.model.pruning_kind import check_kind
from llava.model.released import greedy_select, prune_as_released
from llava.model.splice import PromptTokens, Spliced, splice, split_prompts
from llava.model.text import QuestionText, TextTools
from otprune.hf.layers import LayerPlan, Side, decoder_shape
from otprune.precision import new_tensors_on_cpu
from otprune.pruning import ImageTokens, Positions, Pruning, Trace, watched
from otprune.pruning.choose import budgets_of, choose_before
from otprune.pruning.image_tokens import check_image_ids
from otprune.pruning.questions import question_signals
from otprune.selectors.otprune import OTPrune

__all__ = ["LlavaMetaForCausalLM", "LlavaMetaModel", "OTPrune", "Prepared", "greedy_select"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch ready for the language model.

    Attributes:
        batch: what enters layer 0.
        plan: what is to be pruned inside the language model; None if nothing.
    """

    batch: Spliced
    plan: LayerPlan | None


class LlavaMetaModel(nn.Module):
    """Vision tower, projector and newline token, added to a language model's decoder.

    A class of a model inherits from this one first, then from its decoder.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.vision_tower = build_vision_tower(config)
        self.mm_projector = build_vision_projector(config)
        if "unpad" in getattr(config, "mm_patch_merge_type", ""):
            scale = config.hidden_size**-0.5
            self.image_newline = nn.Parameter(torch.randn(config.hidden_size) * scale)

    def get_vision_tower(self) -> VisionTower:
        """Return the vision tower."""
        return self.vision_tower


class LlavaMetaForCausalLM:
    """Turns prompts and images into the input of the language model.

    Attributes:
        config: the model's configuration.
        pruning: what every call prunes that is not given a pruning of its own.
        text_tools: decodes ids and embeds words; set by `load_pretrained_model`.
    """

    config: Any
    pruning: Pruning | None
    text_tools: TextTools | None = None

    def get_model(self) -> Any:
        """Return the decoder with vision tower and projector."""
        raise NotImplementedError

    def get_vision_tower(self) -> VisionTower:
        """Return the vision tower."""
        return self.get_model().get_vision_tower()

    def encode_images(self, images: Tensor) -> Tensor:
        """Return projected features [b n d] of a batch of tiles [b 3 s s]."""
        features = self.get_vision_tower().encode(images).features
        return project(self.get_model(), features)

    @new_tensors_on_cpu()
    def encode_visual(
        self,
        images: Tensor | Sequence[Tensor],
        image_sizes: Sequence[Size] | None = None,
        signals: frozenset[str] = frozenset(),
        *,
        aspects: Sequence[str | None] | None = None,
    ) -> list[ImageTokens]:
        """Return the visual tokens of each image; all tiles go through the tower at once.

        `forward` and `generate` take the result as ``visual``, so that an image is encoded once and
        pruned many times.

        Args:
            images: [b 3 s s], one tile an image; [b t 3 s s]; or a list of [t_i 3 s s] or [3 s s].
            image_sizes: width and height of each image in pixels; needed under anyres.
            signals: names of `otprune.Signals` fields to compute as well. Those about the question
                are ignored here; `prepare` adds them.
            aspects: ``image_aspect_ratio`` of images that were not made with the configuration's.

        Raises:
            ValueError: shapes that do not fit, a signal that the tower cannot give.
        """
        model, tools = self.get_model(), self.text_tools
        return encode_visual(model, images, image_sizes, signals, tools, aspects)

    @new_tensors_on_cpu()
    def prepare(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None,
        visual: Sequence[ImageTokens],
        *,
        pruning: Pruning | None,
        side: Side,
        image_ids: Sequence[int | None] | None = None,
        answer_lengths: Sequence[int] | None = None,
        trace: Trace | None = None,
    ) -> Prepared:
        """Return the batch that enters the language model, pruned by the stage before it if any.

        Args:
            input_ids: [b t] with `IMAGE_TOKEN_INDEX` where an image goes; padding on either side.
            attention_mask: which ids are no padding.
            labels: one for each id.
            visual: tokens of each image, in order of the prompts.
            pruning: what to prune; None for nothing.
            side: where the batch is padded.
            image_ids: a number for each image, by which seeded methods tell images apart.
            answer_lengths: how many ids at the end of each row are a given answer.
            trace: filled if given.

        Raises:
            ValueError: as `split_prompts` and `check_pruning`; not one of ``image_ids`` for each
                image.
        """
        prompts = split_prompts(input_ids, attention_mask, labels, len(visual), answer_lengths)
        ids = check_image_ids(image_ids, len(visual))
        self.check_pruning(pruning)
        if pruning is not None and pruning.compat == "reference" and visual:
            batch, kept = self._prepare_as_released(prompts, visual, pruning, trace)
            plan = None
        else:
            batch, kept, plan = self._prepare(prompts, visual, pruning, side, ids, trace)
        if any(batch.truncated):
            logger.warning(
                "prompts cut to tokenizer_model_max_length: %s positions lost", batch.truncated
            )
        if trace is not None:
            layers = 0 if plan is not None else self.config.num_hidden_layers
            trace.begin([len(image) for image in visual], batch.truncated, kept)
            trace.lengths[:] = [list(batch.lengths) for _ in range(layers)]
        return Prepared(batch, plan)

    def _prepare(
        self,
        prompts: Sequence[PromptTokens],
        visual: Sequence[ImageTokens],
        pruning: Pruning | None,
        side: Side,
        image_ids: Sequence[int | None],
        trace: Trace | None,
    ) -> tuple[Spliced, list[Tensor] | None, LayerPlan | None]:
        """Return the batch, what was kept before the language model, and the plan for inside it."""
        tokens: Sequence[Tensor] = [image.tokens for image in visual]
        kept, budgets = None, []
        questions = [QuestionText(self, prompt.ids[prompt.question()]) for prompt in prompts]
        if pruning is not None and visual:
            budgets = budgets_of(pruning, visual, decoder_shape(self.config))
            if any(0 in budget for budget in budgets):
                images = [(i, q) for p, q in zip(prompts, questions, strict=True) for i in p.images]
                known = [
                    question_signals(visual[i].signals, pruning.needs, question, image_ids[i])
                    for i, question in images
                ]
                with watched(trace):
                    tokens, kept = choose_before(
                        pruning, visual, known, budgets, partial(project, self.get_model())
                    )
        positions = "compact" if pruning is None else pruning.positions_at(0)
        batch = self._splice(prompts, visual, tokens, kept, positions, side)
        plan = None
        if pruning is not None and pruning.inside and visual:
            plan = LayerPlan(pruning, batch, visual, image_ids, questions, budgets, trace)
        return batch, kept, plan

    def _prepare_as_released(
        self,
        prompts: Sequence[PromptTokens],
        visual: Sequence[ImageTokens],
        pruning: Pruning,
        trace: Trace | None,
    ) -> tuple[Spliced, list[Tensor] | None]:
        tokens = [image.tokens for image in visual]
        batch = self._splice(prompts, visual, tokens, None, "compact", "right")
        if pruning.before is None:
            logger.warning("compat='reference': a layer other than 0 prunes nothing, as released")
            return batch, None
        with watched(trace):
            batch, kept = prune_as_released(batch, pruning.stages[0], len(visual[0]))
        return batch, [kept]

    def _splice(
        self,
        prompts: Sequence[PromptTokens],
        visual: Sequence[ImageTokens],
        tokens: Sequence[Tensor],
        kept: Sequence[Tensor] | None,
        positions: Positions,
        side: Side,
    ) -> Spliced:
        embed = self.get_model().embed_tokens
        everything = [torch.arange(len(image)) for image in visual]
        return splice(
            prompts,
            embed,
            tokens,
            everything if kept is None else kept,
            [len(image) for image in visual],
            positions=positions,
            side=side,
            max_length=getattr(self.config, "tokenizer_model_max_length", None),
            device=execution_device(embed),
        )

    def check_pruning(self, pruning: Pruning | None) -> None:
        """Check that a pruning can be carried out, for images of one tile.

        Raises:
            TypeError: something else than a pruning.
            ValueError: a layer that the model does not have, a signal that its tower cannot give, a
                target that the method cannot reach.
        """
        check_kind(pruning)
        if pruning is None:
            return
        tower = self.get_vision_tower()
        pruning.check(tower.num_patches, decoder_shape(self.config))
        tower.check_signals(pruning.needs & TOWER_SIGNALS)
        if self.text_tools is not None:
            self.text_tools.check(pruning.needs, tower)

    def prepare_inputs_labels_for_multimodal(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None,
        attention_mask: Tensor | None,
        past_key_values: Any,
        labels: Tensor | None,
        images: Tensor | Sequence[Tensor] | None,
        image_sizes: Sequence[Size] | None = None,
    ) -> tuple[Any, ...]:
        """Return the batch as the original function of this name does.

        That is (input_ids, position_ids, attention_mask, past_key_values, inputs_embeds, labels).
        ``input_ids`` is None where they were replaced by embeddings; what was None stays None
        unless the batch needs it. Prunes by ``self.pruning``, before the language model only.

        Raises:
            ValueError: the pruning has stages inside the language model, for which embeddings are
                not enough; use `forward` or `generate`.
        """
        if images is None or input_ids.shape[1] == 1:
            return input_ids, position_ids, attention_mask, past_key_values, None, labels
        pruning = self.pruning
        if pruning is not None and pruning.inside and pruning.compat is None:
            raise ValueError(
                "embeddings alone cannot be pruned inside the language model; "
                "give images to forward or generate"
            )
        signals = frozenset() if pruning is None else pruning.needs
        side: Side = getattr(self.config, "tokenizer_padding_side", "right")
        batch = self.prepare(
            input_ids,
            attention_mask,
            labels,
            self.encode_visual(images, image_sizes, signals),
            pruning=pruning,
            side=side,
        ).batch
        ragged = len(set(batch.lengths)) > 1
        gaps = pruning is not None and pruning.positions_at(0) == "original"
        # Without a mask transformers takes gaps in positions for ends of packed sequences.
        wanted = attention_mask is not None or ragged or gaps
        mask = batch.attention_mask if wanted else None
        if mask is not None and attention_mask is not None:
            mask = mask.to(attention_mask.dtype)
        places = batch.position_ids if position_ids is not None or gaps else None
        return None, places, mask, past_key_values, batch.embeds, batch.labels
