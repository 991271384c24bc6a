"""Checkpoints that are written are read again, whatever was in the folder."""

import json

import pytest
import torch

from helpers import V15, V16, load, same_weights
from llava.checkpoint import CheckpointError
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from llava.model.writer import write_checkpoint
from llava.tokenizer import LlavaTokenizer


@pytest.mark.parametrize("source", ["v1.5", "v1.6"])
@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 200_000])
def test_a_written_checkpoint_is_read_again(tmp_path, source, shard_bytes):
    tokenizer, model, _, _ = load(V15 if source == "v1.5" else V16)
    write_checkpoint(model, tokenizer, tmp_path / "again", shard_bytes=shard_bytes)
    assert (tmp_path / "again" / "model.safetensors").exists() == (shard_bytes > 1e6)
    other_tokenizer, other, processor, _ = load(tmp_path / "again", local_files_only=True)
    assert same_weights(model, other)
    assert other.config.rope_parameters == model.config.rope_parameters
    assert processor == model.get_vision_tower().image_processor
    assert other_tokenizer(" a </s>b").input_ids == tokenizer(" a </s>b").input_ids
    stored = json.loads((tmp_path / "again" / "config.json").read_text())
    assert stored["model_type"] == "llava_llama"
    assert stored["architectures"] == ["LlavaLlamaForCausalLM"]
    with pytest.raises(ValueError, match="shard_bytes must hold lm_head.weight of"):
        write_checkpoint(model, tokenizer, tmp_path / "tiny", shard_bytes=1000)


@pytest.mark.parametrize("tower", ["siglip_vision_model", "dinov2"])
def test_checkpoints_with_other_towers_are_written_and_read(tmp_path, tower):
    extra = {"mlp_ratio": 2} if tower == "dinov2" else {"intermediate_size": 64}
    config = LlavaConfig(
        vocab_size=618, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, pad_token_id=0, mm_hidden_size=24, mm_vision_tower=tower,
        mm_projector_type="mlp2x_gelu", mm_use_im_patch_token=False, image_aspect_ratio="pad",
        mm_vision_config={
            "model_type": tower, "hidden_size": 24, "num_hidden_layers": 3,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 7, **extra,
        },
    )  # fmt: skip
    model = LlavaLlamaForCausalLM(config).eval()
    tokenizer = LlavaTokenizer(V15 / "tokenizer.model")
    write_checkpoint(model, tokenizer, tmp_path, dtype=torch.float32)
    other = load(tmp_path)[1]
    assert same_weights(model, other)
    ids, pixels = torch.tensor([[1, 5, -200, 6]]), torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        assert torch.equal(model(ids, images=pixels).logits, other(ids, images=pixels).logits)
        assert model(ids, images=pixels).logits.shape[1] == 3 + 16


def test_what_was_in_the_folder_is_not_read_again(tmp_path):
    tokenizer, model, _, _ = load(V15)
    torch.save({"lm_head.weight": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    for shard_bytes in (200_000, 5_000_000_000, 300_000):
        with torch.no_grad():
            model.lm_head.weight.add_(1)
        write_checkpoint(model, tokenizer, tmp_path, shard_bytes=shard_bytes)
        assert same_weights(load(tmp_path)[1], model)
        assert not list(tmp_path.glob("pytorch_model*"))


def test_an_interrupted_writing_leaves_nothing_to_read(tmp_path, monkeypatch):
    tokenizer, model, _, _ = load(V15)
    write_checkpoint(model, tokenizer, tmp_path)

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("llava.model.writer.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        write_checkpoint(model, tokenizer, tmp_path)
    with pytest.raises(CheckpointError, match="holds no weights"):
        load(tmp_path)


def small(**more) -> LlavaLlamaForCausalLM:
    config = LlavaConfig(
        vocab_size=618, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, pad_token_id=0, mm_hidden_size=24, mm_vision_tower="tower",
        mm_projector_type="linear", mm_use_im_patch_token=False,
        mm_vision_config={
            "model_type": "dinov2", "hidden_size": 24, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 7,
        },
        **more,
    )  # fmt: skip
    return LlavaLlamaForCausalLM(config).eval()


@pytest.mark.parametrize("more", [{"tie_word_embeddings": True}, {"head_dim": 16}])
def test_unusual_shapes_come_back(tmp_path, more):
    model, tokenizer = small(**more), LlavaTokenizer(V15 / "tokenizer.model")
    write_checkpoint(model, tokenizer, tmp_path)
    other = load(tmp_path)[1]
    assert same_weights(model, other)
    tied = other.lm_head.weight.data_ptr() == other.model.embed_tokens.weight.data_ptr()
    assert tied == bool(more.get("tie_word_embeddings"))


def test_weights_keep_their_dtype_and_their_range(tmp_path):
    model, tokenizer = small(), LlavaTokenizer(V15 / "tokenizer.model")
    with torch.no_grad():
        model.lm_head.weight[0, 0] = 1e5
    write_checkpoint(model, tokenizer, tmp_path)
    assert same_weights(load(tmp_path)[1], model)
    with pytest.raises(ValueError, match="lm_head.weight leaves the range of torch.float16"):
        write_checkpoint(model, tokenizer, tmp_path, dtype=torch.float16)
    assert same_weights(load(tmp_path)[1], model)
