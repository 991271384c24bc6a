"""Write a model as a checkpoint in LLaVA's original layout."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from llava.checkpoint.layouts import stored_name
from llava.checkpoint.shards import SOURCES
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.siglip_encoder import SiglipVisionTower
from llava.tokenizer import LlavaTokenizer

_NOT_STORED = ("dtype", "id2label", "label2id", "model_type", "rope_parameters")
_WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin", *(name for name in SOURCES))


def write_checkpoint(
    model: LlavaLlamaForCausalLM,
    tokenizer: LlavaTokenizer,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = 5_000_000_000,
) -> None:
    """Write config, weights in safetensors shards, vision tower included, and tokenizer.

    `load_pretrained_model` reads the result; so does LLaVA's original code if it knows the tower.

    Args:
        model: the model; its ``config.mm_vision_config`` describes the tower.
        tokenizer: its tokenizer.
        folder: created if needed; its weights are removed, other files of these names overwritten.
        dtype: dtype of the stored weights; the model's own if not given.
        shard_bytes: largest size of a shard.

    Raises:
        ValueError: a weight larger than a shard; a weight beyond the range of ``dtype``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tower = model.get_vision_tower()
    clip_like = isinstance(tower, CLIPVisionTower | SiglipVisionTower)
    tied = model.config.tie_word_embeddings
    weights = {
        stored_name(name, clip_like): _stored(name, tensor, dtype or model.dtype)
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    shards = _shards(weights, shard_bytes)
    for pattern in _WEIGHT_FILES:
        # Files of an earlier checkpoint would be read instead of the new one.
        for path in folder.glob(pattern):
            path.unlink()
    _write_json(folder / "config.json", _config(model, dtype or model.dtype))
    _write_shards(shards, folder)
    ids = {name: getattr(model.config, name) for name in ("bos_token_id", "eos_token_id")}
    pad = {"pad_token_id": model.config.pad_token_id or 0}
    _write_json(folder / "generation_config.json", ids | pad)
    tokenizer.save_vocabulary(str(folder))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    _write_json(folder / "special_tokens_map.json", special | {"pad_token": "<unk>"})
    _write_json(
        folder / "tokenizer_config.json",
        special | {"add_bos_token": True, "legacy": False, "tokenizer_class": "LlamaTokenizer"},
    )


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    stored = tensor.detach().to("cpu", dtype).contiguous()
    if not torch.isfinite(stored).all() and torch.isfinite(tensor).all():
        raise ValueError(f"dtype must hold every weight, but {name} leaves the range of {dtype}")
    return stored


def _config(model: LlavaLlamaForCausalLM, dtype: torch.dtype) -> dict[str, Any]:
    stored = model.config.to_dict()
    rope = stored.get("rope_parameters") or {}
    config = {key: value for key, value in stored.items() if key not in _NOT_STORED}
    config |= {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "torch_dtype": str(dtype).removeprefix("torch."),
        "unfreeze_mm_vision_tower": True,
    }
    if config.get("head_dim") == config["hidden_size"] // config["num_attention_heads"]:
        del config["head_dim"]
    if "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
    if rope.get("rope_type", "default") != "default":
        config["rope_scaling"] = rope
    return config


def _shards(weights: dict[str, Tensor], shard_bytes: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name in sorted(weights):
        more = weights[name].nbytes
        if more > shard_bytes:
            raise ValueError(f"shard_bytes must hold {name} of {more} bytes, got {shard_bytes}")
        if size + more > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = weights[name]
        size += more
    return shards


def _write_shards(shards: list[dict[str, Tensor]], folder: Path) -> None:
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", metadata={"format": "pt"})
        return
    where = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    # Last, so that an interrupted call leaves no index, and nothing that could be loaded.
    index = {"metadata": {"total_size": total}, "weight_map": where}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
