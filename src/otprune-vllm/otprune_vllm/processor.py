"""A model's processor in vLLM, with as many placeholders for an image as tokens of it are kept."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from vllm.multimodal.inputs import MultiModalFieldConfig

import otprune
from otprune.merger import Merger
from otprune.selectors.grid import Grid
from otprune.selectors.random import Random
from otprune.serving import CONFIG_KEY, KEEP_RATIO, ServedPruning
from otprune_vllm.placeholders import counts_of, shortened, unit_sizes
from otprune_vllm.requests import ImageRequest, image_id

REQUEST_FIELD = "otprune_request"
"""The field that takes an image's `ImageRequest` from the processor to the model."""

GRID_FIELD = "image_grid_thw"
"""The field of vLLM with frames, rows and columns of an image's patches, in models that have it."""


def pruning_of(config: Any) -> ServedPruning:
    """Return what a model's configuration says about pruning.

    Raises:
        ValueError: as `ServedPruning`.
    """
    return ServedPruning.read(getattr(config, CONFIG_KEY, None))


def check_method(pruning: ServedPruning, *, tells_shape: bool, merges: bool) -> None:
    """Check that a method can work in a model.

    Args:
        pruning: has the method.
        tells_shape: whether the model can tell the shape of an image.
        merges: whether tokens of it can be merged.

    Raises:
        ValueError: it needs the shape, or merges, where the model has it not.
    """
    method = pruning.instance()
    if isinstance(method, Grid | Merger) and not tells_shape:
        raise ValueError(
            "method must not need the shape of an image's tokens in a model whose images are "
            f"several tiles with ends of rows; got {pruning.method!r}"
        )
    if isinstance(method, Merger) and not merges:
        raise ValueError(
            "method must not make new tokens in a model with features for later layers beside "
            f"its tokens, for which nothing says how; got {pruning.method!r}"
        )


class ImagesOnly:
    """Before a model's processing information: images are all that a request may have."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Return the model's limit of images, and 0 of everything else: a video is refused."""
        own: Any = super()
        limits = own.get_supported_mm_limits()
        return {name: limit if name == "image" else 0 for name, limit in limits.items()}


class PrunedProcessor:
    """Before a model's own processor in the order of resolution.

    What a request says about pruning is taken out of its keyword arguments wherever they go on to
    the processor of transformers. Whatever decides which tokens are kept is in the images' hashes,
    which are the keys of the processor's cache, the encoder's cache and cached prefixes.
    """

    info: Any
    tells_shape: ClassVar[bool] = True
    merges: ClassVar[bool] = True

    @staticmethod
    def unit_of(config: Any) -> int | None:
        """Return what the model's class says, see `PrunedModel.unit_of`."""
        return None

    @staticmethod
    def shape_of(config: Any, grid: Any) -> tuple[int, int] | None:
        """Return what the model's class says, see `PrunedModel.shape_of`."""
        return None

    def _pruning(self, kwargs: Mapping[str, Any]) -> ServedPruning:
        """Return the pruning of a request.

        Raises:
            ValueError: settings that cannot be served, a ratio that is not in (0, 1].
        """
        found = pruning_of(self.info.get_hf_config()).for_request(kwargs)
        check_method(found, tells_shape=self.tells_shape, merges=self.merges)
        return found

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> Any:
        """Return inputs by which memory and caches are sized: unpruned ones.

        A request may ask for a larger ratio than the default.
        """
        own: Any = super()
        dummy = own.get_dummy_inputs(*args, **kwargs)
        given = {**dummy.hf_processor_mm_kwargs, KEEP_RATIO: 1.0}
        return dataclasses.replace(dummy, hf_processor_mm_kwargs=given)

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, Any]) -> Any:
        own: Any = super()
        pruning = self._pruning(hf_kwargs)
        processed = own._apply_hf_processor_main(mm_items, _without_ours(hf_kwargs))
        if mm_items.get_all_counts().get("image", 0):
            seeded = isinstance(pruning.instance(), Random)
            processed[REQUEST_FIELD] = [
                ImageRequest(pruning, image_id(image) if seeded else None).as_bytes()
                for image in mm_items["image"].get_all()
            ]
        return processed

    def _get_mm_fields_config(
        self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        own: Any = super()
        fields = own._get_mm_fields_config(hf_inputs, _without_ours(hf_processor_mm_kwargs))
        return {**fields, REQUEST_FIELD: MultiModalFieldConfig.batched("image", keep_on_cpu=True)}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Any:
        own: Any = super()
        kwargs = _without_ours(hf_processor_mm_kwargs)
        return own._get_prompt_updates(mm_items, kwargs, out_mm_kwargs)

    def _get_mm_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Any:
        own: Any = super()
        updates = own._get_mm_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        pruning = self._pruning(hf_processor_mm_kwargs)
        # Of images that the cache knows nothing is asked, and out_mm_kwargs has nothing.
        if pruning.keep_ratio == 1 or not updates.get("image"):
            return updates
        images = []
        for image, item in zip(updates["image"], out_mm_kwargs["image"], strict=True):
            grid = item.get(GRID_FIELD)
            shape = self.shape_of(self.info.get_hf_config(), None if grid is None else grid.data)
            images.append(
                [
                    dataclasses.replace(one, content=self._shorter(one.content, pruning, shape))
                    for one in image
                ]
            )
        return {**updates, "image": images}

    def _shorter(self, content: Any, pruning: ServedPruning, shape: tuple[int, int] | None) -> Any:
        """Return what stands for an image in a prompt, with the placeholders that stay."""
        ids = list(content.full)
        embedded = [True] * len(ids)
        if content.is_embed is not None:
            embedded = torch.as_tensor(content.is_embed(ids)).tolist()
        sizes = unit_sizes(sum(embedded), self.unit_of(self.info.get_hf_config()))
        counts = counts_of(sizes, pruning, shape)
        return dataclasses.replace(content, full=shortened(ids, embedded, sizes, counts))

    def _get_mm_hashes(self, inputs: Any) -> Any:
        own: Any = super()
        given = inputs.hf_processor_mm_kwargs
        identity = self._pruning(given).identity(otprune.__version__)
        marked = {**_without_ours(given), CONFIG_KEY: identity}
        return own._get_mm_hashes(dataclasses.replace(inputs, hf_processor_mm_kwargs=marked))


def _without_ours(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in (KEEP_RATIO, CONFIG_KEY)}
