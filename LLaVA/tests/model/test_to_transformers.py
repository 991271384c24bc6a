"""The same weights as transformers' LLaVA: both prune alike and answer alike."""

import functools

import pytest
import torch
from PIL import Image

from helpers import PARITY, V16, last_logits, load, loaded, padded
from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import process_images
from llava.model.to_transformers import to_transformers
from otprune.hf import pruned
from otprune.pruning import Trace, make_pruning

CKPT = "checkpoints/tiny-llava-v1.5"
IMAGE = IMAGE_TOKEN_INDEX
ROWS = [[1, 20, 21, IMAGE, 30, 31, 32, 33], [1, IMAGE, 40, 41, 42, IMAGE, 43, 44, 45]]
PICTURES = ("images/land.png", "images/port.png", "images/square.png")


@functools.cache
def twin():
    return to_transformers(loaded(CKPT)[1])


def pixels():
    """Pixel values of the pictures, [3 3 s s]."""
    _, model, processor, _ = loaded(CKPT)
    return process_images([Image.open(PARITY / name) for name in PICTURES], processor, model.config)


def theirs():
    """The prompts as transformers' model takes them."""
    model, count = twin(), loaded(CKPT)[1].get_vision_tower().num_patches
    rows = []
    for row in ROWS:
        ids = [[model.config.image_token_index] * count if one == IMAGE else [one] for one in row]
        rows.append(torch.tensor([one for group in ids for one in group]))
    batch = padded(rows, "left")
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"].long(),
        "pixel_values": pixels(),
    }


def ours(needs):
    model = loaded(CKPT)[1]
    visual = model.encode_visual(pixels(), None, needs)
    return padded([torch.tensor(row) for row in ROWS], "left") | {"visual": visual}


WAYS = {
    "unpruned": None,
    "otprune": {"keep_ratio": 0.1},
    "otprune, original": {"keep_ratio": 0.1, "positions": "original"},
    "otprune, released": {"k": 20, "preset": "released"},
    "random": {"k": 9},
    "fastervlm": {"k": 30},
    "vispruner": {"k": 30},
    "scope": {"k": 30},
    "holov": {"k": 36},
    "pooling": {"k": 36},
    "downsample": {"k": 36},
    "visionzip": {"k": 40},
    "prumerge": {"k": 30},
    "tome": {"k": 60},
    "divprune": {"k": 30, "layer": 2},
    "fastv": {"schedule": "2:0.2"},
    "pyramiddrop": {"schedule": "1:0.5/2:0.25/3:0.125"},
    "sparsevlm": {"schedule": "1:0.5/2:0.3"},
    "dart": {"schedule": "2:0.3"},
    "vtw": {"schedule": "3:0"},
    "transprune": {"schedule": "2:0.5/3:0.25", "observe_from": 0, "observe_to": 2},
    "tops": {"schedule": "0:0.5/2:0.25/3:0.1"},
}


@pytest.mark.parametrize("way", WAYS)
def test_it_keeps_and_answers_what_our_model_does(way):
    model = loaded(CKPT)[1]
    if WAYS[way] is None:
        with torch.no_grad():
            mine = last_logits(model, ours(frozenset()), None)
            other = twin()(**theirs()).logits[:, -1, :-1]
        assert float((mine - other).abs().max()) <= 1e-5
        return
    pruning = make_pruning(way.partition(",")[0], **WAYS[way])
    trace, numbers = Trace(), [7, 8, 9]
    with torch.no_grad():
        mine = model.generate(
            **ours(pruning.needs), pruning=pruning, trace=trace, image_ids=numbers,
            max_new_tokens=5, eos_token_id=[999999],
        )  # fmt: skip
        with pruned(twin(), pruning, image_ids=numbers) as other:
            given = theirs()
            told = twin().generate(
                **given, max_new_tokens=5, do_sample=False, eos_token_id=[999999]
            )
    assert other.visual == trace.visual
    assert {layer: [one.tolist() for one in kept] for layer, kept in other.kept.items()} == {
        layer: [one.tolist() for one in kept] for layer, kept in trace.kept.items()
    }
    assert told[:, given["input_ids"].shape[1] :].tolist() == mine.tolist()


def test_what_has_no_such_layout_is_refused():
    with pytest.raises(ValueError, match="of one tile"):
        to_transformers(load(V16)[1])
