"""LLaVA-1.6 (LLaVA-NeXT) and LLaVA-OneVision: one piece an image, its tiles put together.

The first tile shows the whole image; the others make one raster, whose padding is cut off and whose
rows end with the model's ``image_newline`` vector. By default these ends of rows are candidates
like patches, as in the released code of the methods; ``keep_newlines`` keeps them all.

Signals of patches are put together by the model's own function, as its tokens are: so they are
interpolated where LLaVA-OneVision interpolates a large raster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
)

from otprune.hf.families.family import EncodedImages
from otprune.hf.families.llava import tile_tower
from otprune.hf.families.tower import TileTower, Tower
from otprune.hf.families.towered import TowerFamily
from otprune.pruning import ImageTokens
from otprune.signals import TOKEN_AXIS


class LlavaNext(TowerFamily):
    """LLaVA-NeXT and LLaVA-NeXT-Video."""

    def _tower(self) -> Tower | None:
        layer = self.model.config.vision_feature_layer
        if not isinstance(layer, int):
            return None
        return tile_tower(self.model.config, self.base.vision_tower, layer)

    @property
    def resizes(self) -> bool:
        """Whether the tower takes tiles, which may have other sizes."""
        return isinstance(self.tower, TileTower)

    def placed(
        self,
        found: Mapping[str, Sequence[Tensor]],
        encoded: EncodedImages,
        inputs: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """Return the signals of the tokens of each image, 0 at newline tokens."""
        signals: list[dict[str, Any]] = []
        first = 0
        for part in range(len(encoded.parts)):
            mine = slice(first, first + self._tiles(part, inputs))
            own = {name: torch.stack(list(value[mine])) for name, value in found.items()}
            signals.append(
                {
                    name: value.flatten(0, 1) if name == "cls_features"
                    else self._packed(name, value, part, inputs)
                    for name, value in own.items()
                }
            )  # fmt: skip
            first = mine.stop
        return signals

    def _packed(self, name: str, tiles: Tensor, part: int, inputs: Mapping[str, Any]) -> Tensor:
        """Return a signal of an image from that of its tiles, [t n], [t n c] or [t h n]."""
        if tiles.ndim == 2:
            return self._together(tiles[..., None], part, inputs)[:, 0]
        if TOKEN_AXIS[name] == 1:
            return self._together(tiles.transpose(1, 2), part, inputs).T
        return self._together(tiles, part, inputs)

    def _together(
        self, tiles: Float[Tensor, "t n c"], part: int, inputs: Mapping[str, Any], fill: float = 0
    ) -> Float[Tensor, "n c"]:
        """Return rows of an image's tiles where the model puts their tokens.

        Args:
            tiles: of one image.
            part: number of the image.
            inputs: what the caller gives the model.
            fill: value at newline tokens.
        """
        newline = torch.full_like(tiles[0, 0], fill, dtype=torch.float32)
        sizes = inputs["image_sizes"][part : part + 1]
        return self._pack([tiles.float()], sizes, newline)[0].to(tiles.dtype)

    def _pack(self, tiles: list[Tensor], sizes: Tensor, newline: Tensor) -> Sequence[Tensor]:
        strategy = self.model.config.vision_feature_select_strategy
        return self.base.pack_image_features(tiles, sizes, strategy, image_newline=newline)[0]

    def _tiles(self, part: int, inputs: Mapping[str, Any]) -> int:
        """Return the number of tiles of an image."""
        config = self.model.config
        return image_size_to_num_patches(
            inputs["image_sizes"][part], config.image_grid_pinpoints,
            config.vision_config.image_size,
        )  # fmt: skip

    def whole_images(self, inputs: Mapping[str, Any]) -> Sequence[Tensor]:
        """Return the first tile of each image."""
        pixels = inputs["pixel_values"]
        if pixels.ndim == 5:
            return [tiles[:1] for tiles in pixels]
        counts = [self._tiles(part, inputs) for part in range(len(inputs["image_sizes"]))]
        return [tiles[:1] for tiles in pixels.split(counts)]

    def image(self, encoded: EncodedImages, parts: range, inputs: Mapping[str, Any]) -> ImageTokens:
        """Return the tokens of an image, or of several, with the tile of each patch."""
        found = super().image(encoded, parts, inputs)
        if inputs.get("image_sizes") is None:
            return found
        numbers, first = [], 0
        for part in parts:
            tiles = self._tile_numbers(part, inputs)
            if len(tiles) != len(encoded.parts[part]):
                return found
            numbers.append(torch.where(tiles < 0, tiles, tiles + first))
            first += self._tiles(part, inputs)
        return replace(found, signals=replace(found.signals, tiles=torch.cat(numbers)))

    def _tile_numbers(self, part: int, inputs: Mapping[str, Any]) -> Int64[Tensor, " n"]:
        """Return the tile of each token of an image, -1 at newline tokens."""
        config = self.model.config
        count = self._tiles(part, inputs)
        side = config.vision_config.image_size // config.vision_config.patch_size
        columns = 1
        if count > 1:
            columns = get_anyres_image_grid_shape(
                inputs["image_sizes"][part], config.image_grid_pinpoints,
                config.vision_config.image_size,
            )[1]  # fmt: skip
        number = torch.arange(count) - 1
        places = torch.stack([(number >= 0).long(), number // columns, number % columns], 1)
        places[0] = 0
        spread = places[:, None].expand(-1, side * side, -1).float()
        # Where a raster is interpolated, rows and columns between two tiles go to the nearer one.
        in_raster, row, column = (self._together(spread, part, inputs, -1) + 0.5).floor().long().T
        return torch.where(in_raster > 0, 1 + row * columns + column, in_raster)

    def newline(self, tokens: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """Return which tokens are the newline vector.

        The layout of tiles is not given beside the tokens, but the vector is put in unchanged, and
        no projected patch equals it in every channel.
        """
        vector = getattr(self.base, "image_newline", None)
        if vector is None:
            return super().newline(tokens)
        with torch.no_grad():
            return (tokens == vector.to(tokens)).all(-1).cpu()

    def frames(self, part: int, n: int, inputs: Mapping[str, Any]) -> list[int] | None:
        """Return the tokens of each frame; a newline vector at a video's end is of the last one."""
        pixels = inputs.get("pixel_values_videos")
        if pixels is None:
            return None
        count = int(pixels.shape[1])
        sizes = [n // count] * count
        sizes[-1] += n % count
        return sizes if n % count in (0, 1) else None


class LlavaOneVision(LlavaNext):
    """LLaVA-OneVision; in a prompt of several images each is one tile."""

    @property
    def projects(self) -> bool:
        """No: a large raster is interpolated behind the projector."""
        return False

    def _pack(self, tiles: list[Tensor], sizes: Tensor, newline: Tensor) -> Sequence[Tensor]:
        ratio = self.model.config.vision_aspect_ratio
        return self.base.pack_image_features(
            tiles, sizes, image_newline=newline, vision_aspect_ratio=ratio
        )[0]

    def _tiles(self, part: int, inputs: Mapping[str, Any]) -> int:
        counts = inputs.get("batch_num_images")
        if counts is not None:
            of_prompt = [int(n) for n in counts for _ in range(int(n))]
            if of_prompt[part] != 1:
                return 1
        return super()._tiles(part, inputs)
