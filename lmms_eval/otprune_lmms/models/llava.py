"""LLaVA-1.5 and 1.6 through our own `llava` package: the only file that imports it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from llava.checkpoint.config import read_config
from llava.checkpoint.files import CheckpointFiles
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.images import process_images
from llava.images.layouts import get_anyres_image_grid_shape
from llava.mm_utils import mark_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.model.visual_tokens import TokenLayout, token_layout
from otprune.hf.decoding import LeanDecoder
from otprune.hf.layers import decoder_shape
from otprune.hf.prefixes import Prefixes, keeps_prefixes
from otprune.pruning import Pruning, Trace
from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.models.fingerprint import model_fingerprint
from otprune_lmms.models.generation import (
    Endings,
    FiniteLogits,
    StopAt,
    after_each_forward,
    cut,
    each_likelihood,
    end_ids,
    is_unfinished,
    likelihood_of,
    padded,
    padding_id,
    shared_likelihoods,
    written_tokens,
)
from otprune_lmms.models.image_views import AS_SEEN, raster
from otprune_lmms.models.llava_source import CHAT_TEMPLATE, check_template, template_of
from otprune_lmms.models.long_prompts import PromptBound
from otprune_lmms.models.protocol import (
    Generation,
    ImageView,
    Likelihood,
    ModelInput,
    ModelSource,
    Pixels,
    Prompt,
    VisionLanguageModel,
    Written,
)
from otprune_lmms.models.shared_prefix import PrefixRules, SharedPrefixes

logger = logging.getLogger(__name__)


def load(source: ModelSource) -> "Llava":
    """Return a loaded LLaVA; see `models.load_model`."""
    template = template_of(source)
    device = source.device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_pretrained_model(
        source.pretrained,
        source.model_base,
        load_8bit=source.load_8bit,
        load_4bit=source.load_4bit,
        device_map="auto",
        device="cuda" if source.device_map == "auto" else device,
        attn_implementation=source.attn_implementation,
        torch_dtype=source.dtype,
        revision=source.revision,
    )
    model = Llava(loaded, template, use_cache=source.use_cache)
    model.hub = _commits(source)
    return model


def _commits(source: ModelSource) -> dict[str, str]:
    """Return the commits of the repositories on the hub that a model's files came from."""
    files = CheckpointFiles(source.pretrained, source.revision, local_files_only=True)
    some = [files, read_config(files).tower]
    if source.model_base is not None:
        some.append(CheckpointFiles(source.model_base, local_files_only=True))
    return {one.name: one.commit for one in some if one is not None and one.commit is not None}


