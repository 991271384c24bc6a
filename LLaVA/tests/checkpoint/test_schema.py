"""Values beyond their bounds end in a sentence with file, key and rule."""

import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import CLIP, change, load
from llava.checkpoint import CheckpointError
from llava.checkpoint.checked import checked
from llava.checkpoint.schema import ModelSettings
from llava.checkpoint.shards import read_bin, read_safetensors

HUGE = 10**7
"""Layers that would take minutes to build and hours to fill."""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a finite number, got nan"),
        ({"rope_theta": float("inf")}, "rope_theta must be a finite number, got inf"),
        ({"hidden_size": -1}, "hidden_size must be greater than or equal to 1, got -1"),
        ({"hidden_size": 0}, "hidden_size must be greater than or equal to 1, got 0"),
        ({"num_attention_heads": 0}, "num_attention_heads must be greater than or equal to 1"),
        ({"num_attention_heads": 5}, "hidden_size must be a multiple of num_attention_heads 5"),
        ({"num_key_value_heads": 3}, "num_key_value_heads must divide num_attention_heads 4"),
        ({"eos_token_id": -1}, "eos_token_id must be greater than or equal to 0, got -1"),
        ({"eos_token_id": [2, 700]}, "eos_token_id must be below vocab_size 618, got 700"),
        ({"pad_token_id": 618}, "pad_token_id must be below vocab_size 618, got 618"),
        ({"pad_token_id": "0"}, "pad_token_id must be a valid integer, got '0'"),
        ({"hidden_act": "slu"}, "hidden_act must be one of .*, got 'slu'"),
        ({"num_hidden_layers": HUGE}, "num_hidden_layers must be less than or equal to 1024"),
        ({"num_hidden_layers": 900}, "lacks model.layers.4: num_hidden_layers in .* says 900"),
        ({"mm_projector_type": "mlp99999x_gelu"}, "mm_projector_type must be .* depth of 1 to 16"),
        ({"mm_projector_type": "mlp9x_gelu"}, "lacks model.mm_projector.4.weight"),
        ({"rope_scaling": {"type": "spiral", "factor": 2.0}}, "rope_scaling.* must be 'default'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling must have factor for type linear"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "rope_scaling.factor must be a va"),
        (
            {
                "rope_scaling": {
                    "rope_type": "longrope",
                    "short_factor": [1.0],
                    "long_factor": [1.0],
                }
            },
            "rope_scaling or rope_parameters is not usable",
        ),
        ({"mm_use_im_start_end": "yes"}, "mm_use_im_start_end must be a valid boolean, got 'yes'"),
        ({"image_aspect_ratio": "anyres_max_9"}, "image_aspect_ratio must be 'pad', 'anyres'"),
        ({"image_aspect_ratio": "anyres"}, "image_grid_pinpoints must be a list of"),
        (
            {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[336, 500]]},
            r"must be multiples of the tile's side 336 .*, got \[336, 500\]",
        ),
        (
            {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[336, 0]]},
            "image_grid_pinpoints.0.1 must be greater than or equal to 1, got 0",
        ),
        ({"mm_vision_tower": 7}, "mm_vision_tower must be a valid string, got 7"),
        ({"mm_vision_tower": "/home/me/clip"}, "mm_vision_tower in .*: /home/me/clip is no folder"),
        ({"mm_vision_tower": "x\0y/z"}, "mm_vision_tower in config.json of"),
        ({"mm_vision_config": 3}, "mm_vision_config must be a valid dictionary, got 3"),
        ({"mm_vision_config": {"model_type": ["clip"]}}, "vision tower is of type"),
    ],
)
def test_a_value_beyond_its_bounds_is_named(v15, fields, message):
    change(v15 / "config.json", **fields)
    begin = time.process_time()
    with pytest.raises(CheckpointError, match=message):
        load(v15, local_files_only=True)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("config.json", {"patch_size": 0}, "tiny-clip: patch_size must be greater than or equal"),
        ("config.json", {"patch_size": 400}, "patch_size must be at most image_size 336, got 400"),
        ("config.json", {"num_hidden_layers": HUGE}, "tiny-clip: num_hidden_layers must be less"),
        ("config.json", {"num_hidden_layers": 30}, "encoder.layers.24: the vision tower's num_hid"),
        ("config.json", {"num_attention_heads": 0}, "tiny-clip: num_attention_heads must be"),
        ("config.json", {"num_attention_heads": "REMOVE"}, "32. is not a multiple of the number"),
        ("config.json", {"layer_norm_eps": float("nan")}, "layer_norm_eps must be a finite number"),
        ("config.json", {"image_size": 224}, "image_size 224, its preprocessor_.* makes 336"),
        ("config.json", {"model_type": "vit"}, "the vision tower is of type 'vit'; known: clip"),
        ("preprocessor_config.json", {"crop_size": -1}, "tiny-clip: crop_size must be"),
        ("preprocessor_config.json", {"image_std": [0, 1, 1]}, "image_std.0 must be greater"),
        (
            "preprocessor_config.json",
            {"size": {"longest_edge": 3}},
            "tiny-clip: size must be one number, a sh",
        ),
    ],
)
def test_a_value_of_the_tower_is_named(v15, file, fields, message):
    change(v15.parent / "tiny-clip" / file, **fields)
    with pytest.raises(CheckpointError, match=message):
        load(v15)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"do_sample": True, "temperature": "hot"},
            "temperature must be a valid number, got 'hot'",
        ),
        ({"do_sample": True, "temperature": 0.0}, "temperature and top_p must be above 0 where"),
        ({"eos_token_id": -1}, "generation_config.json of .*: eos_token_id must be greater"),
        ({"eos_token_id": 900}, "eos_token_id must be below vocab_size 618, got 900"),
        ({"top_p": float("nan")}, "top_p must be a finite number, got nan"),
    ],
)
def test_generation_settings_are_checked(v15, fields, message):
    change(v15 / "generation_config.json", **fields)
    with pytest.raises(CheckpointError, match=message):
        load(v15)


