"""A model in vLLM that hands on the tokens that a selector keeps of each image."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune import Selector, Signals, resolve_budget
from otprune.selectors.first_k import FirstK
from otprune_vllm.placeholders import spans, unit_sizes
from otprune_vllm.positions import ImageSpan, first_positions, moved, with_places, without_places
from otprune_vllm.processor import (
    REQUEST_FIELD,
    ImagesOnly,
    PrunedProcessor,
    check_shape,
    pruning_of,
)
from otprune_vllm.requests import ImageRequest, read_requests
from otprune_vllm.seams import COMMON, MOVED_POSITIONS, check_seams

check_seams(COMMON)

logger = logging.getLogger(__name__)

_Class = TypeVar("_Class", bound=type)

SMALL_RATE = 1e-17
"""A rate of video pruning that is above 0, so that vLLM asks a model for moved positions. Videos
are refused before it could matter, and 1 - 1e-17 is 1."""


class PrunedModel:
    """Before a model's own class in the order of resolution.

    The rows of all images of a batch go to the selector in one call.

    Class attributes:
        supports_encoder_cudagraph: no: that path calls the encoder, and not `embed_multimodal`.
        tells_shape: whether images are one raster each, or their shape is known.
    """

    supports_encoder_cudagraph: ClassVar[bool] = False
    tells_shape: ClassVar[bool] = True
    config: Any

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        """Check the pruning, then make the model.

        Raises:
            ValueError: a method that cannot be served, or not with this architecture.
        """
        check_shape(pruning_of(vllm_config.model_config.hf_config), tells_shape=self.tells_shape)
        self._prepare(vllm_config)
        made: Any = super()
        made.__init__(vllm_config=vllm_config, prefix=prefix)
        self.otprune_width = int(vllm_config.model_config.get_inputs_embeds_size())

    def _prepare(self, vllm_config: Any) -> None:
        """Change the configuration before the model is made."""

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Return the kept tokens of each image, [k_i d]."""
        requests = kwargs.pop(REQUEST_FIELD, None)
        own: Any = super()
        rows = own.embed_multimodal(**kwargs)
        if requests is None or not len(rows):
            return rows
        rows = list(rows)
        shapes = self.grids(len(rows), kwargs)
        kept = self._select(rows, read_requests(requests), shapes)
        return tuple(
            self.taken(row, keep, shape)
            for row, keep, shape in zip(rows, kept, shapes, strict=True)
        )

    def _select(
        self,
        rows: Sequence[Float[Tensor, "n e"]],
        requests: Sequence[ImageRequest],
        shapes: Sequence[tuple[int, int] | None],
    ) -> list[Int64[Tensor, " k"]]:
        """Return the numbers of the tokens that are kept of each image, ascending.

        Images of one method are selected from together. An image with tokens that are not finite
        has no answer that means anything; it keeps its first tokens, so that others get theirs.
        """
        kept: dict[int, Int64[Tensor, " k"]] = {}
        groups: dict[Selector, list[int]] = {}
        for number, (row, request) in enumerate(zip(rows, requests, strict=True)):
            finite = bool(row[:, : self.otprune_width].isfinite().all())
            if not finite:
                logger.warning("an image's tokens must be finite numbers; its first are kept")
            method = request.pruning.selector() if finite else FirstK()
            groups.setdefault(method, []).append(number)
        for method, numbers in groups.items():
            chosen = self._selected(
                method,
                [rows[number] for number in numbers],
                [requests[number] for number in numbers],
                [shapes[number] for number in numbers],
            )
            kept |= zip(numbers, chosen, strict=True)
        return [kept[number] for number in range(len(rows))]

    def _selected(
        self,
        method: Selector,
        rows: Sequence[Float[Tensor, "n e"]],
        requests: Sequence[ImageRequest],
        shapes: Sequence[tuple[int, int] | None],
    ) -> list[Int64[Tensor, " k"]]:
        """Return what one method keeps of images, each unit by itself."""
        units, budgets, signals, counts = [], [], [], []
        for row, request, shape in zip(rows, requests, shapes, strict=True):
            parts = spans(unit_sizes(len(row), self.unit_of(self.config)))
            counts.append(parts)
            for part in parts:
                # Behind the first channels are those of features for later layers, if any.
                units.append(row[part, : self.otprune_width])
                size = part.stop - part.start
                budgets.append(resolve_budget(size, keep_ratio=request.pruning.keep_ratio))
                signals.append(Signals(grid=shape, image_id=request.image_id))
        picked = iter(method.select_batch(units, budgets, signals=signals))
        return [torch.cat([next(picked) + part.start for part in parts]) for parts in counts]

    def taken(
        self,
        tokens: Float[Tensor, "n e"],
        kept: Int64[Tensor, " k"],
        shape: tuple[int, int] | None,
    ) -> Float[Tensor, "k f"]:
        """Return the kept tokens of an image as vLLM is to have them."""
        return tokens[kept]

    def grids(self, images: int, kwargs: dict[str, Any]) -> list[tuple[int, int] | None]:
        """Return rows and columns of each image's tokens; None where that is not known."""
        return [None] * images

    @staticmethod
    def unit_of(config: Any) -> int | None:
        """Return the tokens of a unit with a budget of its own; None where the image is one."""
        return None


