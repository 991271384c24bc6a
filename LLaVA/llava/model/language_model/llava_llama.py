"""LLaVA on transformers' Llama."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, LlamaForCausalLM, LlamaModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from llava.configuration import LlavaConfig
from llava.constants import IGNORE_INDEX
from llava.images.layouts import Size
from llava.model.language_model.calls import (
    check_continuing,
    check_even,
    check_generation,
    with_defaults,
)
from llava.model.llava_arch import LlavaMetaForCausalLM, LlavaMetaModel, Prepared
from llava.model.multimodal_encoder.builder import TOWERS
from llava.model.pruning_kind import check_kind
from otprune.hf.layers import (
    DecoderAdapter,
    LayerPlan,
    PrefillRun,
    Side,
    install_hooks,
    layer_run,
)
from otprune.pruning import ImageTokens, Pruning, Trace

__all__ = ["MODEL_PRUNING", "LlavaConfig", "LlavaLlamaForCausalLM", "LlavaLlamaModel"]


class _ModelPruning:
    """Type of `MODEL_PRUNING`."""

    def __repr__(self) -> str:
        return "the model's own pruning"


MODEL_PRUNING: Final = _ModelPruning()
"""Default of the argument ``pruning``: prune as the model's attribute ``pruning`` says."""

_LLAMA_ARGUMENTS = (
    "input_ids",
    "attention_mask",
    "position_ids",
    "past_key_values",
    "inputs_embeds",
    "use_cache",
    "logits_to_keep",
)


@dataclass(frozen=True, slots=True)
class _ImageArguments:
    """The arguments of a call that are about images; see `LlavaLlamaForCausalLM.forward`."""

    images: Tensor | Sequence[Tensor] | None
    image_sizes: Sequence[Size] | None
    visual: Sequence[ImageTokens] | None
    image_ids: Sequence[int | None] | None
    pruning: Pruning | None
    trace: Trace | None
    answer_lengths: Sequence[int] | None = None


class LlavaLlamaModel(LlavaMetaModel, LlamaModel):
    """Llama's decoder with vision tower and projector."""

    config_class = LlavaConfig

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        self.decoder_adapter = DecoderAdapter(self)
        install_hooks(self.decoder_adapter)


