"""Encoded images as bytes and back: every bit of every field, in every family."""

import functools
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers import TINY, TINY_ANYRES, picture, tiny
from otprune.pruning.image_tokens import ImageTokens
from otprune.signals import Signals
from otprune_lmms.models import ModelSource, load_model
from otprune_lmms.models.stored_images import NotStorableError, from_bytes, to_bytes
from tiny_checkpoints import write_checkpoint

NONE = frozenset[str]()
FAMILIES = ("llava_next", "qwen2_5_vl", "qwen3_vl", "idefics3")


@pytest.fixture(scope="module")
def of_transformers(tmp_path_factory):
    root = tmp_path_factory.mktemp("stored")

    @functools.cache
    def model(family):
        write_checkpoint(root / family, family)
        return load_model(ModelSource(str(root / family), device="cpu"))

    return model


def same(one, other):
    """Whether two values are equal to the last bit, in type and shape too."""
    if isinstance(one, Tensor):
        equal = isinstance(other, Tensor) and one.dtype == other.dtype and one.shape == other.shape
        whole = [x.contiguous().flatten().view(torch.uint8) for x in (one, other)] if equal else []
        return equal and torch.equal(*whole)
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[n], other[n]) for n in one)
    if isinstance(one, Signals | ImageTokens):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return one == other


def there_and_back(image, kind):
    return from_bytes(kind, to_bytes(image, "key"), "key")


@pytest.mark.parametrize("name", ["land.png", "port.png"])
@pytest.mark.parametrize("checkpoint", [TINY, TINY_ANYRES])
@pytest.mark.parametrize("signals", [NONE, {"cls_attention", "encoder_keys", "features"}])
def test_an_image_of_llava_comes_back(name, checkpoint, signals):
    model = tiny(checkpoint)
    (image,) = model.encode([model.preprocess(picture(name))], frozenset(signals))
    assert image.signals.names >= signals
    assert same(image, there_and_back(image, model.image_class))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("signals", [NONE, {"features", "received_attention"}])
def test_an_image_of_transformers_comes_back(of_transformers, family, signals):
    model = of_transformers(family)
    pixels = [model.preprocess(picture(name)) for name in ("land.png", "port.png")]
    image, _ = model.encode(pixels, frozenset(signals))
    back = there_and_back(image, model.image_class)
    assert same(image, back)
    assert bool(image.beside) == (family == "qwen3_vl")
    assert bool(image.geometry) == family.startswith("qwen")
    assert type(back) is model.image_class


@given(
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    n=st.integers(0, 5),
    seed=st.integers(0, 99),
    grid=st.sampled_from([None, (1, 5), (5, 1)]),
)
def test_any_tokens_come_back_of_every_dtype_views_and_nans_among_them(dtype, n, seed, grid):
    bits = torch.randint(-(2**15), 2**15, (6, n), generator=torch.Generator().manual_seed(seed))
    tokens = (bits.to(torch.int16).view(torch.bfloat16) if dtype == torch.bfloat16 else bits).to(
        dtype
    )
    known = Signals(grid=grid, cls_attention=tokens.T, features=tokens[1:3], tiles=bits[0])
    image = ImageTokens(tokens[1:3], torch.zeros(n, dtype=torch.bool), known)
    assert same(image, there_and_back(image, ImageTokens))


def test_an_image_with_a_function_cannot_be_stored():
    model = tiny()
    (image,) = model.encode([model.preprocess(picture("land.png"))], frozenset({"encode_at"}))
    with pytest.raises(NotStorableError, match="holds a _Resized"):
        to_bytes(image, "key")


@pytest.fixture(scope="module")
def content():
    return to_bytes(ImageTokens(torch.arange(12.0).view(3, 4)), "key")


def test_no_byte_can_change_unnoticed(content):
    for place in range(len(content)):
        wrong = bytearray(content)
        wrong[place] ^= 1
        try:
            back = from_bytes(ImageTokens, bytes(wrong), "key")
        except ValueError:
            continue
        # Blanks at the end of the header may be others.
        assert same(back, from_bytes(ImageTokens, content, "key"))
        assert content[place : place + 1].isspace()


def test_no_end_can_be_missing_and_no_key_be_another(content):
    for length in range(len(content)):
        with pytest.raises(ValueError):  # noqa: PT011 - the messages differ with the place
            from_bytes(ImageTokens, content[:length], "key")
    with pytest.raises(ValueError, match="the tokens of another image"):
        from_bytes(ImageTokens, content, "another")
    image = replace(from_bytes(ImageTokens, content, "key"), newline=None)
    assert torch.equal(image.tokens, torch.arange(12.0).view(3, 4))
