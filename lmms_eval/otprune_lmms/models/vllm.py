"""Models that vLLM runs with its plug-in otprune-vllm: the backend ``vllm``.

vLLM pins its own torch and transformers, so it is a process of another environment
(`vllm_process`). It encodes images, selects and generates by itself; here prompts are written and
images counted, by the processor that the transformers backend uses. All prompts of a batch are in
vLLM's hands at once, which schedules them as it likes.
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

from otprune import resolve_budget
from otprune.hf.calls import EncodedCalls
from otprune.hf.layers import decoder_shape
from otprune.pruning import Pruning, Trace
from otprune.pruning.image_tokens import ImageTokens
from otprune.serving import ARCHITECTURES, CONFIG_KEY, UNITS, ServedPruning
from otprune_lmms.embedded import checkpoint_folder
from otprune_lmms.models.generation import each_likelihood, padding_id
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
from otprune_lmms.models.vllm_process import VLLMProcess
from otprune_lmms.models.vllm_source import check_source, served

_NO_EFFECT = frozenset(
    {
        "block_size",
        "cpu_offload_gb",
        "disable_custom_all_reduce",
        "distributed_executor_backend",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "max_num_batched_tokens",
        "max_num_seqs",
        "mm_processor_cache_gb",
        "num_gpu_blocks_override",
        "pipeline_parallel_size",
        "tensor_parallel_size",
    }
)
"""Settings of the engine that no answer depends on, up to the order of sums."""


def load(source: ModelSource) -> "VLLMModel":
    """Return a model that vLLM has loaded; see `models.load_model`."""
    check_source(source)
    place = str(checkpoint_folder(source.pretrained) or source.pretrained)
    try:
        config = AutoConfig.from_pretrained(place, revision=source.revision)
        processor = load_processor(
            place, config, source.revision, (source.min_pixels, source.max_pixels)
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{source.pretrained} cannot be loaded: {error}") from error
    (architecture,) = config.architectures or ("none",)
    overrides = ServedPruning().overrides(architecture)
    if ARCHITECTURES[architecture] in UNITS:
        raise ValueError(
            f"{architecture} is not for the backend vllm, which gives each tile a budget of its "
            "own there; the other backends give one to the whole image"
        )
    settings: dict[str, Any] = {
        "model": place,
        "revision": source.revision,
        "dtype": source.dtype or ("float32" if _on_cpu(source) else "auto"),
        "seed": 0,
        "hf_overrides": overrides,
        **dict(source.engine),
    }
    if hasattr(processor.image_processor, "merge_size"):
        # Set by the limits of area.
        settings["mm_processor_kwargs"] = {"size": dict(processor.image_processor.size)}
    # transformers has two image processors for each family; they round resized pixels differently.
    resized_by = str(getattr(processor.image_processor, "backend", "torchvision"))
    told = {"engine": settings, "image_backend": resized_by}
    process = VLLMProcess(source.python or sys.executable, told, _visible(source))
    try:
        model = VLLMModel(
            config,
            processor,
            process,
            _identity(place, config, {**settings, "image_backend": resized_by}),
            _sampling(place, source.revision, processor.tokenizer),
        )
    except (OSError, ValueError):
        process.close()
        raise
    commit = getattr(config, "_commit_hash", None)
    if commit is not None and checkpoint_folder(source.pretrained) is None:
        model.hub = {source.pretrained: commit}
    return model


def _on_cpu(source: ModelSource) -> bool:
    return source.device == "cpu" or (source.device is None and not torch.cuda.is_available())


def _visible(source: ModelSource) -> str | None:
    """Return the GPU that the process sees, where the source names one."""
    name, _, number = (source.device or "").partition(":")
    return number if name == "cuda" and number else None


def _sampling(place: str, revision: str | None, tokenizer: Any) -> dict[str, Any]:
    """Return what a checkpoint's generation settings say of every answer."""
    try:
        given = GenerationConfig.from_pretrained(place, revision=revision or "main")
    except OSError:
        given = GenerationConfig()
    ends = given.eos_token_id if isinstance(given.eos_token_id, list) else [given.eos_token_id]
    return {
        "stop_token_ids": sorted({tokenizer.eos_token_id, *ends} - {None}),
        "repetition_penalty": float(given.repetition_penalty or 1.0),
    }