class LlavaLlamaForCausalLM(LlavaMetaForCausalLM, LlamaForCausalLM):
    """Llama that answers questions about images, with visual tokens pruned on request.

    Attributes:
        pruning: what every call prunes that is not given a pruning of its own; None for nothing.
    """

    config_class = LlavaConfig
    _no_split_modules: ClassVar = [
        "LlamaDecoderLayer",
        *(tower.__name__ for tower in TOWERS.values()),
    ]

    def __init__(self, config: LlavaConfig) -> None:
        # Llama's own initialiser would build a decoder without images first.
        super(LlamaForCausalLM, self).__init__(config)
        self.model = LlavaLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.pruning: Pruning | None = None
        self.post_init()

    def get_model(self) -> LlavaLlamaModel:
        """Return the decoder with vision tower and projector."""
        return self.model

    # Llama's `forward` has fewer arguments.
    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        images: Tensor | Sequence[Tensor] | None = None,
        image_sizes: Sequence[Size] | None = None,
        visual: Sequence[ImageTokens] | None = None,
        image_ids: Sequence[int | None] | None = None,
        pruning: Pruning | _ModelPruning | None = MODEL_PRUNING,
        trace: Trace | None = None,
        answer_lengths: Sequence[int] | None = None,
        layer_plan: LayerPlan | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits, and the loss if labels are given, for prompts with images.

        Logits and loss are those of the pruned sequence. Arguments are those of Llama's `forward`
        and:

        Args:
            input_ids: [b t], `IMAGE_TOKEN_INDEX` where an image goes; padding on either side.
            attention_mask: which ids are no padding.
            position_ids: with ``inputs_embeds`` or a filled cache only.
            past_key_values: cache; if it is not empty the call continues it, without images.
            inputs_embeds: instead of ids, and then without images.
            labels: one for each id, `IGNORE_INDEX` where no loss is taken.
            use_cache: keep keys and values.
            logits_to_keep: as in Llama; 0 for all.
            images: pixel values, see `encode_visual`; one image for each `IMAGE_TOKEN_INDEX`.
            image_sizes: width and height of each image in pixels.
            visual: visual tokens of each image instead of ``images``.
            image_ids: a number for each image, by which seeded methods tell images apart.
            pruning: for this call instead of the model's own; None prunes nothing.
            trace: filled with what was done.
            answer_lengths: how many ids at the end of each row are a given answer, by which
                nothing may be chosen.
            layer_plan: passed on by `generate`; not for callers.
            **kwargs: as Llama.

        Raises:
            ValueError: as `prepare`; images and visual both given, or images given to a call that
                continues a cache or has embeddings.
        """
        call: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "inputs_embeds": inputs_embeds,
            "labels": labels,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            **kwargs,
        }
        chosen = self._chosen(pruning)
        given = _ImageArguments(
            images, image_sizes, visual, image_ids, chosen, trace, answer_lengths
        )
        cached = past_key_values is not None and past_key_values.get_seq_length() > 0
        if inputs_embeds is None and input_ids is not None and not cached:
            layer_plan = self._start(call, given)
        else:
            check_continuing(input_ids, images is not None or visual is not None)
        return self._run(call, layer_plan)

    def _chosen(self, pruning: Pruning | _ModelPruning | None) -> Pruning | None:
        chosen = self.pruning if isinstance(pruning, _ModelPruning) else pruning
        check_kind(chosen)
        return chosen

    def _start(self, call: dict[str, Any], given: _ImageArguments) -> LayerPlan | None:
        """Replace a call's ids by embeddings; return what is to be pruned inside the model."""
        if call["position_ids"] is not None:
            raise ValueError("position_ids follow from attention_mask and pruning; leave them out")
        side: Side = getattr(self.config, "tokenizer_padding_side", "right")
        prepared = self._prepared(
            call["input_ids"], call["attention_mask"], call["labels"], given, side
        )
        batch = prepared.batch
        call |= {
            "input_ids": None,
            "inputs_embeds": batch.embeds,
            "attention_mask": batch.attention_mask.long(),
            "position_ids": batch.position_ids,
            "labels": batch.labels,
        }
        return prepared.plan

    def _run(self, call: dict[str, Any], plan: LayerPlan | None) -> Any:
        """Call Llama, pruned inside if there is a plan or a cache that was filled under one."""
        use_cache = self.config.use_cache if call["use_cache"] is None else call["use_cache"]
        if plan is not None and call["past_key_values"] is None and use_cache:
            # What decoding needs is stored on the cache, so it must exist beforehand.
            call["past_key_values"] = DynamicCache(config=self.config)
        entering = call["input_ids"] if call["inputs_embeds"] is None else call["inputs_embeds"]
        new = 0 if entering is None else entering.shape[1]
        llama: Any = super()
        with layer_run(self.model.decoder_adapter, plan, call["past_key_values"], new) as run:
            if not isinstance(run, PrefillRun) or call["labels"] is None:
                return llama.forward(**call)
            labels, as_object = call.pop("labels"), call.pop("return_dict", None)
            output = llama.forward(**call, return_dict=True)
        # Only after the call is it known which positions remain.
        others = {name: value for name, value in call.items() if name not in _LLAMA_ARGUMENTS}
        loss = self.loss_function(
            logits=output.logits,
            labels=run.labels(labels, IGNORE_INDEX),
            vocab_size=self.config.vocab_size,
            **others,
        )
        output = CausalLMOutputWithPast(**{"loss": loss, **output})
        return output.to_tuple() if as_object is False else output

    def _prepared(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None,
        given: _ImageArguments,
        side: Side,
    ) -> Prepared:
        if given.images is not None and given.visual is not None:
            raise ValueError("images and visual must not both be given")
        visual: Sequence[ImageTokens] = given.visual or []
        # An empty list is how some callers say that there are no images.
        if given.images is not None and len(given.images) > 0:
            signals = frozenset() if given.pruning is None else given.pruning.needs
            visual = self.encode_visual(given.images, given.image_sizes, signals)
        return self.prepare(
            input_ids,
            attention_mask,
            labels,
            visual,
            pruning=given.pruning,
            side=side,
            image_ids=given.image_ids,
            answer_lengths=given.answer_lengths,
            trace=given.trace,
        )

    @torch.no_grad()
    # transformers' `generate` has other positional arguments; LLaVA's users give these.
    def generate(  # type: ignore[override]
        self,
        inputs: Tensor | None = None,
        images: Tensor | Sequence[Tensor] | None = None,
        image_sizes: Sequence[Size] | None = None,
        *,
        attention_mask: Tensor | None = None,
        visual: Sequence[ImageTokens] | None = None,
        image_ids: Sequence[int | None] | None = None,
        pruning: Pruning | _ModelPruning | None = MODEL_PRUNING,
        trace: Trace | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return the new tokens, [b t], or the object that ``return_dict_in_generate`` requests.

        Rows may be padded on either side. Inside they are padded on the left, since padding on the
        right changes the answers of a batch's shorter rows. Without ``max_new_tokens`` or
        ``max_length`` at most 1024 tokens are written.

        With a filled ``past_key_values`` the call continues what is cached, without images, and is
        that of transformers: ``attention_mask`` is about the cached positions, too,
        ``position_ids`` may be given, and what is returned begins with the ids.

        Args:
            inputs: token ids [b t], `IMAGE_TOKEN_INDEX` where an image goes.
            images: as in `forward`; likewise image_sizes, visual, image_ids, pruning and trace.
            image_sizes: width and height of each image in pixels.
            attention_mask: which ids are no padding.
            visual: visual tokens of each image instead of ``images``.
            image_ids: a number for each image.
            pruning: for this call instead of the model's own.
            trace: filled with what was done.
            **kwargs: as transformers' `generate`.

        Raises:
            ValueError: as `prepare`; embeddings given; images beside a filled cache; a cache whose
                layers hold different numbers of positions; pruning inside the language model with a
                way of generating that cuts or splits caches (assisted, chunked, static, ...).
        """
        inputs = kwargs.pop("input_ids", inputs)
        if inputs is None or kwargs.get("inputs_embeds") is not None:
            raise ValueError("generate needs token ids; embeddings are made from them here")
        llama: Any = super()
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length() > 0:
            check_continuing(inputs, images is not None or visual is not None)
            check_even(cache, self.config.num_hidden_layers)
            with_defaults(kwargs)
            return llama.generate(inputs, attention_mask=attention_mask, **kwargs)
        if kwargs.pop("position_ids", None) is not None:
            raise ValueError("position_ids follow from attention_mask and pruning; leave them out")
        chosen = self._chosen(pruning)
        given = _ImageArguments(images, image_sizes, visual, image_ids, chosen, trace)
        prepared = self._prepared(inputs, attention_mask, None, given, "left")
        check_generation(kwargs, self.generation_config, inside=prepared.plan is not None)
        if prepared.plan is not None:
            kwargs["layer_plan"] = prepared.plan
        with_defaults(kwargs)
        batch = prepared.batch
        return llama.generate(
            inputs_embeds=batch.embeds,
            attention_mask=batch.attention_mask.long(),
            position_ids=batch.position_ids,
            **kwargs,
        )
