"""What pruning must know of a vision-language model; the defaults serve most families.

Everything here uses public functions of transformers: `get_image_features` gives the visual tokens
of all images, and ``mm_encoder_outputs`` hands them to `forward` and `generate` afterwards. Visual
tokens stand at the prompt's image placeholders in the order of the features.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.utils.generic import ModelOutput

from otprune.hf.layers import ADAPTERS, DecoderAdapter
from otprune.hf.prefixes import keeps_prefixes
from otprune.hf.versions import BEAMS_MIX_IMAGES
from otprune.pruning import ImageTokens
from otprune.signals import TOKEN_AXIS, Signals

Unit = Literal["image", "tile", "frame", "sample"]
"""What one budget is for.

An image or a whole video; a tile of an image; a frame of a video; or all images, and all videos, of
a prompt.
"""

Modality = Literal["image", "video"]
"""What visual tokens show."""

TEXT_INPUTS = frozenset({"input_ids", "attention_mask", "labels"})
"""Arguments that `get_image_features` may also name, but that the language model needs."""


DECODERS = frozenset(ADAPTERS)
"""Types of decoders that can be pruned inside."""


SHARE_PREFIXES = frozenset({
    "aria", "deepseek_vl", "deepseek_vl_hybrid", "glm46v", "glm4v", "got_ocr2", "idefics2",
    "idefics3", "internvl", "janus", "lighton_ocr", "llava", "llava_next", "llava_next_video",
    "llava_onevision", "mistral3", "ovis2", "paddleocr_vl", "qwen2_5_vl", "qwen2_vl", "qwen3_vl",
    "qwen3_vl_moe", "smolvlm", "video_llama_3", "video_llava", "vipllava",
})  # fmt: skip
"""Families whose prompts may share keys and values of a common beginning: a test compares each.