def test_names_of_the_configuration_s_own_methods_do_not_replace_them(v15):
    change(v15 / "config.json", to_dict=3, num_labels=10**9, output_hidden_states=True, is_mine=4)
    config = load(v15)[1].config
    assert config.to_dict()["is_mine"] == 4
    assert not config.output_hidden_states
    assert config.num_labels == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "config.json is no JSON: key 'a' is given twice"),
        ("[" * 100_000, "config.json is nested too deeply"),
        ('{"a": ' * 50_000, "config.json is nested too deeply"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        ("\ud800", "config.json is no JSON"),
        ('{"a": "\\ud800"}', "config.json is no JSON: .*surrogates not allowed"),
    ],
)
def test_a_file_that_is_no_plain_json_is_named(v15, text, message):
    (v15 / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match=message):
        load(v15)


@pytest.mark.parametrize("file", ["pytorch_model-00001-of-00002.bin", "tokenizer.model"])
def test_git_lfs_pointers_are_named(v15, file):
    (v15 / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CheckpointError, match=f"{file} is a Git LFS pointer, not the file itself"):
        load(v15)


@pytest.mark.parametrize(
    "shard", [3, None, ["a.bin"], {}, "../tiny-clip/model.safetensors", "a/b.bin", "x.txt", ".bin"]
)
def test_an_index_names_files_of_its_own_folder_only(v16, shard):
    path = v16 / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["lm_head.weight"] = shard
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="weight_map of lm_head.weight must be the name of a"):
        load(v16)


def test_a_file_outside_the_folder_is_never_opened(v16, tmp_path, monkeypatch):
    outside = tmp_path / "outside.safetensors"
    save_file(load_file(v16 / "model-00001-of-00003.safetensors"), outside)
    path = v16 / "model.safetensors.index.json"
    path.write_text(path.read_text().replace("model-00001-of-00003.safetensors", str(outside)))
    monkeypatch.setattr("llava.checkpoint.shards.read_safetensors", pytest.fail)
    with pytest.raises(CheckpointError, match="file in its own folder, got '/"):
        load(v16)


def with_header(path, change_header):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change_header(header)
    new = json.dumps(header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + content[8 + length :])


def overlap(header):
    header["b"]["data_offsets"] = header["a"]["data_offsets"]


def beyond(header):
    header["b"]["data_offsets"] = [9000, 9016]


def backwards(header):
    header["b"]["data_offsets"] = [16, 0]


def words(header):
    header["b"]["data_offsets"] = "0-16"


@pytest.mark.parametrize("spoil", [overlap, beyond, backwards, words])
def test_tensors_of_a_file_have_a_place_of_their_own(tmp_path, spoil):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(4), "b": torch.ones(4)}, path)
    assert read_safetensors(path)["b"].tolist() == [1] * 4
    with_header(path, spoil)
    with pytest.raises(CheckpointError, match="model.safetensors is damaged: b "):
        read_safetensors(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({3: torch.zeros(2)}, "must hold tensors by name, got the name 3"),
        ({"a": torch.zeros(2).to_sparse()}, "holds a, which is no dense tensor of numbers"),
        ({"a": torch.zeros(2, device="meta")}, "holds a, which is no dense tensor of numbers"),
        ([torch.zeros(2)], "must hold tensors by name"),
    ],
)
def test_what_a_bin_file_may_hold(tmp_path, content, message):
    torch.save(content, tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match=message):
        read_bin(tmp_path / "model.bin")


def test_weights_are_floating_point(v16):
    path = v16 / "model-00001-of-00003.safetensors"
    weights = load_file(path)
    save_file(weights | {"lm_head.weight": weights["lm_head.weight"].int()}, path)
    with pytest.raises(CheckpointError, match="lm_head.weight of torch.int32, weights are float"):
        load(v16)


@pytest.mark.parametrize("name", ["flash_attention_2", "flash_attention_3"])
def test_attention_that_is_not_installed_is_said(name, monkeypatch):
    monkeypatch.setattr("llava.model.checks.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"attn_implementation {name} needs the package flash_at"):
        load(CLIP, attn_implementation=name)


@pytest.mark.parametrize("name", ["nobody", ""])
def test_attention_that_nobody_knows_is_said(name):
    with pytest.raises(ValueError, match=f"attn_implementation must be one of .*got '{name}'"):
        load(CLIP, attn_implementation=name)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (
            {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]},
            r"'qwen2_vl' \(architecture Qwen2VLForConditionalGeneration\), which is not supported",
        ),
        ({"model_type": "llava_mistral", "mm_vision_tower": "x"}, "'llava_mistral', which is not"),
        ({"model_type": "llava_onevision", "text_config": {"model_type": "qwen2"}},
         "'llava_onevision' with a language model of type 'qwen2', which is not supported"),
        ({"model_type": "llama"}, "a language model alone is given as model_base of a projector"),
        ({}, "is of no model_type, which is not supported"),
        ({"model_type": ["llava"]}, r"model_type \['llava'\], which"),
    ],
)  # fmt: skip
def test_another_family_is_named_with_what_is_supported(tmp_path, raw, said):
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=said) as raised:
        load(tmp_path)
    assert "supported are LLaVA-1.5 and LLaVA-1.6 on Llama or Vicuna" in str(raised.value)


def test_an_ordinary_configuration_passes():
    settings = checked(ModelSettings, {"vocab_size": 32000, "rope_scaling": None}, "here")
    assert settings.rope_scaling is None
