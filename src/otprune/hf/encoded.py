"""Images that are encoded once and used in many calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.utils.generic import ModelOutput

from otprune.hf.families import EncodedImages, Family
from otprune.pruning import ImageTokens


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """A processor's output for one image.

    Attributes:
        values: pixels and what belongs to them, as `get_image_features` takes them for one image.
        tokens: how many placeholders the image has in a prompt.
    """

    values: Mapping[str, Tensor]
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage(ImageTokens):
    """One image as the vision encoder left it.

    Attributes:
        sizes: tokens of each piece in which the family's encoder gives them (tiles, or one).
        beside: what goes beside the tokens, row for row (deepstack features), [n d] each.
        template: the encoder's output without content.
        geometry: what rotary positions follow from beside the ids (``image_grid_thw``), by the name
            of the argument, for this one image.
    """

    sizes: tuple[int, ...]
    beside: tuple[Float[Tensor, "n d"], ...] = ()
    template: ModelOutput = field(repr=False)
    geometry: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens, of their signals and of what goes beside them."""
        # super() without arguments does not work in a class that slots=True makes anew.
        return super(EncodedImage, self).nbytes + sum(rows.nbytes for rows in self.beside)


@torch.no_grad()
def encode_images(
    family: Family, images: Sequence[ImageInputs], wanted: frozenset[str] = frozenset()
) -> list[EncodedImage]:
    """Return images encoded; those of equal shape go through the encoder in one call.

    Args:
        family: the model.
        images: what a processor gives for each; moved to the model's device and, if they are
            floating point numbers, to its dtype.
        wanted: names of signals to compute as well; those that the family does not give are left
            out.

    Raises:
        ValueError: an image with another number of tokens than it has placeholders.
    """
    groups: dict[Any, list[int]] = {}
    for number, image in enumerate(images):
        # Along the first axis images of any shape may follow each other.
        shape = tuple(sorted((name, one.shape[1:]) for name, one in image.values.items()))
        groups.setdefault(shape, []).append(number)
    found: dict[int, EncodedImage] = {}
    for group in groups.values():
        encoded = _encode_group(family, [images[number] for number in group], wanted)
        found.update(zip(group, encoded, strict=True))
    return [found[number] for number in range(len(images))]


def _encode_group(
    family: Family, images: Sequence[ImageInputs], wanted: frozenset[str]
) -> list[EncodedImage]:
    device, dtype = family.model.device, family.model.dtype
    inputs = {}
    for name in images[0].values:
        joined = torch.cat([one.values[name] for one in images]).to(device)
        inputs[name] = joined.to(dtype) if joined.is_floating_point() else joined
    if "cls_attention" in wanted:
        # What some methods take in its place, see `Method.needs_without_cls`; given by no family
        # that gives the other.
        wanted = wanted | {"received_attention"}
    encoded = family.encode(inputs, wanted & family.gives)
    beside = family.beside(encoded.output)
    template, first, row, found = family.template(encoded.output), 0, 0, []
    for image in images:
        last = _end(encoded.sizes, first, image.tokens)
        parts, rows = range(first, last), slice(row, row + image.tokens)
        first, row = last, rows.stop
        tokens = family.image(encoded, parts, inputs)
        # A view would keep the tokens of the whole group in memory.
        found.append(
            EncodedImage(
                tokens=tokens.tokens.clone() if len(images) > 1 else tokens.tokens,
                newline=tokens.newline,
                signals=tokens.signals,
                sizes=tuple(encoded.sizes[part] for part in parts),
                beside=tuple(layer[rows].clone() for layer in beside),
                template=template,
                geometry={
                    name: image.values[name] for name in family.geometry if name in image.values
                },
            )
        )
    return found


def _end(sizes: Sequence[int], first: int, tokens: int) -> int:
    """Return the piece after those that together have ``tokens`` tokens."""
    last, seen = first, 0
    while seen < tokens and last < len(sizes):
        seen += sizes[last]
        last += 1
    if seen != tokens:
        raise ValueError(
            f"an image must have as many visual tokens as placeholders, got {seen} tokens (of "
            f"pieces of {list(sizes[first:last])}) for {tokens} placeholders"
        )
    return last


def joined(family: Family, images: Sequence[EncodedImage]) -> EncodedImages:
    """Return the encoder's output for images that were encoded apart.

    Args:
        family: the model.
        images: at least one.
    """
    pieces = [piece for image in images for piece in image.tokens.split(list(image.sizes))]
    output = family.with_tokens(images[0].template, pieces)
    layers = range(len(images[0].beside))
    output = family.with_beside(output, [[one.beside[layer] for one in images] for layer in layers])
    return EncodedImages(output, pieces, frozenset(geometry_of(images)))


def geometry_of(images: Sequence[EncodedImage]) -> dict[str, Tensor]:
    """Return what positions follow from for several images, by the name of the argument."""
    names = images[0].geometry if images else ()
    return {name: torch.cat([image.geometry[name] for image in images]) for name in names}
