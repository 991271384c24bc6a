"""A model in vLLM that hands on the tokens that a selector keeps of each image."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune import Selector, Signals
from otprune.merger import Merger, mixed
from otprune.selectors.first_k import FirstK
from otprune_vllm.placeholders import counts_of, spans, square, unit_sizes
from otprune_vllm.positions import ImageSpan, first_positions, moved, with_places, without_places
from otprune_vllm.processor import (
    GRID_FIELD,
    REQUEST_FIELD,
    ImagesOnly,
    PrunedProcessor,
    check_method,
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


class Image(NamedTuple):
    """An image that is pruned.

    Attributes:
        tokens: of it; behind the first channels may be features for later layers.
        request: how it is pruned.
        shape: rows and columns of each unit; None where that is not known.
        sizes: tokens of each unit that has a budget of its own.
    """

    tokens: Float[Tensor, "n e"]
    request: ImageRequest
    shape: tuple[int, int] | None
    sizes: list[int]

    def signals(self) -> Signals:
        """Return what a method may know beside the tokens."""
        return Signals(grid=self.shape, image_id=self.request.image_id)


class Chosen(NamedTuple):
    """What is left of an image.

    Attributes:
        tokens: that enter the language model.
        places: numbers of the image's tokens whose places they take, ascending.
    """

    tokens: Float[Tensor, "k e"]
    places: Int64[Tensor, " k"]


def selected(method: Selector, images: Sequence[Image], width: int) -> list[Chosen]:
    """Return what a selector keeps of images, each unit by itself, all in one call.

    Args:
        method: the selector.
        images: those to select from.
        width: channels that the selector sees.
    """
    units, budgets, signals = [], [], []
    for image in images:
        units += [image.tokens[part, :width] for part in spans(image.sizes)]
        budgets += counts_of(image.sizes, image.request.pruning, image.shape)
        signals += [image.signals()] * len(image.sizes)
    picked = iter(method.select_batch(units, budgets, signals=signals))
    kept = [torch.cat([next(picked) + one.start for one in spans(image.sizes)]) for image in images]
    return [Chosen(image.tokens[keep], keep) for image, keep in zip(images, kept, strict=True)]


def merged(method: Merger, image: Image) -> Chosen:
    """Return the tokens that a merger makes of an image, of each unit by itself.

    Raises:
        ValueError: not as many as the method told of the image's shape.
    """
    counts = counts_of(image.sizes, image.request.pruning, image.shape)
    ratio, tokens, places = image.request.pruning.keep_ratio, [], []
    for part, count in zip(spans(image.sizes), counts, strict=True):
        unit = image.tokens[part]
        signals = Signals(grid=image.shape or square(len(unit)))
        mixture = method.merge(unit, keep_ratio=ratio, signals=signals)
        if len(mixture.places) != count:
            raise ValueError(f"{method} must make {count} tokens, made {len(mixture.places)}")
        tokens.append(mixed(mixture, unit))
        places.append(mixture.places + part.start)
    return Chosen(torch.cat(tokens), torch.cat(places))


class PrunedModel:
    """Before a model's own class in the order of resolution.

    The rows of all images of a batch go to the selector in one call.

    Class attributes:
        supports_encoder_cudagraph: no: that path calls the encoder, and not `embed_multimodal`.
        tells_shape: whether images are one raster each, or their shape is known.
        merges: whether tokens have nothing beside them, so that they can be merged.
    """

    supports_encoder_cudagraph: ClassVar[bool] = False
    tells_shape: ClassVar[bool] = True
    merges: ClassVar[bool] = True
    config: Any

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        """Check the pruning, then make the model.

        Raises:
            ValueError: a method that cannot be served, or not with this architecture.
        """
        pruning = pruning_of(vllm_config.model_config.hf_config)
        check_method(pruning, tells_shape=self.tells_shape, merges=self.merges)
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
        shapes = self.shapes(len(rows), kwargs.get(GRID_FIELD))
        chosen = self._chosen(rows, read_requests(requests), shapes)
        return tuple(
            self.told(tokens, places, shape)
            for (tokens, places), shape in zip(chosen, shapes, strict=True)
        )

    def _chosen(
        self,
        rows: Sequence[Float[Tensor, "n e"]],
        requests: Sequence[ImageRequest],
        shapes: Sequence[tuple[int, int] | None],
    ) -> list[Chosen]:
        """Return what is left of each image.

        Images of one method are selected from together. An image with tokens that are not finite
        has no answer that means anything; it keeps its first tokens, so that others get theirs.
        """
        found: dict[int, Chosen] = {}
        groups: dict[Selector | Merger, list[int]] = {}
        for number, (row, request) in enumerate(zip(rows, requests, strict=True)):
            finite = bool(row[:, : self.otprune_width].isfinite().all())
            if not finite:
                logger.warning("an image's tokens must be finite numbers; its first are kept")
            method = request.pruning.instance() if finite else FirstK()
            groups.setdefault(method, []).append(number)
        for method, numbers in groups.items():
            images = [
                Image(
                    rows[number],
                    requests[number],
                    shapes[number],
                    unit_sizes(len(rows[number]), self.unit_of(self.config)),
                )
                for number in numbers
            ]
            if isinstance(method, Merger):
                made = [merged(method, image) for image in images]
            else:
                made = selected(method, images, self.otprune_width)
            found |= zip(numbers, made, strict=True)
        return [found[number] for number in range(len(rows))]

    def told(
        self,
        tokens: Float[Tensor, "k e"],
        places: Int64[Tensor, " k"],
        shape: tuple[int, int] | None,
    ) -> Float[Tensor, "k f"]:
        """Return an image's tokens as vLLM is to have them."""
        return tokens

    def shapes(self, images: int, grids: Any) -> list[tuple[int, int] | None]:
        """Return rows and columns of each image's tokens; None where that is not known."""
        if grids is None:
            return [None] * images
        return [self.shape_of(self.config, grid) for grid in grids.reshape(-1, 3)]

    @staticmethod
    def shape_of(config: Any, grid: Any) -> tuple[int, int] | None:
        """Return rows and columns of an image's tokens by vLLM's field; None if it has none."""
        return None

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

    @staticmethod
    def shape_of(config: Any, grid: Any) -> tuple[int, int]:
        """Return rows and columns of an image's merged patches."""
        merge = config.vision_config.spatial_merge_size
        _, rows, columns = grid.reshape(-1).tolist()
        return rows // merge, columns // merge

    def told(
        self,
        tokens: Float[Tensor, "k e"],
        places: Int64[Tensor, " k"],
        shape: tuple[int, int] | None,
    ) -> Float[Tensor, "k f"]:
        """Return an image's tokens with their places in four more channels.

        Raises:
            ValueError: the image's shape is not known.
        """
        if shape is None:
            raise ValueError("shape must be given where a token keeps its place, got None")
        return with_places(tokens, places, shape[1])

    def _postprocess_image_embeds_evs(self, embeds: Any, image_input: Any) -> Any:
        """Return the tokens as they are: `told` adds the places of those that are left."""
        return embeds

    def get_mrope_input_positions(
        self, input_tokens: Sequence[int], mm_features: Sequence[Any]
    ) -> tuple[Int64[Tensor, "3 t"], int]:
        """Return the positions of a prompt before its images are encoded; see `first_positions`."""
        images = []
        for feature in sorted(mm_features, key=lambda one: one.mm_position.offset):
            shape = self.shape_of(self.config, feature.data[GRID_FIELD].data)
            place = feature.mm_position
            images.append(ImageSpan(place.offset, place.length, *shape))
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
    told = {name: getattr(cls, name) for name in ("tells_shape", "merges")}
    told |= {name: staticmethod(getattr(cls, name)) for name in ("unit_of", "shape_of")}
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
