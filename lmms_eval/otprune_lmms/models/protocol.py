"""The model protocol: what the harness needs of a vision-language model.

A family of models is one file beside this one with a subclass of `VisionLanguageModel`. Chat
templates, image preprocessing, placeholders and checkpoints are known there only; the engine passes
and receives plain values.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from otprune.cost import DecoderShape
from otprune.pruning import Pruning, Trace
from otprune.pruning.image_tokens import ImageTokens


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Which model to load, and how.

    Attributes:
        pretrained: folder or hub id of a checkpoint.
        family: a name of `models.FAMILIES`; None for that of the checkpoint's configuration.
        model_base: language model below a projector-only checkpoint or a LoRA adapter.
        chat_template: name of the family's chat template; None for its usual one.
        device: "cuda", "cuda:1", "cpu"; None for a GPU where there is one.
        device_map: "auto" spreads the model over the GPUs.
        dtype: of the weights: float32, float16, bfloat16; None for float32 on a CPU, and on a GPU
            for float16 (LLaVA) or the checkpoint's own (transformers).
        attn_implementation: eager, sdpa, flash_attention_2; None for transformers' choice.
        revision: branch, tag or commit on the hub.
        load_4bit: 4-bit weights.
        load_8bit: 8-bit weights.
        use_cache: keep keys and values while decoding.
        min_pixels: smallest area that images are resized to, in families that take images of any
            size; None for that of lmms-eval's own wrapper.
        max_pixels: the largest one.
        backend: "vllm" has vLLM run the model; None runs it in this process.
        python: interpreter of the environment that has vLLM; None for this one's.
        engine: arguments of ``vllm.LLM``, by name.
    """

    pretrained: str
    family: str | None = None
    model_base: str | None = None
    chat_template: str | None = None
    device: str | None = None
    device_map: str | None = None
    dtype: str | None = None
    attn_implementation: str | None = None
    revision: str | None = None
    load_4bit: bool = False
    load_8bit: bool = False
    use_cache: bool = True
    min_pixels: int | None = None
    max_pixels: int | None = None
    backend: str | None = None
    python: str | None = None
    engine: tuple[tuple[str, Any], ...] = ()


LONGEST_ANSWER = 1024
"""Tokens of an answer where neither a task nor a family says."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Generation settings of a request, defaults filled in.

    Attributes:
        max_new_tokens: longest answer.
        temperature: 0 for greedy decoding.
        top_p: nucleus of sampling; None for all.
        num_beams: beams.
        until: texts that end an answer, left out of it.
    """

    max_new_tokens: int = LONGEST_ANSWER
    temperature: float = 0
    top_p: float | None = None
    num_beams: int = 1
    until: tuple[str, ...] = ()

    @property
    def samples(self) -> bool:
        """Whether answers are drawn."""
        return self.temperature > 0


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request in the form that a model reads.

    Attributes:
        text: the text, chat template included; equal texts are equal prompts.
        image_view: how the images are preprocessed, where a request may choose; None for the
            model's own way. It is part of a request's digest.
    """

    text: str
    image_view: str | None = None


@dataclass(frozen=True, slots=True)
class Pixels:
    """An image, preprocessed for the vision encoder.

    Attributes:
        values: pixel values, float32 on the CPU; their shape is the family's own.
        size: width and height of the image in pixels.
        view: what `preprocess` made of the image instead of the model's usual; None for that.
    """

    values: Tensor
    size: tuple[int, int]
    view: str | None = None


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One prompt, ready for the language model.

    Attributes:
        ids: token ids with the family's image placeholders, [t]; for a loglikelihood with the
            continuation at its end.
        visual: visual tokens of each image.
        image_ids: a number for each image's content, for seeded methods.
        seed: seed of sampled answers to this prompt.
        answer: number of ids at the end that are the continuation; 0 for generation.
    """

    ids: Tensor
    visual: tuple[ImageTokens, ...]
    image_ids: tuple[int, ...]
    seed: int = 0
    answer: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """A generated answer to one prompt.

    Attributes:
        text: the answer, cut at the first stop text.
        tokens: number of generated tokens, the end of turn included.
        finite: whether all logits of its steps were finite numbers.
        unfinished: whether it ended because it had the most tokens allowed: not by an end of turn
            or a stop text.
    """

    text: str
    tokens: int
    finite: bool = True
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The likelihood of one prompt's continuation.

    Attributes:
        loss: mean negative log-likelihood of its tokens, nats.
        greedy: whether each of its tokens is the most likely one.
        tokens: number of its tokens, the chat template's end of turn included.
        finite: whether all logits at its tokens were finite numbers.
    """

    loss: float
    greedy: bool
    tokens: int
    finite: bool = True


@dataclass(frozen=True)
class ImageView:
    """An image as the model sees it, cut into patches.

    Attributes:
        name: for titles.
        pixels: [h w 3] in [0, 1]; h and w are multiples of rows and columns.
        tokens: index of each patch's visual token, [rows columns]; -1 for a patch without one.
    """

    name: str
    pixels: np.ndarray
    tokens: np.ndarray

    def mask(self, kept: np.ndarray) -> np.ndarray:
        """Return which patches' tokens are in ``kept`` (indices [k]), bool [rows columns]."""
        return np.isin(self.tokens, kept) & (self.tokens >= 0)