Not among them: PaliGemma and Gemma 3, in which positions of a prompt see what stands later, and
families whose layers have windows or a state.
"""


class UnsupportedModelError(ValueError):
    """A model, or a use of it, that visual tokens cannot be pruned for; the message says why."""


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """Visual tokens of all images, or of all videos, of a batch.

    Attributes:
        output: what `get_image_features` or `get_video_features` returned.
        parts: the tokens, in the pieces in which the family gives them; [n_i d] each.
        taken: names of the arguments that the encoder used up.
        signals: those that were asked for, of each piece.
    """

    output: ModelOutput
    parts: Sequence[Float[Tensor, "n d"]]
    taken: frozenset[str]
    signals: Sequence[Mapping[str, Any]] = ()

    @property
    def sizes(self) -> list[int]:
        """Tokens of each piece."""
        return [len(part) for part in self.parts]


class Family:
    """A model of transformers as pruning sees it.

    Args:
        model: a ``...ForConditionalGeneration``.

    Attributes:
        units: what a budget may be for; the first is the default.
        parts_are: what the pieces are in which the encoder gives its tokens.
        features_in: the field of the encoder's output that has the tokens.

    Raises:
        UnsupportedModelError: no `get_image_features`, no ``mm_encoder_outputs``, or no id of an
            image placeholder.
    """

    units: tuple[Unit, ...] = ("image", "frame", "sample")
    parts_are: Unit = "image"
    features_in: str = "pooler_output"

    def __init__(self, model: Any) -> None:
        self.model = model
        self.name = str(getattr(model.config, "model_type", type(model).__name__))
        inner = getattr(model, "model", None)
        self.base: Any = inner if hasattr(inner, "get_image_features") else model
        if not hasattr(self.base, "get_image_features"):
            raise UnsupportedModelError(
                f"model must have get_image_features, as vision-language models of transformers "
                f"have; {type(model).__name__} has not"
            )
        if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
            raise UnsupportedModelError(
                "model must take mm_encoder_outputs, as models of transformers 5.18 and later do; "
                f"{type(model).__name__} ({self.name}) does not"
            )
        self.placeholder("image")

    def placeholder(self, modality: Modality) -> int:
        """Return the id that stands in a prompt for a visual token.

        Raises:
            UnsupportedModelError: the configuration does not say.
        """
        names = (f"{modality}_token_id", f"{modality}_token_index")
        for name in names:
            found = getattr(self.model.config, name, None)
            if found is not None:
                return int(found)
        raise UnsupportedModelError(
            f"config must have {' or '.join(names)}; that of {self.name} has neither"
        )

    @property
    def decoder(self) -> nn.Module:
        """The module whose forward call runs the decoder layers.

        Raises:
            UnsupportedModelError: there is none under the usual names.
        """
        for name in ("language_model", "text_model"):
            found = getattr(self.base, name, None)
            if found is not None:
                return found
        raise UnsupportedModelError(f"{self.name} has no language_model or text_model")

    def adapter(self) -> DecoderAdapter:
        """Return the decoder for pruning inside it.

        Raises:
            UnsupportedModelError: a decoder that cannot be pruned inside.
        """
        decoder: Any = self.decoder
        kind = str(getattr(decoder.config, "model_type", type(decoder).__name__))
        if kind not in DECODERS:
            raise UnsupportedModelError(
                f"{self.name} cannot be pruned inside its language model: its decoder is {kind}, "
                f"and what a layer computes is known of {', '.join(sorted(DECODERS))}; layer 0 "
                "prunes before it"
            )
        try:
            return ADAPTERS[kind](decoder)
        except ValueError as error:
            raise UnsupportedModelError(
                f"{self.name} cannot be pruned inside its language model: {error}; layer 0 prunes "
                "before it"
            ) from None

    @property
    def shares_prefixes(self) -> bool:
        """Whether prompts that begin alike may share keys and values of the beginning."""
        return self.name in SHARE_PREFIXES and keeps_prefixes(self.model.config)

    @property
    def first_layer(self) -> int:
        """The lowest layer inside the language model at whose input tokens may be dropped."""
        return 1

    @property
    def multimodal_positions(self) -> bool:
        """Whether rotary positions have several axes, which depend on the whole image."""
        return hasattr(self.base, "get_rope_index")

    def positions(self, inputs: Mapping[str, Any], mask: Bool[Tensor, "b t"]) -> Tensor:
        """Return the rotary positions of the unpruned prompts: [b t], or [m b t] with axes.

        Args:
            inputs: what the caller gives the model.
            mask: which ids are no padding.
        """
        if not self.multimodal_positions:
            return (mask.long().cumsum(-1) - 1).clamp(min=0)
        known = inspect.signature(self.base.get_rope_index).parameters
        others = {
            name: inputs[name]
            for name in known
            if name not in ("input_ids", "attention_mask") and inputs.get(name) is not None
        }
        ids = inputs["input_ids"]
        found, _ = self.base.get_rope_index(input_ids=ids, attention_mask=mask.to(ids), **others)
        return found

    @property
    def geometry(self) -> frozenset[str]:
        """Names of the arguments that rotary positions follow from beside the ids."""
        if not self.multimodal_positions:
            return frozenset()
        known = inspect.signature(self.base.get_rope_index).parameters
        return frozenset(name for name in known if name.startswith("image_"))

    def encode(
        self,
        inputs: Mapping[str, Any],
        wanted: frozenset[str] = frozenset(),
        modality: Modality = "image",
    ) -> EncodedImages:
        """Return the visual tokens of all images, or of all videos.

        Args:
            inputs: what the caller gives the model: pixels and what belongs to them, or the result
                of an earlier call in ``mm_encoder_outputs[modality]``.
            wanted: names of signals to compute as well, of those in ``gives``.
            modality: images or videos.

        Raises:
            UnsupportedModelError: an output of unknown form; signals without pixels; videos in a
                family that has none.
        """
        encoder = getattr(self.base, f"get_{modality}_features", None)
        if encoder is None:
            raise UnsupportedModelError(f"{self.name} has no get_{modality}_features")
        known = set(inspect.signature(encoder).parameters) - {"self", "kwargs"}
        # Of two names for the same, as Video-LLaVA has them, the shorter is the newer: it wins.
        given = {self._argument(name, inputs): name for name in sorted(known, reverse=True)}
        taken = {there: name for there, name in given.items() if inputs.get(there) is not None}
        output = (inputs.get("mm_encoder_outputs") or {}).get(modality)
        if output is None:
            away = [n for n, one in self.base.named_parameters(recurse=False) if one.is_meta]
            if away:
                raise UnsupportedModelError(
                    f"{', '.join(away)} of {self.name} must not be offloaded: images are encoded "
                    "outside of the module's forward, as generate() does without pruning"
                )
            values = {name: inputs[there] for there, name in taken.items()}
            with torch.no_grad():
                output = encoder(**values, return_dict=True)
        return EncodedImages(output, self.parts(output), frozenset(taken) - TEXT_INPUTS)

    def _argument(self, name: str, inputs: Mapping[str, Any]) -> str:
        """Return how the model's `forward` calls an argument of `get_image_features`."""
        return name

    def parts(self, output: ModelOutput) -> list[Float[Tensor, "n d"]]:
        """Return the tokens of an encoder's output in pieces.

        Raises:
            UnsupportedModelError: an output of unknown form.
        """
        found = self._features(output)
        if isinstance(found, Tensor) and found.ndim == 2:
            raise UnsupportedModelError(
                f"get_image_features of {self.name} gives one matrix for all images, from which "
                "images cannot be told apart"
            )
        return [one.reshape(-1, one.shape[-1]) for one in found]

    def _features(self, output: ModelOutput) -> Any:
        return output[self.features_in]

    def with_tokens(
        self, output: ModelOutput, tokens: Sequence[Float[Tensor, "k d"]]
    ) -> ModelOutput:
        """Return an encoder's output that holds other tokens, in the family's form.

        Args:
            output: the encoder's.
            tokens: those of each unit that has a budget.
        """
        made: Any = list(tokens)
        if isinstance(self._features(output), Tensor):
            # The models take a tensor [i k d]; if counts differ, all tokens as if of one image.
            equal = len({len(one) for one in tokens}) == 1
            made = torch.stack(made) if equal else torch.cat(made)[None]
        return self._replaced(output, made)

    def _replaced(self, output: ModelOutput, features: Any) -> ModelOutput:
        return type(output)(**{**output, self.features_in: features})

    def template(self, output: ModelOutput) -> ModelOutput:
        """Return an encoder's output without content, for `with_tokens`.

        Only whether the tokens are one tensor is kept.
        """
        stacked = isinstance(self._features(output), Tensor)
        return type(output)(**{self.features_in: torch.empty(0) if stacked else []})

    def beside(self, output: ModelOutput) -> tuple[Float[Tensor, "n d"], ...]:
        """Return what goes beside the tokens of all pieces, row for row; none in most families."""
        return ()

    def with_beside(
        self, output: ModelOutput, rows: Sequence[Sequence[Float[Tensor, "n d"]]]
    ) -> ModelOutput:
        """Return the output with other rows beside its tokens.

        Args:
            output: with the tokens already.
            rows: for each entry of `beside` the rows of each image; none in most families.
        """
        return output

    def take(
        self, output: ModelOutput, sizes: Sequence[int], kept: Sequence[Int64[Tensor, " k"]]
    ) -> ModelOutput:
        """Return the output with the rows that are kept of what goes beside the tokens.

        Args:
            output: of the encoder, with the kept tokens already.
            sizes: tokens of each unit before pruning.
            kept: for each unit, which of its tokens are kept, in order.
        """
        return output

    @property
    def side_features(self) -> str | None:
        """What the encoder gives beside the tokens, row for row; None if nothing."""
        return None

    @property
    def gives(self) -> frozenset[str]:
        """Names of the signals that the vision encoder gives."""
        return frozenset()

    def why_not(self, names: Sequence[str]) -> str:
        """Return why signals are not given, to be put behind the sentence that says so."""
        return ""

    @property
    def projects(self) -> bool:
        """Whether `project` can be used."""
        return False

    def project(self, features: Float[Tensor, "n c"]) -> Float[Tensor, "n d"]:
        """Apply the projector to features of single patches.

        Raises:
            UnsupportedModelError: the projector does not work on patches alone.
        """
        raise UnsupportedModelError(f"features of {self.name} before its projector are not given")

    @property
    def beams_need(self) -> str:
        """What `generate` asks of a call in which a prompt has several beams or answers."""
        if self._expands_itself:
            return "in transformers a prompt must then have one image"
        return "images must keep equal numbers of tokens, so take k= instead of keep_ratio="

    @property
    def _expands_itself(self) -> bool:
        """Whether the model has its own way of repeating images for beams.

        GLM-4V and its relatives do, and repeat image by image where whole prompts are to be
        repeated: with two images in a prompt even what is not pruned is then mixed up. In
        transformers 5.18 all do.
        """
        name = "_expand_multimodal_outputs"
        own = getattr(type(self.model), name, None)
        other = own is not None and own is not getattr(GenerationMixin, name, None)
        return other or BEAMS_MIX_IMAGES

    def ragged_beams(
        self, output: ModelOutput, counts: Sequence[int] | None, prompts: Sequence[int]
    ) -> bool:
        """Return whether several beams or answers of a prompt would mix up images.

        Args:
            output: the encoder's, with kept tokens only.
            counts: kept tokens of each unit; None if all are kept.
            prompts: row of each unit.
        """
        if self._expands_itself and len(self._features(output)) > len(set(prompts)):
            return True
        unequal = counts is not None and len(set(counts)) > 1
        return unequal and isinstance(self._features(output), Tensor)

    def image(self, encoded: EncodedImages, parts: range, inputs: Mapping[str, Any]) -> ImageTokens:
        """Return the tokens of an image, or of several pieces, with the signals at hand.

        Args:
            encoded: of the batch.
            parts: which pieces it has.
            inputs: what the caller gives the model.
        """
        pieces = [encoded.parts[number] for number in parts]
        newlines = [self.newline(piece) for piece in pieces]
        newline = torch.cat(newlines) if any(bool(one.any()) for one in newlines) else None
        grid = self.grid(parts[0], len(pieces[0]), inputs) if len(parts) == 1 else None
        tiles = None
        if len(parts) > 1:
            numbers = torch.arange(len(parts))
            tiles = numbers.repeat_interleave(torch.tensor([len(one) for one in pieces]))
        signals = Signals(grid=grid, tiles=tiles, padding=self._padding(parts, pieces, inputs))
        if encoded.signals:
            found = [encoded.signals[number] for number in parts]
            signals = replace(signals, **{name: self._joined(name, found) for name in found[0]})
        tokens = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        return ImageTokens(tokens, newline, signals)

    def _padding(
        self, parts: range, pieces: Sequence[Tensor], inputs: Mapping[str, Any]
    ) -> Bool[Tensor, " n"] | None:
        found = [
            self.padding(part, len(one), inputs) for part, one in zip(parts, pieces, strict=True)
        ]
        known = [one for one in found if one is not None]
        return torch.cat(known) if len(known) == len(found) else None

    def _joined(self, name: str, found: Sequence[Mapping[str, Any]]) -> Any:
        """Return a signal of several pieces as one."""
        values = [one[name] for one in found]
        if len(values) == 1:
            return values[0]
        if not isinstance(values[0], Tensor):
            raise UnsupportedModelError(
                f"unit must be image for methods that need {name}, got 'sample' for several images"
            )
        # Those about a whole tile have one row a tile, which adds up on their first axis, too.
        return torch.cat(values, TOKEN_AXIS.get(name, 0))

    def frames(self, part: int, n: int, inputs: Mapping[str, Any]) -> list[int] | None:
        """Return the tokens of each frame of a video of ``n``; None if they are not known."""
        return None

    def frame_grid(self, part: int, n: int, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return rows and columns of a frame of ``n`` tokens if these are one raster, else None."""
        return None

    def newline(self, tokens: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Return which tokens end a row of patches and show nothing; on the CPU."""
        return torch.zeros(len(tokens), dtype=torch.bool)

    def padding(self, part: int, n: int, inputs: Mapping[str, Any]) -> Bool[Tensor, " n"] | None:
        """Return which tokens of a piece show nothing but padding, on the CPU; None if not known.

        Processors of most families resize or cut images, so that there is none. Whether a LLaVA-1.5
        image was padded to a square the model's inputs do not say.
        """
        return None

    def grid(self, part: int, n: int, inputs: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return rows and columns of a piece of ``n`` tokens if these are one raster, else None."""
        return None
