"""LLaVA on transformers' Llama."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from llava.constants import IGNORE_INDEX
from llava.images.layouts import Size
from llava.model.llava_arch import LlavaMetaForCausalLM, LlavaMetaModel, Prepared
from llava.model.multimodal_encoder.builder import TOWERS
from llava.model.visual_tokens import ImageTokens
from llava.pruning.inside_llm import install_hooks, layer_run
from llava.pruning.prefill import LayerPlan, PrefillRun
from llava.pruning.rows import Side
from llava.pruning.settings import Pruning
from llava.pruning.trace import Trace


class _ModelsOwn:
    """Stands for the pruning that the model itself is set to."""

    def __repr__(self) -> str:
        return "the model's own pruning"


OWN: Final = _ModelsOwn()

_NOT_INSIDE = (
    "assistant_model",
    "prompt_lookup_num_tokens",
    "prefill_chunk_size",
    "cache_implementation",
    "custom_generate",
    "penalty_alpha",
    "dola_layers",
)
"""Ways of generating that cut, copy or preallocate caches, or split the prompt."""

_LIMITS = ("max_new_tokens", "max_length", "generation_config")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a call says about its images; see `LlavaLlamaForCausalLM.forward`."""

    images: Tensor | Sequence[Tensor] | None
    image_sizes: Sequence[Size] | None
    visual: Sequence[ImageTokens] | None
    image_ids: Sequence[int | None] | None
    pruning: Pruning | None
    trace: Trace | None


class LlavaConfig(LlamaConfig):
    """Llama's configuration with LLaVA's ``mm_*`` fields as further attributes."""

    model_type = "llava_llama"


class LlavaLlamaModel(LlavaMetaModel, LlamaModel):
    """Llama's decoder with vision tower and projector."""

    config_class = LlavaConfig

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        install_hooks(self.layers)