class VisionLanguageModel(ABC):
    """A loaded model of some family.

    Attributes:
        packages: top-level packages whose source decides its answers, apart from `otprune` and the
            package of its class.
        selects_here: whether tokens are encoded and selected in this process; where another one
            does, nothing can be ranked once for several settings, no phase of an answer be timed,
            and no kept token be shown.
        image_class: class of what `encode` returns, whose fields `models.stored_images` can store.
        shape: the decoder's sizes, for the cost model and for budgets over all layers.
        devices: devices of the weights, each once.
        dtype: dtype of the weights.
        attention: name of the attention implementation.
        hub: commits of the repositories on the hub that it came from; none for a folder.
        max_new_tokens: longest answer where a task does not say.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    selects_here: ClassVar[bool] = True
    image_class: ClassVar[type[ImageTokens]] = ImageTokens
    shape: DecoderShape
    devices: tuple[torch.device, ...]
    dtype: torch.dtype
    attention: str
    hub: Mapping[str, str] = MappingProxyType({})
    max_new_tokens: int = LONGEST_ANSWER

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of all that decides the model's answers: weights, configuration, vocabulary.

        Raises:
            FingerprintError: weights that are not in memory.
        """

    @abstractmethod
    def check(self, pruning: Pruning | None) -> None:
        """Raise ``ValueError`` with one sentence unless the model can carry out a pruning."""

    @abstractmethod
    def render(
        self,
        context: str,
        images: int,
        generation: Mapping[str, Any],
        answer: str | None = None,
    ) -> Prompt:
        """Return the prompt of a request.

        Args:
            context: the task's text; may place images with ``<image>``, otherwise they come first.
            images: number of images.
            generation: the task's generation settings, which may choose an image view.
            answer: the assistant's turn; None leaves it open.

        Raises:
            ValueError: a context that places another number of images.
        """

    @abstractmethod
    def token_ids(self, prompt: Prompt, visual: Sequence[ImageTokens] = ()) -> Tensor:
        """Return the ids of a prompt with its placeholders of images, [t] on the CPU.

        Args:
            prompt: the prompt.
            visual: its images as `encode` returned them, where ids depend on these; without them an
                image has one placeholder.

        Raises:
            ValueError: images that would be cut with the end of a prompt that is too long.
        """

    @abstractmethod
    def text_tokens(self, prompt: Prompt) -> int:
        """Return how many of a prompt's ids are text, the chat template's included."""

    @abstractmethod
    def preprocess(self, image: Image.Image, view: str | None = None) -> Pixels:
        """Return the pixel values of one RGB image; called on worker threads."""

    @abstractmethod
    def encode(self, pixels: Sequence[Pixels], signals: frozenset[str]) -> list[ImageTokens]:
        """Return the visual tokens of images with the signals that methods need."""

    @abstractmethod
    def generate(
        self,
        inputs: Sequence[ModelInput],
        pruning: Pruning | None,
        generation: Generation,
        trace: Trace,
        *,
        share_prefix: bool = False,
    ) -> list[Written]:
        """Return the answers to prompts, all in one call of the language model.

        Args:
            inputs: the prompts.
            pruning: what is pruned; None for nothing.
            generation: how answers are generated.
            trace: filled.
            share_prefix: let prompts with the same images, which are the same objects then, share
                what the model makes of their common beginning, where it can and where it pays. The
                answers are the same up to rounding.
        """

    @abstractmethod
    def loglikelihood(
        self,
        inputs: Sequence[ModelInput],
        pruning: Pruning | None,
        trace: Trace,
        *,
        share_prefix: bool = False,
    ) -> list[Likelihood]:
        """Return the likelihood of each prompt's last ``answer`` ids.

        Methods that read the prompt's text do not see the continuation. ``trace`` has the images of
        all prompts, in order. ``share_prefix`` is as in `generate`.

        Raises:
            ValueError: a continuation without tokens, or cut off by the model's longest prompt.
        """

    @abstractmethod
    def prefill(self, inputs: Sequence[ModelInput], pruning: Pruning | None, trace: Trace) -> int:
        """Run one prefill of a batch; return the bytes of its keys and values, padding included."""

    @abstractmethod
    def on_call(self, called: Callable[[], None]) -> AbstractContextManager[None]:
        """Return a context in which ``called`` is called after each call of the language model."""

    @abstractmethod
    def image_views(self, pixels: Pixels) -> list[ImageView]:
        """Return what the model sees of an image, with the visual token of each patch.

        One view, or several where the model sees an image more than once (whole, and in tiles).
        """
