"""Every vision-language model of transformers: one family, since the library's seams are the same.

What differs between them, where images are and what belongs to their tokens, is in
`otprune.hf.families`; how lmms-eval's wrappers ask them is in `wrapper_rules`.
"""

import dataclasses
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from otprune.hf.calls import EncodedCalls, PromptBatch
from otprune.hf.decoding import LeanDecoder
from otprune.hf.encoded import EncodedImage, ImageInputs
from otprune.hf.families import UnsupportedModelError
from otprune.hf.layers import decoder_shape
from otprune.pruning import Pruning, Trace
from otprune.pruning.image_tokens import ImageTokens
from otprune_lmms.embedded import checkpoint_folder
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
from otprune_lmms.models.image_views import views_of
from otprune_lmms.models.processors import ChatProcessor, load_processor
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
from otprune_lmms.models.transformers_source import check_source, config_of, place_of

logger = logging.getLogger(__name__)


def load(source: ModelSource) -> "TransformersModel":
    """Return a loaded model; see `models.load_model`."""
    check_source(source)
    config = config_of(source)
    device = source.device or ("cuda" if torch.cuda.is_available() else "cpu")
    # On a GPU the weights' own dtype: most were trained in bfloat16, whose range float16 lacks.
    dtype = source.dtype or ("float32" if device == "cpu" else "auto")
    settings: dict[str, Any] = {
        "dtype": dtype,
        "device_map": source.device_map or device,
        "revision": source.revision,
        "attn_implementation": source.attn_implementation,
    }
    if source.load_4bit or source.load_8bit:
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=source.load_4bit, load_in_8bit=source.load_8bit
        )
    # With this argument it returns a pair, which its type does not say.
    settings["output_loading_info"] = True
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(place_of(source), **settings)
        processor = load_processor(
            place_of(source), config, source.revision, (source.min_pixels, source.max_pixels)
        )
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
        raise ValueError(f"{source.pretrained} cannot be loaded: {error}") from error
    model, report = loaded
    missing = sorted(report["missing_keys"]) + sorted(one[0] for one in report["mismatched_keys"])
    if missing:
        raise ValueError(
            f"{source.pretrained} must have all weights, got none that fit {', '.join(missing[:4])}"
            + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        )
    made = TransformersModel(model, processor, use_cache=source.use_cache)
    commit = getattr(model.config, "_commit_hash", None)
    if commit is not None and checkpoint_folder(source.pretrained) is None:
        made.hub = {source.pretrained: commit}
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedPixels(Pixels):
    """An image as the checkpoint's processor gives it.

    Attributes:
        inputs: pixels and what belongs to them, for the vision encoder.
        placeholder: the text that stands for the image in a prompt.
    """

    inputs: Mapping[str, Tensor]
    placeholder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenImage(EncodedImage):
    """An encoded image with the text that stands for it in a prompt."""

    placeholder: str


def _decoder_of(calls: EncodedCalls) -> Any:
    """Return the module that runs the decoder layers; None where it is not found."""
    try:
        return calls.family.decoder
    except UnsupportedModelError:
        return None