class PrunedModelWithPlaces(PrunedModel):
    """A model with positions of several axes: each kept token keeps the place of its patch."""

    def __init_subclass__(cls) -> None:
        """Check vLLM where an architecture is imported."""
        check_seams(MOVED_POSITIONS)

    def _prepare(self, vllm_config: Any) -> None:
        config = vllm_config.model_config.multimodal_config
        if not config.is_multimodal_pruning_enabled():
            config.video_pruning_rate = SMALL_RATE

    def grids(self, images: int, kwargs: dict[str, Any]) -> list[tuple[int, int] | None]:
        """Return rows and columns of each image's merged patches."""
        merge = self.config.vision_config.spatial_merge_size
        sizes = kwargs["image_grid_thw"].reshape(-1, 3).tolist()
        return [(rows // merge, columns // merge) for _, rows, columns in sizes]

    def taken(
        self,
        tokens: Float[Tensor, "n e"],
        kept: Int64[Tensor, " k"],
        shape: tuple[int, int] | None,
    ) -> Float[Tensor, "k f"]:
        """Return the kept tokens with their places in four more channels.

        Raises:
            ValueError: the image's shape is not known.
        """
        if shape is None:
            raise ValueError("shape must be given where a token keeps its place, got None")
        return with_places(tokens[kept], kept, shape[1])

    def _postprocess_image_embeds_evs(self, embeds: Any, image_input: Any) -> Any:
        """Return the tokens as they are: `taken` adds the places of those that are kept."""
        return embeds

    def get_mrope_input_positions(
        self, input_tokens: Sequence[int], mm_features: Sequence[Any]
    ) -> tuple[Int64[Tensor, "3 t"], int]:
        """Return the positions of a prompt before its images are encoded; see `first_positions`."""
        merge = self.config.vision_config.spatial_merge_size
        images = []
        for feature in sorted(mm_features, key=lambda one: one.mm_position.offset):
            _, rows, columns = feature.data["image_grid_thw"].data.reshape(-1).tolist()
            place = feature.mm_position
            span = ImageSpan(place.offset, place.length, rows // merge, columns // merge)
            images.append(span)
        return first_positions(len(input_tokens), images)

    def recompute_mrope_positions(
        self,
        input_ids: Sequence[int] | Tensor,
        multimodal_embeddings: Sequence[Tensor],
        mrope_positions: Int64[Tensor, "3 t"],
        num_computed_tokens: int,
    ) -> tuple[list[Tensor], Int64[Tensor, "3 t"], int]:
        """Return tokens without their places, the positions moved to them, and what to add later.

        For the tokens of one chunk of a prompt, which may begin and end anywhere in an image.
        """
        apart = [without_places(tokens) for tokens in multimodal_embeddings]
        is_image = torch.as_tensor(input_ids) == self.config.image_token_id
        places = [place for _, place in apart]
        positions = moved(mrope_positions, is_image, places, num_computed_tokens)
        delta = int(positions.max()) + 1 - len(is_image)
        return [tokens for tokens, _ in apart], positions, delta


def pruned(model: _Class) -> _Class:
    """Give a pruned model's class the processor of the model's own class, pruned."""
    cls: Any = model
    own = cls._processor_factory
    told = {"unit_of": staticmethod(cls.unit_of), "tells_shape": cls.tells_shape}
    processor = type("Processor", (PrunedProcessor,), told)
    cls._processor_factory = dataclasses.replace(
        own, info=_before(ImagesOnly, own.info), processor=_before(processor, own.processor)
    )
    return model


def _before(mixin: type, factory: Callable[..., Any]) -> Callable[..., Any]:
    """Return a factory of objects with a class before the one that a factory chooses."""
    classes: dict[type, type] = {}

    def build(*args: Any, **kwargs: Any) -> Any:
        # A factory may be a function that chooses a class by the model's configuration.
        chosen = factory if isinstance(factory, type) else type(factory(*args, **kwargs))
        if chosen not in classes:
            classes[chosen] = type(f"Pruned{chosen.__name__}", (mixin, chosen), {})
        return classes[chosen](*args, **kwargs)

    return build
