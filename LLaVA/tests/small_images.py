"""Images of few tokens with made-up signals, so that many prompts are cheap."""

from dataclasses import replace

import torch

from helpers import padded, visual_of
from llava.constants import IMAGE_TOKEN_INDEX
from masked import CKPT
from otprune import Signals
from otprune.pruning import make_pruning
from otprune.pruning.image_tokens import ImageTokens

IMAGE = IMAGE_TOKEN_INDEX
GRIDS = [(6, 8), (5, 5), (4, 9), (7, 6)]
"""Rasters of unequal sizes, one for each image of `masked.ROWS`."""

SCHEDULED = {
    "fastv": make_pruning("fastv", schedule="2:0.3"),
    "fastv, compact": make_pruning("fastv", schedule="1:7", positions="compact"),
    "pyramiddrop": make_pruning("pyramiddrop", schedule="1:0.7/2:0.4/3:0.1"),
    "transprune": make_pruning(
        "transprune", schedule="1:0.8/2:0.5/3:0.2", observe_from=0, observe_to=2
    ),
    "transprune, original": make_pruning(
        "transprune", schedule="2:0.4", observe_from=0, observe_to=3, positions="original"
    ),
    "sparsevlm 2": make_pruning("sparsevlm", schedule="1:0.6/2:0.4/3:0.2", version="2", heads=3),
    "dart": make_pruning("dart", schedule="2:9"),
    "tops": make_pruning("tops", schedule="0:0.8/1:0.5/3:0.2"),
    "tops, looking back": make_pruning("tops", schedule="1:20/3:6", attention="previous"),
    "vtw": make_pruning("vtw", schedule="2:0"),
}
"""Layer pruners that merge nothing, for a model of four layers."""


def small_image(number: int) -> ImageTokens:
    """Some tokens of a recorded image as an image of its own."""
    rows, columns = GRIDS[number % len(GRIDS)]
    n = rows * columns
    whole = visual_of(CKPT, ("images/land.png", "images/port.png")[number % 2])
    some = torch.randperm(len(whole), generator=torch.Generator().manual_seed(number))[:n]
    draw = torch.Generator().manual_seed(100 + number)
    attention = torch.rand(4, n, generator=draw)
    keys, features = (torch.randn(n, 32, generator=draw) for _ in range(2))
    return ImageTokens(
        whole.tokens[some],
        None,
        Signals(
            grid=(rows, columns),
            cls_attention=attention / attention.sum(1, keepdim=True),
            encoder_keys=keys,
            final_cls_attention=attention[0],
            final_keys=keys.flip(0),
            features=features,
            cls_features=torch.randn(1, 32, generator=draw),
        ),
    )


def with_newlines(number: int) -> ImageTokens:
    """A small image in which every fifth token is the end of a row."""
    image = small_image(number)
    ends = torch.arange(len(image)) % 5 == 4
    tiles = torch.zeros(len(image), dtype=torch.long).masked_fill(ends, -1)
    known = replace(image.signals, grid=None, tiles=tiles)
    return ImageTokens(image.tokens, ends, known)


def small_request(rows, side: str = "left", first: int = 0, make=small_image):
    count = sum(row.count(IMAGE) for row in rows)
    return padded([torch.tensor(row) for row in rows], side) | {
        "visual": [make(first + i) for i in range(count)],
        "image_ids": list(range(first, first + count)),
    }


def alone(rows, make=small_image):
    """Requests of one row each."""
    first = 0
    for row in rows:
        yield small_request([row], first=first, make=make)
        first += row.count(IMAGE)