class TransformersModel(VisionLanguageModel):
    """A ``...ForConditionalGeneration`` of transformers with its processor.

    Args:
        model: the model.
        processor: its processor.
        use_cache: keep keys and values while decoding.

    Attributes:
        model: the model.
        processor: its processor.

    Raises:
        UnsupportedModelError: visual tokens of the model cannot be pruned.
    """

    packages = ()
    image_class = SeenImage

    def __init__(self, model: Any, processor: ChatProcessor, *, use_cache: bool = True) -> None:
        self.model, self.processor, self.use_cache = model.eval(), processor, use_cache
        self.calls = EncodedCalls(model, processor.tokenizer)
        self._lean = LeanDecoder(_decoder_of(self.calls))
        self._endings = Endings(processor.tokenizer)
        text = model.config.get_text_config()
        self.shape = decoder_shape(text)
        self.devices = tuple(sorted({one.device for one in model.parameters()}, key=str))
        self.dtype = model.dtype
        self.attention = str(getattr(model.config, "_attn_implementation", None))
        self.max_new_tokens = processor.rules.max_new_tokens
        self.positions = int(text.max_position_embeddings)
        self._image_id = self.calls.family.placeholder("image")
        self._fingerprint: str | None = None
        parameters = inspect.signature(model.forward).parameters
        self._keeps_logits = "logits_to_keep" in parameters

    @property
    def fingerprint(self) -> str:
        """Hash of weights, configuration, vocabulary and processor; see the base class."""
        if self._fingerprint is None:
            tokenizer = self.processor.tokenizer
            self._fingerprint = model_fingerprint(self.model, tokenizer, self.processor)
        return self._fingerprint

    def check(self, pruning: Pruning | None) -> None:
        """Raise ``ValueError`` with one sentence unless the model can carry out a pruning."""
        self.calls.check(pruning)

    def render(
        self,
        context: str,
        images: int,
        generation: Mapping[str, Any],
        answer: str | None = None,
    ) -> Prompt:
        """Return the prompt of a request, as lmms-eval's wrapper of the family builds it.

        It has the family's image token once for each image; `token_ids` puts in its place what
        stands for the image.
        """
        text = self.processor.prompt(context, images, answer)
        return Prompt(text, self.processor.view(images))

    def token_ids(self, prompt: Prompt, visual: Sequence[ImageTokens] = ()) -> Tensor:
        """Return the ids of a prompt, [t], with a placeholder for each visual token of its images.

        Without ``visual`` each image has one. Of a prompt longer than the model takes there is one
        id more than fits, so that the cut is seen.

        Raises:
            ValueError: an image would be cut.
        """
        text = prompt.text
        if visual:
            first, *others = text.split(self.processor.image_token)
            shown = [one.placeholder for one in visual if isinstance(one, SeenImage)]
            text = first + "".join(
                placeholder + after for placeholder, after in zip(shown, others, strict=True)
            )
        ids = torch.tensor(self.processor.ids(text), dtype=torch.long)
        beyond = ids[self.positions :]
        if bool((beyond == self._image_id).any()):
            raise ValueError(
                f"the prompt has {len(ids)} tokens, more than the {self.positions} positions that "
                "the model takes, and images are among those that are cut"
            )
        return ids[: self.positions + 1]

    def text_tokens(self, prompt: Prompt) -> int:
        """Return how many of a prompt's ids are text."""
        ids = self.token_ids(prompt)
        return len(ids) - prompt.text.count(self.processor.image_token)

    def preprocess(self, image: Image.Image, view: str | None = None) -> Pixels:
        """Return the pixel values of one RGB image, as the checkpoint's processor makes them."""
        made = self.processor.image(image, view)
        names = sorted(name for name in made.values if name.startswith("pixel_values"))
        return ProcessedPixels(
            values=made.values[names[0]],
            size=image.size,
            view=view,
            inputs=made.values,
            placeholder=made.placeholder,
        )

    def encode(self, pixels: Sequence[Pixels], signals: frozenset[str]) -> list[ImageTokens]:
        """Return the visual tokens of images; those of equal shape are encoded in one call."""
        processed = [one for one in pixels if isinstance(one, ProcessedPixels)]
        given = [ImageInputs(one.inputs, self._placeholders(one.placeholder)) for one in processed]
        return [
            SeenImage(
                **{each.name: getattr(image, each.name) for each in dataclasses.fields(image)},
                placeholder=one.placeholder,
            )
            for image, one in zip(self.calls.encode(given, signals), processed, strict=True)
        ]

    def _placeholders(self, text: str) -> int:
        """Return how many visual tokens a text stands for."""
        ids = self.processor.tokenizer(text, add_special_tokens=False).input_ids
        return ids.count(self._image_id)

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
        tokenizer = self.processor.tokenizer
        finite, padding = FiniteLogits(), padding_id(tokenizer)
        # The largest of NaNs is taken without complaint; only drawing and beams need the zeros.
        changes = [finite] if generation.samples or generation.num_beams > 1 else []
        until = [one for one in generation.until if one not in self.processor.rules.ignored_stops]
        shared = None
        if share_prefix and self.use_cache and not changes:
            shared = self._shared(inputs, pruning, together=True)
        with (
            # First, so that pruning inside the decoder is around it.
            self._lean.installed(),
            self._call(inputs, pruning, trace, generation.num_beams, shared=shared) as arguments,
        ):
            begin = arguments["input_ids"].shape[1]
            criteria = StoppingCriteriaList([StopAt(until, self._endings, begin)] if until else [])
            with finite.watching(self.model):
                output = self.model.generate(
                    **arguments,
                    pad_token_id=padding,
                    eos_token_id=self._ends,
                    stopping_criteria=criteria,
                    logits_processor=LogitsProcessorList(changes),
                    do_sample=generation.samples,
                    temperature=generation.temperature if generation.samples else None,
                    top_p=generation.top_p,
                    # None is the checkpoint's own, of which greedy decoding has no use.
                    top_k=None if generation.samples else 50,
                    num_beams=generation.num_beams,
                    max_new_tokens=generation.max_new_tokens,
                    use_cache=self.use_cache,
                )
        output = output[:, begin:].cpu()
        texts = tokenizer.batch_decode(output, skip_special_tokens=True)
        tokens = [written_tokens(row, padding) for row in output]
        stopping = dataclasses.replace(generation, until=tuple(until))
        return [
            Written(
                cut(text, until),
                number,
                usable,
                is_unfinished(row[:number], text, stopping, self._ends),
            )
            for row, text, number, usable in zip(
                output, texts, tokens, finite.rows(tokens), strict=True
            )
        ]

    @property
    def _ends(self) -> list[int]:
        """Ids that end an answer: the tokenizer's, and those of the generation settings."""
        own = {self.processor.tokenizer.eos_token_id} - {None}
        return sorted(own | end_ids(self.model))

    @contextmanager
    def _call(
        self,
        inputs: Sequence[ModelInput],
        pruning: Pruning | None,
        trace: Trace,
        repeats: int = 1,
        *,
        likelihood: bool = False,
        shared: SharedPrefixes | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Give the arguments of a call about several prompts, padded on the left."""
        if shared is not None:
            read, padding = Trace(watch=trace.watch), padding_id(self.processor.tokenizer)
            prefixes = self.calls.prefixes(self._prompts(shared.prefixes), pruning, read)
            shared.fill(trace, read)
            yield prefixes.continued(shared.suffixes, shared.prefix_of, padding)
            return
        batch = self._prompts(inputs, likelihood=likelihood)
        with self.calls.call(batch, pruning, trace, repeats=repeats) as arguments:
            for row, one in enumerate(inputs):
                trace.truncated[row] = max(0, len(one.ids) - self.positions)
            yield arguments

    def _prompts(self, inputs: Sequence[ModelInput], *, likelihood: bool = False) -> PromptBatch:
        """Return prompts as a batch, padded on the left and cut where they are too long."""
        rows = [one.ids[: self.positions] for one in inputs]
        ids, mask = padded(rows, padding_id(self.processor.tokenizer))
        images = [image for one in inputs for image in one.visual]
        return PromptBatch(
            ids,
            mask,
            [image for image in images if isinstance(image, EncodedImage)],
            [number for one in inputs for number in one.image_ids],
            [one.answer for one in inputs] if likelihood else None,
        )

    def _shared(
        self, inputs: Sequence[ModelInput], pruning: Pruning | None, *, together: bool
    ) -> SharedPrefixes | None:
        """Return how prompts are cut that share prefixes; see `PrefixRules.shared`."""
        if not self.calls.family.shares_prefixes:
            return None
        rules = PrefixRules(self.shape, self._image_id, self.positions)
        return rules.shared(inputs, pruning, together=together)

    def loglikelihood(
        self,
        inputs: Sequence[ModelInput],
        pruning: Pruning | None,
        trace: Trace,
        *,
        share_prefix: bool = False,
    ) -> list[Likelihood]:
        """Return the likelihood of each prompt's continuation.

        There is one call for each prompt, or one for all that share a prefix.
        """
        shared = None
        if share_prefix and self._keeps_logits and all(one.answer for one in inputs):
            shared = self._shared(inputs, pruning, together=False)
        if shared is not None:
            with self._call(inputs, pruning, trace, shared=shared) as arguments:
                return shared_likelihoods(self.model, arguments, inputs)
        return each_likelihood(
            inputs, trace, self.positions, lambda one, own: self._likelihood(one, pruning, own)
        )

    @torch.no_grad()
    def _likelihood(self, one: ModelInput, pruning: Pruning | None, trace: Trace) -> Likelihood:
        kept = {"logits_to_keep": one.answer + 1} if self._keeps_logits else {}
        with self._call([one], pruning, trace, likelihood=True) as arguments:
            logits = self.model(**arguments, **kept, use_cache=False).logits[0]
        return likelihood_of(logits[-one.answer - 1 : -1], one)

    @torch.no_grad()
    def prefill(self, inputs: Sequence[ModelInput], pruning: Pruning | None, trace: Trace) -> int:
        """Run one prefill of a batch; return the bytes of its cache, padding included."""
        kept = {"logits_to_keep": 1} if self._keeps_logits else {}
        with self._call(inputs, pruning, trace) as arguments:
            layers = self.model(**arguments, **kept, use_cache=True).past_key_values.layers
        held = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
        return sum(one.nbytes for one in held if isinstance(one, Tensor))

    def on_call(self, called: Callable[[], None]) -> AbstractContextManager[None]:
        """Call a function after each forward call of the model in this context."""
        return after_each_forward(self.model, called)

    def image_views(self, pixels: Pixels) -> list[ImageView]:
        """Return what the model sees of an image; see `image_views.views_of`."""
        if not isinstance(pixels, ProcessedPixels):
            raise ValueError("pixels must be from this model's preprocess")
        tokens = self._placeholders(pixels.placeholder)
        return views_of(self.calls.family, self.processor.image_processor, pixels.inputs, tokens)
