"""Write a model as a checkpoint in LLaVA's original layout."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from llava.checkpoint.layouts import stored_name
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.siglip_encoder import SiglipVisionTower
from llava.tokenizer import LlavaTokenizer

_NOT_STORED = ("dtype", "id2label", "label2id", "model_type", "rope_parameters", "head_dim")


def write_checkpoint(
    model: LlavaLlamaForCausalLM,
    tokenizer: LlavaTokenizer,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float16,
    shard_bytes: int = 5_000_000_000,
) -> None:
    """Write config, weights in safetensors shards, and tokenizer, the vision tower inside.

    What `load_pretrained_model` reads again; LLaVA's original code reads it too if the tower is one
    that it knows.

    Args:
        model: the model; its ``config.mm_vision_config`` describes the tower.
        tokenizer: its tokenizer.
        folder: made if need be; files of these names in it are overwritten.
        dtype: dtype of the stored weights.
        shard_bytes: largest size of a shard.

    Raises:
        ValueError: a weight larger than a shard, shards smaller than a byte.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tower = model.get_vision_tower()
    clip_like = isinstance(tower, CLIPVisionTower | SiglipVisionTower)
    weights = {
        stored_name(name, clip_like): tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    _write_shards(weights, folder, shard_bytes)
    _write_json(folder / "config.json", _config(model, dtype))
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
    if "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
    if rope.get("rope_type", "default") != "default":
        config["rope_scaling"] = rope
    return config


def _write_shards(weights: dict[str, Tensor], folder: Path, shard_bytes: int) -> None:
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
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", metadata={"format": "pt"})
        return
    where = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
