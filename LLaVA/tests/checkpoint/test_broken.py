"""Every way in which a checkpoint can be incomplete ends in a sentence that names the file."""

import json

import pytest
import torch

from helpers import change, load, rewrite
from llava.checkpoint import CheckpointError


def spoil(path, how):
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(b"not a file of weights, but long enough to be read as one" * 10)


@pytest.mark.parametrize("how", ["missing", "truncated", "empty", "foreign"])
@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("v15", "pytorch_model-00002-of-00002.bin"),
        ("v16", "model-00002-of-00003.safetensors"),
        ("v15", "../tiny-clip/model.safetensors"),
    ],
)
def test_a_spoilt_shard_is_named(kind, file, how, request):
    folder = request.getfixturevalue(kind)
    spoil(folder / file, how)
    message = "is missing" if how == "missing" else "is damaged"
    if how == "missing" and file.startswith(".."):
        message, file = "holds no weights", "../tiny-clip"
    with pytest.raises(CheckpointError, match=f"{file.removeprefix('../')}.*{message}"):
        load(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json", "tokenizer.model"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"{}"])
def test_a_spoilt_description_is_named(v16, file, content):
    (v16 / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        load(v16)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.model"])
def test_a_missing_description_is_named(v15, file):
    (v15 / file).unlink()
    with pytest.raises(CheckpointError, match=f"{file} does not exist"):
        load(v15)


def test_a_key_that_the_index_promises_must_be_there(v16):
    rewrite(v16, lambda weights: weights.pop("lm_head.weight"))
    with pytest.raises(CheckpointError, match="00001-of-00003.* lacks lm_head.weight, which model"):
        load(v16)


def test_a_weight_that_is_nowhere_is_named(v16):
    rewrite(v16, lambda weights: weights.pop("lm_head.weight"))
    index = json.loads((v16 / "model.safetensors.index.json").read_text())
    del index["weight_map"]["lm_head.weight"]
    (v16 / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="llava lacks lm_head.weight"):
        load(v16)


def test_a_weight_that_nothing_uses_is_named(v16):
    extra = {"model.mm_projector.4.weight": torch.zeros(2)}
    rewrite(v16, lambda weights: weights.update(extra))
    with pytest.raises(CheckpointError, match="holds model.mm_projector.4.weight, which the model"):
        load(v16)


def test_a_weight_in_two_shards_is_named(v16):
    last = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight"
    again = {last: torch.zeros(32)}
    rewrite(v16, lambda weights: weights.update(again))
    with pytest.raises(CheckpointError, match="which another shard holds as well"):
        load(v16)


def test_a_weight_of_another_shape_is_named(v16):
    rewrite(v16, lambda w: w.update({"lm_head.weight": torch.zeros(618, 32)}))
    with pytest.raises(
        CheckpointError, match=r"lm_head.weight of shape \(618, 32\), .*\(618, 64\)"
    ):
        load(v16)


@pytest.mark.parametrize("vocab", [600, 618 + 200])
def test_the_vocabulary_of_another_model_is_named(v15, vocab):
    change(v15 / "config.json", vocab_size=vocab)
    with pytest.raises(
        CheckpointError, match=f"tokenizer.model .* 618 pieces, .*vocab_size {vocab}"
    ):
        load(v15)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mm_vision_tower": "REMOVE"}, "mm_vision_tower must name .*, got no such key"),
        ({"mm_vision_tower": None}, "mm_vision_tower must name .*, got null"),
        ({"model_type": "llava_mistral"}, "is of model_type 'llava_mistral' .*, which is not"),
        ({"hidden_size": "REMOVE"}, "lacks hidden_size"),
        ({"mm_projector_type": "resampler"}, "llava: mm_projector_type must be .*'resampler'"),
        ({"mm_vision_select_layer": -40}, "not usable: mm_vision_select_layer must be in"),
        ({"num_hidden_layers": "four"}, "config.json .*: num_hidden_layers must be .*'four'"),
        ({"num_hidden_layers": 5}, "lacks model.layers.4"),
        ({"num_hidden_layers": 3}, "holds model.layers.3"),
        (
            {"text_config": {"model_type": "llama"}},
            "vision_config must be an object, got None",
        ),
    ],
)
def test_a_configuration_of_another_kind_is_refused(v15, fields, message):
    change(v15 / "config.json", **fields)
    with pytest.raises(CheckpointError, match=message):
        load(v15)


@pytest.mark.parametrize("name", ["no-such-folder", "/no/such/folder", "./nothing", "a/b/c"])
def test_a_path_that_leads_nowhere_is_said(name):
    with pytest.raises(CheckpointError, match="no hub id|neither a folder nor"):
        load(name, local_files_only=True)


def test_a_repository_that_is_not_cached_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="config.json of owner/name is not in the cache"):
        load("owner/name", cache_dir=tmp_path, local_files_only=True)


def test_code_in_a_pickle_is_not_run(v15):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"lm_head.weight": Evil()}, v15 / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(CheckpointError, match="is damaged or no file of weights"):
        load(v15)