def _identity(place: str, config: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the answers of an engine, except for its code."""
    folder = Path(place)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    told = {name: value for name, value in settings.items() if name not in _NO_EFFECT}
    told.pop("model")
    return {
        "files": {one.name: _hash(one) for one in files if one.is_file() and one.suffix != ".md"},
        "commit": None if files else getattr(config, "_commit_hash", None) or place,
        "settings": told,
    }


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPixels(Pixels):
    """An image as it is sent to vLLM, and as the checkpoint's processor gives it.

    Attributes:
        image: RGB.
        inputs: pixels and what belongs to them.
        placeholder: ids that stand for the unpruned image in a prompt.
    """

    image: Image.Image
    inputs: Mapping[str, Tensor]
    placeholder: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnencodedImage(ImageTokens):
    """An image that vLLM encodes: its tokens have a number, and no content.

    Attributes:
        image: RGB.
        ids: how many ids stand for it in an unpruned prompt.
    """

    image: Image.Image
    ids: int

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return 3 * self.image.width * self.image.height


class VLLMModel(VisionLanguageModel):
    """A model in a process with vLLM.

    Args:
        config: the checkpoint's configuration.
        processor: its processor.
        process: runs the engine.
        identity: what decides the answers, except for code.
        sampling: arguments of ``vllm.SamplingParams`` that the checkpoint decides.

    Attributes:
        processor: see above.
        process: see above.
    """

    selects_here: ClassVar[bool] = False

    def __init__(
        self,
        config: Any,
        processor: ChatProcessor,
        process: VLLMProcess,
        identity: Mapping[str, Any],
        sampling: Mapping[str, Any],
    ) -> None:
        self.processor, self.process = processor, process
        about = process.about
        # Without weights: it only tells where images are.
        with torch.device("meta"):
            empty: Any = AutoModelForImageTextToText.from_config(config)
        self.calls = EncodedCalls(empty, processor.tokenizer)
        self.shape = decoder_shape(config.get_text_config())
        self.devices = (torch.device(str(about["device"])),)
        self.dtype = getattr(torch, str(about["dtype"]).removeprefix("torch."))
        self.attention = "vllm"
        self.max_new_tokens = processor.rules.max_new_tokens
        # One id is left for the answer.
        self.positions = int(about["positions"]) - 1
        self._image_id = self.calls.family.placeholder("image")
        self._sampling = sampling
        known = {
            "identity": identity,
            "versions": about["versions"],
            "source": about["source"],
            "dtype": about["dtype"],
            "processor": repr(processor),
        }
        text = json.dumps(known, sort_keys=True, separators=(",", ":"), default=str)
        self._fingerprint = hashlib.sha256(text.encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Hash of the checkpoint's files, the engine's settings, its versions and its source."""
        return self._fingerprint

    def check(self, pruning: Pruning | None) -> None:
        """Raise ``ValueError`` with one sentence unless vLLM can carry out a pruning."""
        served(pruning)

    def render(
        self,
        context: str,
        images: int,
        generation: Mapping[str, Any],
        answer: str | None = None,
    ) -> Prompt:
        """Return the prompt of a request, as the transformers backend builds it.

        Raises:
            ValueError: several images in a family that then shows each otherwise.
        """
        text = self.processor.prompt(context, images, answer)
        view = self.processor.view(images)
        return Prompt(text, view)

    def token_ids(self, prompt: Prompt, visual: Sequence[ImageTokens] = ()) -> Tensor:
        """Return the ids of a prompt, [t], with one placeholder for each image.

        Of a prompt that would be longer than the model takes, images expanded, as many ids are
        missing at its end.

        Raises:
            ValueError: an image would be cut.
        """
        ids = torch.tensor(self.processor.ids(prompt.text), dtype=torch.long)
        beyond = self._too_many(ids, visual)
        if bool((ids[len(ids) - beyond :] == self._image_id).any()):
            raise ValueError(
                f"the prompt has {beyond} tokens more than the {self.positions} positions that "
                "vLLM takes, and images are among those that are cut"
            )
        return ids

    def _too_many(self, ids: Tensor, visual: Sequence[ImageTokens]) -> int:
        """Return how many ids of an unpruned prompt are beyond what the model takes."""
        inside = sum(one.ids - 1 for one in visual if isinstance(one, UnencodedImage))
        return min(max(0, len(ids) + inside - self.positions), len(ids))

    def text_tokens(self, prompt: Prompt) -> int:
        """Return how many of a prompt's ids are text."""
        return len(self.token_ids(prompt)) - prompt.text.count(self.processor.image_token)

    def preprocess(self, image: Image.Image, view: str | None = None) -> Pixels:
        """Return an image with what the checkpoint's processor makes of it, which is counted."""
        made = self.processor.image(image, view)
        names = sorted(name for name in made.values if name.startswith("pixel_values"))
        ids = self.processor.tokenizer(made.placeholder, add_special_tokens=False).input_ids
        return ServedPixels(
            values=made.values[names[0]],
            size=image.size,
            view=view,
            image=image,
            inputs=made.values,
            placeholder=tuple(ids),
        )

    def encode(self, pixels: Sequence[Pixels], signals: frozenset[str]) -> list[ImageTokens]:
        """Return images with the number of their visual tokens; vLLM encodes them."""
        return [
            UnencodedImage(
                tokens=torch.empty(one.placeholder.count(self._image_id), 0),
                image=one.image,
                ids=len(one.placeholder),
            )
            for one in pixels
            if isinstance(one, ServedPixels)
        ]

    def generate(
        self,
        inputs: Sequence[ModelInput],
        pruning: Pruning | None,
        generation: Generation,
        trace: Trace,
        *,
        share_prefix: bool = False,
    ) -> list[Written]:
        """Return the answers to prompts, all of which vLLM has at once.

        ``share_prefix`` changes nothing: vLLM has a cache of prefixes of its own.

        Raises:
            ValueError: beams, or a prompt that vLLM refuses.
        """
        if generation.num_beams > 1:
            raise ValueError(
                f"num_beams must be 1 for the backend vllm, got {generation.num_beams}"
            )
        until = [one for one in generation.until if one not in self.processor.rules.ignored_stops]
        sampling = {
            **self._sampling,
            "max_tokens": generation.max_new_tokens,
            "temperature": generation.temperature if generation.samples else 0.0,
            "top_p": 1.0 if generation.top_p is None else generation.top_p,
            "stop": until,
            "logprobs": 0,
        }
        rows = [one.ids[: len(one.ids) - self._too_many(one.ids, one.visual)] for one in inputs]
        answers = self._ask(rows, inputs, pruning, sampling, trace)
        padding = padding_id(self.processor.tokenizer)
        return [
            Written(
                one["text"],
                _written(one["ids"], padding),
                all(math.isfinite(each) for each in one["logprobs"]),
                one["unfinished"],
            )
            for one in answers
        ]

    def loglikelihood(
        self,
        inputs: Sequence[ModelInput],
        pruning: Pruning | None,
        trace: Trace,
        *,
        share_prefix: bool = False,
    ) -> list[Likelihood]:
        """Return the likelihood of each prompt's continuation."""
        return each_likelihood(
            inputs, trace, self.positions, lambda one, own: self._likelihood(one, pruning, own)
        )

    def _likelihood(self, one: ModelInput, pruning: Pruning | None, trace: Trace) -> Likelihood:
        sampling = {**self._sampling, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 1}
        (answer,) = self._ask([one.ids], [one], pruning, sampling, trace, one.answer)
        logprobs = [logprob for logprob, _ in answer["scored"]]
        greedy = all(rank == 1 for _, rank in answer["scored"])
        loss = -sum(logprobs) / len(logprobs)
        return Likelihood(loss, greedy, one.answer, math.isfinite(loss))

    def _ask(
        self,
        rows: Sequence[Tensor],
        inputs: Sequence[ModelInput],
        pruning: Pruning | None,
        sampling: Mapping[str, Any],
        trace: Trace,
        scored: int = 0,
    ) -> list[dict[str, Any]]:
        """Return vLLM's answers to prompts, and fill the trace.

        Raises:
            ValueError: vLLM refuses a prompt, or keeps another number of tokens than expected.
        """
        told = served(pruning) or ServedPruning(keep_ratio=1.0)
        asked, counts = [], []
        for row, one in zip(rows, inputs, strict=True):
            images = [image for image in one.visual if isinstance(image, UnencodedImage)]
            counts.append(
                [resolve_budget(len(image), keep_ratio=told.keep_ratio) for image in images]
            )
            asked.append(
                {
                    "ids": row.tolist(),
                    "images": [(image.image.size, image.image.tobytes()) for image in images],
                    "kwargs": {CONFIG_KEY: told.plain()},
                    "sampling": {**sampling, "seed": one.seed if sampling["temperature"] else None},
                    "placeholder": self._image_id,
                    "scored": scored,
                }
            )
        answers = self.process.ask(asked)
        for answer, kept in zip(answers, counts, strict=True):
            if answer["placeholders"] != sum(kept):
                raise ValueError(
                    f"vLLM must keep {sum(kept)} visual tokens of the prompt's images, got "
                    f"{answer['placeholders']}"
                )
        visual = [len(image) for one in inputs for image in one.visual]
        trace.begin(visual, [0] * len(inputs), None)
        trace.truncated[:] = [
            len(one.ids) - len(row) for row, one in zip(rows, inputs, strict=True)
        ]
        if pruning is not None:
            # Which tokens they are is known to vLLM alone; here they have numbers only.
            trace.kept[0] = [torch.arange(k) for kept in counts for k in kept]
        trace.lengths[:] = [[answer["length"] for answer in answers]] * self.shape.layers
        return answers

    def prefill(self, inputs: Sequence[ModelInput], pruning: Pruning | None, trace: Trace) -> int:
        """Raise ``ValueError``: costs of a prefill alone are not vLLM's to tell."""
        raise ValueError("costs must be measured with another backend than vllm, or under load")

    def on_call(self, called: Callable[[], None]) -> AbstractContextManager[None]:
        """Raise ``ValueError``: calls of the language model are in another process."""
        raise ValueError("times by phase must be taken with another backend than vllm")

    def image_views(self, pixels: Pixels) -> list[ImageView]:
        """Return what the model sees of an image; see `image_views.views_of`."""
        if not isinstance(pixels, ServedPixels):
            raise ValueError("pixels must be from this model's preprocess")
        tokens = pixels.placeholder.count(self._image_id)
        return views_of(self.calls.family, self.processor.image_processor, pixels.inputs, tokens)


def _written(ids: Sequence[int], padding: int) -> int:
    """Return the number of tokens of an answer before its padding, as the other backends count."""
    number = len(ids)
    while number and ids[number - 1] == padding:
        number -= 1
    return number
