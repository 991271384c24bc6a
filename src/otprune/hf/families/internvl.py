"""InternVL: a tensor of tiles; the tiles of an image stand together in the prompt."""

from otprune.hf.families.llava import SquareFamily


class InternVL(SquareFamily):
    """InternVL 2.5 and 3 in transformers' own layout."""

    units = ("image", "tile", "sample")
    parts_are = "tile"