class Llava(VisionLanguageModel):
    """LLaVA with its tokenizer and image processor.

    Args:
        loaded: what `load_pretrained_model` returns.
        chat_template: name of the conversation template.
        use_cache: keep keys and values while decoding.

    Attributes:
        model: the model of the `llava` package.
        tokenizer: its tokenizer.
        image_processor: its image processor.
    """

    packages = ("llava",)

    def __init__(
        self,
        loaded: tuple[Any, Any, Any, int],
        chat_template: str = CHAT_TEMPLATE,
        *,
        use_cache: bool = True,
    ) -> None:
        check_template(chat_template)
        self.tokenizer, self.model, self.image_processor, _ = loaded
        self.model.eval()
        self.chat_template, self.use_cache = chat_template, use_cache
        self.shape = decoder_shape(self.model.config)
        found = {weight.device for weight in self.model.parameters()}
        self.devices = tuple(sorted(found, key=str))
        self.dtype = self.model.dtype
        self.attention = str(getattr(self.model.config, "_attn_implementation", None))
        self._fingerprint: str | None = None
        self._lean, self._endings = LeanDecoder(self.model.get_model()), Endings(self.tokenizer)
        self.bound = PromptBound(
            self._longest, self.tokenizer, DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
        )

    @property
    def _longest(self) -> int:
        """The most positions of a prompt: where the model cuts it, else all that it has."""
        given = getattr(self.model.config, "tokenizer_model_max_length", None)
        return int(given or self.model.config.max_position_embeddings)

    @property
    def fingerprint(self) -> str:
        """Hash of weights, configuration, vocabulary and preprocessing; see the base class."""
        if self._fingerprint is None:
            self._fingerprint = model_fingerprint(self.model, self.tokenizer, self.image_processor)
        return self._fingerprint

    def check(self, pruning: Pruning | None) -> None:
        """Raise ``ValueError`` unless the model can carry out a pruning, for one-tile images."""
        self.model.check_pruning(pruning)

    def render(
        self,
        context: str,
        images: int,
        generation: Mapping[str, Any],
        answer: str | None = None,
    ) -> Prompt:
        """Return the prompt of a request, as lmms-eval's own wrapper builds it.

        A context that places no ``<image>`` gets one for each image, in a line of its own in front.
        If the checkpoint was trained so (``mm_use_im_start_end``), each stands between
        ``<im_start>`` and ``<im_end>``, which lmms-eval's wrapper leaves out.
        ``image_aspect_ratio`` among the generation settings counts only if the checkpoint's
        configuration has no such field, as in lmms-eval's wrapper, and for this request alone.
        """
        placed = context.count(DEFAULT_IMAGE_TOKEN)
        if placed and placed != images:
            raise ValueError(f"the context places {placed} images, the document has {images}")
        if images and not placed:
            context = " ".join([DEFAULT_IMAGE_TOKEN] * images) + "\n" + context
        conversation = conv_templates[self.chat_template].copy()
        marked = mark_images(context, self.model.config)
        conversation.append_message(conversation.roles[0], marked)
        conversation.append_message(conversation.roles[1], answer)
        own_aspect = "image_aspect_ratio" in vars(self.model.config)
        aspect = None if own_aspect else generation.get("image_aspect_ratio")
        return Prompt(conversation.get_prompt(), aspect)

    def token_ids(self, prompt: Prompt, visual: Sequence[ImageTokens] = ()) -> Tensor:
        """Return the ids of a prompt, [t], with `IMAGE_TOKEN_INDEX` for each image.

        What the images are does not count. Of a prompt that is longer than the model takes only the
        beginning, see `PromptBound`.
        """
        ids = tokenizer_image_token(self.bound.text(prompt.text), self.tokenizer)
        return self.bound.ids(torch.as_tensor(ids, dtype=torch.long))

    def text_tokens(self, prompt: Prompt) -> int:
        """Return how many of a prompt's ids are text."""
        return int((self.token_ids(prompt) != IMAGE_TOKEN_INDEX).sum())

    def preprocess(self, image: Image.Image, view: str | None = None) -> Pixels:
        """Return an image's tiles: [3 s s], or [t 3 s s] under anyres.

        ``view`` is an ``image_aspect_ratio`` instead of the checkpoint's own.
        """
        config = self.model.config
        if view is not None:
            pinpoints = getattr(config, "image_grid_pinpoints", None)
            config = SimpleNamespace(image_aspect_ratio=view, image_grid_pinpoints=pinpoints)
        values = process_images([image], self.image_processor, config)[0]
        return Pixels(values, image.size, view)

    def encode(self, pixels: Sequence[Pixels], signals: frozenset[str]) -> list[ImageTokens]:
        """Return the visual tokens of images; all tiles go through the vision tower at once."""
        values: Any = [one.values for one in pixels]
        if all(value.ndim == 3 for value in values):
            values = torch.stack(values)
        sizes, views = [one.size for one in pixels], [one.view for one in pixels]
        return self.model.encode_visual(values, sizes, signals, aspects=views)

    def generate(
        self,
        inputs: Sequence[ModelInput],
        pruning: Pruning | None,
        generation: Generation,
        trace: Trace,
        *,
        share_prefix: bool = False,
    ) -> list[Written]:
        """Return the answers to prompts, all in one call of `generate`."""
        finite, padding = FiniteLogits(), padding_id(self.tokenizer)
        # The largest of NaNs is taken without complaint; only drawing and beams need the zeros.
        changes = [finite] if generation.samples or generation.num_beams > 1 else []
        shared, begin = None, 0
        if share_prefix and self.use_cache and not changes:
            shared = self._shared(inputs, pruning, together=True)
        if shared is None:
            call = self._batch(inputs) | {"pruning": pruning, "trace": trace}
        else:
            call = self._continued(shared, pruning, trace)
            # What continues a cache returns its ids before the answer.
            begin = call["input_ids"].shape[1]
        criteria = StoppingCriteriaList()
        if generation.until:
            criteria.append(StopAt(generation.until, self._endings, begin))
        with finite.watching(self.model), self._lean.installed():
            output = self.model.generate(
                **call,
                pad_token_id=padding,
                stopping_criteria=criteria,
                logits_processor=LogitsProcessorList(changes),
                do_sample=generation.samples,
                temperature=generation.temperature,
                top_p=generation.top_p,
                num_beams=generation.num_beams,
                max_new_tokens=generation.max_new_tokens,
                use_cache=self.use_cache,
            )
        output = output[:, begin:].cpu()
        # A model without a longest prompt of its own cuts none; its ids are cut, see `PromptBound`.
        for row, one in enumerate(inputs):
            trace.truncated[row] = max(trace.truncated[row], len(one.ids) - self.bound.positions, 0)
        texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
        tokens = [written_tokens(row, padding) for row in output]
        ends = end_ids(self.model)
        return [
            Written(
                cut(text, generation.until),
                number,
                usable,
                is_unfinished(row[:number], text, generation, ends),
            )
            for row, text, number, usable in zip(
                output, texts, tokens, finite.rows(tokens), strict=True
            )
        ]

    def loglikelihood(
        self,
        inputs: Sequence[ModelInput],
        pruning: Pruning | None,
        trace: Trace,
        *,
        share_prefix: bool = False,
    ) -> list[Likelihood]:
        """Return the likelihood of each prompt's continuation.

        There is one call for each prompt, or one for all that share a prefix. The continuation is
        found from the end of the sequence: images and pruning only change positions before it.
        """
        shared = None
        if share_prefix and all(one.answer for one in inputs):
            shared = self._shared(inputs, pruning, together=False)
        if shared is not None:
            call = self._continued(shared, pruning, trace)
            return shared_likelihoods(self.model, call, inputs)
        return each_likelihood(
            inputs,
            trace,
            self.bound.positions,
            lambda one, own: self._likelihood(one, pruning, own),
        )

    def _likelihood(self, one: ModelInput, pruning: Pruning | None, trace: Trace) -> Likelihood:
        logits = self.model(
            input_ids=one.ids[None].to(self.model.device),
            visual=list(one.visual),
            image_ids=list(one.image_ids),
            answer_lengths=[one.answer],
            pruning=pruning,
            trace=trace,
            use_cache=False,
            logits_to_keep=one.answer + 1,
        ).logits[0]
        if any(trace.truncated):
            raise ValueError(
                f"the prompt is {trace.truncated[0]} positions longer than the model takes, and "
                "the continuation at its end is cut"
            )
        return likelihood_of(logits[:-1], one)

    def _shared(
        self, inputs: Sequence[ModelInput], pruning: Pruning | None, *, together: bool
    ) -> SharedPrefixes | None:
        """Return how prompts are cut that share prefixes; see `PrefixRules.shared`."""
        if not keeps_prefixes(self.model.config):
            return None
        rules = PrefixRules(self.shape, IMAGE_TOKEN_INDEX, self.bound.positions)
        return rules.shared(inputs, pruning, together=together)

    @torch.no_grad()
    def _continued(
        self, shared: SharedPrefixes, pruning: Pruning | None, trace: Trace
    ) -> dict[str, Any]:
        """Read the prefixes; return the arguments of the call that goes on from them."""
        given, read = self._batch(shared.prefixes, "input_ids"), Trace(watch=trace.watch)
        batch = self.model.prepare(
            labels=None, **given, pruning=pruning, side="left", trace=read
        ).batch
        output = self.model.get_model()(
            inputs_embeds=batch.embeds,
            attention_mask=batch.attention_mask.long(),
            position_ids=batch.position_ids,
            use_cache=True,
        )
        following = batch.lengths
        if pruning is not None and pruning.positions_at(0) == "original":
            # An image counts as one id, and as all of its tokens before pruning.
            following = [
                len(one.ids) + sum(len(image) - 1 for image in one.visual)
                for one in shared.prefixes
            ]
        shared.fill(trace, read)
        mask = batch.attention_mask
        found = Prefixes(output.past_key_values, mask, torch.tensor(following).to(mask.device))
        padding = padding_id(self.tokenizer)
        return found.continued(shared.suffixes, shared.prefix_of, padding)

    def prefill(self, inputs: Sequence[ModelInput], pruning: Pruning | None, trace: Trace) -> int:
        """Run one prefill of a batch; return the bytes of its cache, padding included."""
        output = self.model(
            **self._batch(inputs, "input_ids"),
            pruning=pruning,
            trace=trace,
            logits_to_keep=1,
            use_cache=True,
        )
        layers = output.past_key_values.layers
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)

    def on_call(self, called: Callable[[], None]) -> AbstractContextManager[None]:
        """Call a function after each forward call of the model in this context."""
        return after_each_forward(self.model, called)

    def image_views(self, pixels: Pixels) -> list[ImageView]:
        """Return one view of a single tile; under anyres the whole image, and its tiles.

        Patches that the merge cuts off have no token; newline tokens and CLS have no patch.
        """
        tower = self.model.get_vision_tower()
        side = tower.num_patches_per_side
        extra = int(tower.select_feature == "cls_patch")
        values = pixels.values
        tiles = 1 if values.ndim == 3 else len(values)
        per_tile = side * side + extra
        layout = TokenLayout(torch.arange(per_tile), None)
        if values.ndim == 4:
            layout = token_layout(
                self.model.config, tiles, pixels.size, side, tower.image_processor.side, per_tile
            )
        numbers = np.full(tiles * per_tile, -1)
        source = layout.source.numpy()
        numbers[source[source >= 0]] = np.flatnonzero(source >= 0)
        # CLS, where it is a token, comes before the patches.
        patches = numbers.reshape(tiles, per_tile)[:, extra:].reshape(tiles, side, side)
        seen = self._colours(values.reshape(tiles, *values.shape[-3:]), side)
        if tiles == 1:
            return [ImageView(AS_SEEN, seen[0], patches[0])]
        wide, high = self._grid(pixels.size, tiles - 1)
        return [
            ImageView("whole image, one tile", seen[0], patches[0]),
            ImageView(
                f"{high} x {wide} tiles",
                raster(seen[1:], high, wide),
                raster(patches[1:], high, wide),
            ),
        ]

    def _grid(self, size: tuple[int, int], tiles: int) -> tuple[int, int]:
        """Return how many tiles lie side by side, and how many on top of each other."""
        pinpoints = getattr(self.model.config, "image_grid_pinpoints", None)
        if pinpoints is None:
            return tiles, 1
        side = self.model.get_vision_tower().image_processor.side
        return get_anyres_image_grid_shape(size, pinpoints, side)

    def _colours(self, tiles: Tensor, side: int) -> np.ndarray:
        """Return tiles of pixel values as colours [t h w 3] in [0, 1], cut to whole patches."""
        mean = np.array(self.image_processor.image_mean)[:, None, None]
        std = np.array(self.image_processor.image_std)[:, None, None]
        seen = tiles.float().cpu().numpy() * std + mean
        whole = seen.shape[-1] // side * side
        return seen.transpose(0, 2, 3, 1).clip(0, 1)[:, :whole, :whole]

    def _batch(self, inputs: Sequence[ModelInput], ids_name: str = "inputs") -> dict[str, Any]:
        """Return the arguments of a call about several prompts, padded on the left."""
        ids, mask = padded([one.ids for one in inputs], padding_id(self.tokenizer))
        device = self.model.device
        return {
            ids_name: ids.to(device),
            "attention_mask": mask.to(device),
            "visual": [image for one in inputs for image in one.visual],
            "image_ids": [number for one in inputs for number in one.image_ids],
        }
