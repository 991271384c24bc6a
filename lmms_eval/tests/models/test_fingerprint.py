"""A model's fingerprint: any change of what decides its answers, and nothing else."""

import copy
import dataclasses

import pytest
import torch

from helpers import TINY, loaded
from llava.model.builder import load_pretrained_model
from otprune_lmms.models.fingerprint import FingerprintError, model_fingerprint


def fingerprint(parts) -> str:
    tokenizer, model, processor, _ = parts
    return model_fingerprint(model, tokenizer, processor)


@pytest.fixture(scope="module")
def known() -> str:
    return fingerprint(loaded())


def test_it_does_not_depend_on_where_the_checkpoint_lies(known, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for file in TINY.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tiny-clip").symlink_to(TINY.parent / "tiny-clip")
    assert fingerprint(load_pretrained_model(folder, device="cpu")) == known


@pytest.mark.parametrize("place", [0, 1, -1])
def test_one_bit_of_one_weight_changes_it(known, place):
    tokenizer, model, processor, length = loaded()
    changed = copy.deepcopy(model)
    weights = changed.lm_head.weight.data.view(-1).view(torch.int32)
    weights[place] ^= 1
    assert fingerprint((tokenizer, changed, processor, length)) != known


def test_two_weights_that_change_places_change_it(known):
    tokenizer, model, processor, length = loaded()
    changed = copy.deepcopy(model)
    rows = changed.lm_head.weight.data
    rows[[10, 400]] = rows[[400, 10]]
    assert fingerprint((tokenizer, changed, processor, length)) != known


def test_dtype_configuration_and_preprocessing_change_it(known):
    tokenizer, model, processor, length = loaded()
    half = load_pretrained_model(TINY, device="cpu", torch_dtype="bfloat16")
    other = copy.deepcopy(model)
    other.config.image_aspect_ratio = "square"
    blurred = dataclasses.replace(processor, resample=2)
    found = {
        fingerprint(half),
        fingerprint((tokenizer, other, processor, length)),
        fingerprint((tokenizer, model, blurred, length)),
    }
    assert len(found | {known}) == 4


def test_weights_that_are_not_in_memory_are_refused():
    tokenizer, model, processor, _ = loaded()
    with torch.device("meta"):
        absent = type(model)(model.config)
    absent.generation_config = model.generation_config
    with pytest.raises(FingerprintError, match="is not in memory"):
        model_fingerprint(absent, tokenizer, processor)