class LlavaLlamaForCausalLM(LlavaMetaForCausalLM, LlamaForCausalLM):
    """Llama that answers questions about images, with visual tokens pruned on request.

    Attributes:
        pruning: what every call prunes unless it says otherwise; None for nothing.
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
        pruning: Pruning | _ModelsOwn | None = OWN,
        trace: Trace | None = None,
        layer_plan: LayerPlan | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits, and the loss if labels are given, for prompts with images.

        Logits and labels are those of the sequence that is left after pruning. Beyond the arguments
        of Llama's `forward`:

        Args:
            input_ids: [b t], `IMAGE_TOKEN_INDEX` where an image goes; padding on either side.
            attention_mask: which ids are no padding.
            position_ids: used with ``inputs_embeds`` or a cache only.
            past_key_values: cache; if it holds something the call goes on from it, and images are
                not looked at.
            inputs_embeds: instead of ids, and then without images.
            labels: one for each id, `IGNORE_INDEX` where no loss is taken.
            use_cache: keep keys and values.
            logits_to_keep: as in Llama; 0 for all.
            images: pixel values, see `encode_visual`; one image for each `IMAGE_TOKEN_INDEX`.
            image_sizes: width and height of each image in pixels.
            visual: visual tokens of each image instead of ``images``.
            image_ids: a number that names each image, for seeded methods.
            pruning: instead of the model's own for this call.
            trace: filled with what was done.
            layer_plan: what `generate` hands on; not for callers.
            **kwargs: as Llama.

        Raises:
            ValueError: see `prepare`; images and visual both given.
        """
        cached = past_key_values is not None and past_key_values.get_seq_length() > 0
        if inputs_embeds is None and input_ids is not None and not cached:
            chosen = self.pruning if isinstance(pruning, _ModelsOwn) else pruning
            asked = _Asked(images, image_sizes, visual, image_ids, chosen, trace)
            side: Side = getattr(self.config, "tokenizer_padding_side", "right")
            prepared = self._prepared(input_ids, attention_mask, labels, asked, side)
            batch, layer_plan = prepared.batch, prepared.plan
            input_ids, inputs_embeds, labels = None, batch.embeds, batch.labels
            attention_mask, position_ids = batch.attention_mask.long(), batch.position_ids
        wants_cache = self.config.use_cache if use_cache is None else use_cache
        if layer_plan is not None and past_key_values is None and wants_cache:
            # What decoding needs to know lives on the cache, so it must exist beforehand.
            past_key_values = DynamicCache(config=self.config)
        given = inputs_embeds if inputs_embeds is not None else input_ids
        llama: Any = super()
        with layer_run(self.model, layer_plan, past_key_values, _length(given)) as run:
            late = isinstance(run, PrefillRun) and labels is not None
            output = llama.forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                inputs_embeds=inputs_embeds,
                labels=None if late else labels,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                **(kwargs | {"return_dict": True} if late else kwargs),
            )
        if isinstance(run, PrefillRun) and labels is not None:
            # Only now is it known which positions are left.
            left = run.labels(labels, IGNORE_INDEX)
            output.loss = self.loss_function(
                logits=output.logits, labels=left, vocab_size=self.config.vocab_size
            )
        return output

    def _prepared(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None,
        asked: _Asked,
        side: Side,
    ) -> Prepared:
        if asked.images is not None and asked.visual is not None:
            raise ValueError("images and visual must not both be given")
        visual: Sequence[ImageTokens] = asked.visual or []
        # An empty list is how some callers say that there are no images.
        if asked.images is not None and len(asked.images) > 0:
            signals = frozenset() if asked.pruning is None else asked.pruning.needs
            visual = self.encode_visual(asked.images, asked.image_sizes, signals)
        return self.prepare(
            input_ids,
            attention_mask,
            labels,
            visual,
            pruning=asked.pruning,
            side=side,
            image_ids=asked.image_ids,
            trace=asked.trace,
        )

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        inputs: Tensor | None = None,
        images: Tensor | Sequence[Tensor] | None = None,
        image_sizes: Sequence[Size] | None = None,
        *,
        attention_mask: Tensor | None = None,
        visual: Sequence[ImageTokens] | None = None,
        image_ids: Sequence[int | None] | None = None,
        pruning: Pruning | _ModelsOwn | None = OWN,
        trace: Trace | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return the new tokens, [b t], or what ``return_dict_in_generate`` asks for.

        Rows may be padded on either side and are padded on the left inside: padding on the right
        changes what shorter rows of a batch answer. Without ``max_new_tokens`` or ``max_length``
        up to 1024 tokens are written.

        Args:
            inputs: token ids [b t], `IMAGE_TOKEN_INDEX` where an image goes.
            images: see `forward`; likewise image_sizes, visual, image_ids, pruning and trace.
            image_sizes: width and height of each image in pixels.
            attention_mask: which ids are no padding.
            visual: visual tokens of each image instead of ``images``.
            image_ids: a number that names each image.
            pruning: instead of the model's own for this call.
            trace: filled with what was done.
            **kwargs: as transformers' `generate`.

        Raises:
            ValueError: see `prepare`; embeddings given; pruning inside the language model with a
                way of generating that cuts or splits caches (assisted, chunked, static, ...).
        """
        inputs = kwargs.pop("input_ids", inputs)
        if inputs is None or kwargs.get("inputs_embeds") is not None:
            raise ValueError("generate needs token ids; embeddings are made from them here")
        if kwargs.pop("position_ids", None) is not None:
            raise ValueError("position_ids follow from attention_mask and pruning; leave them out")
        chosen = self.pruning if isinstance(pruning, _ModelsOwn) else pruning
        asked = _Asked(images, image_sizes, visual, image_ids, chosen, trace)
        prepared = self._prepared(inputs, attention_mask, None, asked, "left")
        if prepared.plan is not None:
            _check_generation(kwargs)
            kwargs["layer_plan"] = prepared.plan
        if all(kwargs.get(name) is None for name in _LIMITS):
            kwargs["max_new_tokens"] = 1024
        if kwargs.get("do_sample") is False:
            for name in ("temperature", "top_p", "top_k"):
                # lmms-eval passes them along with do_sample=False, and each brings a warning.
                kwargs.pop(name, None)
        batch = prepared.batch
        llama: Any = super()
        return llama.generate(
            inputs_embeds=batch.embeds,
            attention_mask=batch.attention_mask.long(),
            position_ids=batch.position_ids,
            **kwargs,
        )


def _length(given: Tensor | None) -> int:
    return 0 if given is None else given.shape[1]


def _check_generation(kwargs: dict[str, Any]) -> None:
    config = kwargs.get("generation_config")
    for name in _NOT_INSIDE:
        value = kwargs.get(name, getattr(config, name, None))
        if value is not None and value != "dynamic":
            raise ValueError(f"pruning inside the language model does not go with {name}={value!r}")
