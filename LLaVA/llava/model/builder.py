"""Load a checkpoint: tokenizer, model, image processor and context length."""

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from llava.checkpoint.assemble import assemble, refuse_parts
from llava.checkpoint.config import CheckpointConfig, read_config
from llava.checkpoint.errors import CheckpointError
from llava.checkpoint.files import CheckpointFiles
from llava.checkpoint.layouts import check_complete, check_layers, shapes_of
from llava.checkpoint.shards import Weights
from llava.configuration import KNOWN_TOWERS
from llava.images.processor import ImageProcessor
from llava.model.checks import check_attention, check_rope, check_tiles, tower_layers, usable
from llava.model.generation import read_generation
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.model.text import TextTools
from llava.model.vocabulary import add_image_tokens, grow_embeddings, read_tokenizer
from llava.tokenizer import LlavaTokenizer
from otprune.pruning import Pruning

__all__ = ["CheckpointError", "load_pretrained_model"]

logger = logging.getLogger(__name__)


_WITHOUT_EFFECT = {"multimodal", "low_cpu_mem_usage"}
"""Arguments of other loaders for what is always done here."""

_SHAPE = ("hidden_size", "image_size", "num_hidden_layers", "patch_size")
"""Fields by which a known vision tower is recognised."""

_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
"""accelerate's strategies for distributing a model over the available devices."""

DeviceMap = str | int | torch.device | Mapping[str, Any] | None


def load_pretrained_model(
    model_path: str | Path,
    model_base: str | Path | None = None,
    model_name: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: DeviceMap = "auto",
    device: str | torch.device = "cuda",
    use_flash_attn: bool = False,
    *,
    attn_implementation: str | None = None,
    torch_dtype: torch.dtype | str | None = None,
    pruning: Pruning | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    max_memory: dict[int | str, int | str] | None = None,
    offload_folder: str | Path | None = None,
    **kwargs: Any,
) -> tuple[LlavaTokenizer, LlavaLlamaForCausalLM, ImageProcessor, int]:
    """Return (tokenizer, model, image_processor, context_len) of a LLaVA checkpoint.

    Reads LLaVA's original layout (``liuhaotian/llava-v1.5-7b``, ``-13b``,
    ``liuhaotian/llava-v1.6-vicuna-7b`` and what was trained like them) and transformers' own
    (``llava-hf/llava-1.5-*-hf``, ``llava-hf/llava-v1.6-vicuna-*-hf``), from a folder or from the
    hub. A checkpoint is loaded completely or refused.

    Args:
        model_path: a folder or a hub id.
        model_base: the language model below a projector-only checkpoint or a LoRA adapter.
        model_name: not used; the checkpoint tells its kind.
        load_8bit: 8-bit weights through bitsandbytes.
        load_4bit: 4-bit weights (nf4, double quantisation) through bitsandbytes.
        device_map: "auto" (or another of accelerate's strategies) distributes the model over the
            GPUs; or one device; or a map for accelerate.
        device: any device but "cuda" replaces ``device_map``. Without a GPU "auto" means the CPU.
        use_flash_attn: the same as ``attn_implementation="flash_attention_2"``.
        attn_implementation: eager, sdpa (default), flash_attention_2, ...
        torch_dtype: dtype of the weights; float16 on GPUs (as the original) and float32 on a CPU by
            default.
        pruning: what every call prunes; see `otprune.pruning.make_pruning`.
        revision: branch, tag or commit on the hub.
        cache_dir: folder of the hub's cache.
        local_files_only: use cached files only, not the hub.
        max_memory: how much of each device ``device_map="auto"`` may fill, as in accelerate.
        offload_folder: folder for the parts that a device map puts on "disk".
        **kwargs: ``multimodal`` and ``low_cpu_mem_usage`` are accepted and have no effect.

    Raises:
        CheckpointError: the checkpoint is incomplete, damaged or of another kind.
        ValueError: impossible settings; an attention implementation that is not installed.
        TypeError: an unknown argument.
    """
    _check_arguments(kwargs, load_8bit, load_4bit)
    attention = "flash_attention_2" if use_flash_attn else attn_implementation
    check_attention(attention)
    files = _files(model_path, revision, cache_dir, local_files_only)
    base = None if model_base is None else _files(model_base, None, cache_dir, local_files_only)
    if base is None:
        refuse_parts(files)
    config = read_config(files)
    tokenizer = read_tokenizer(base or files, config.model)
    generation = read_generation(files, config.model, tokenizer)
    add_image_tokens(files, tokenizer, config.model)
    placement = _placement(device_map, device)
    dtype = _dtype(torch_dtype, placement)
    weights = assemble(files, base, config)
    model = _model(
        files,
        config,
        weights,
        device_map=placement,
        dtype=dtype,
        attn_implementation=attention,
        quantization_config=_quantization(load_8bit, load_4bit, dtype),
        max_memory=max_memory,
        offload_folder=offload_folder,
    )
    model.get_vision_tower().requires_grad_(False)
    model.generation_config = generation
    grow_embeddings(tokenizer, model)
    tower = model.get_vision_tower()
    model.text_tools = TextTools(tokenizer, _clip_source(files, config), tower.device)
    model.check_pruning(pruning)
    model.pruning = pruning
    context = getattr(model.config, "max_sequence_length", 2048)
    return tokenizer, model, model.get_vision_tower().image_processor, context


def _files(
    name: str | Path, revision: str | None, cache_dir: str | Path | None, local_files_only: bool
) -> CheckpointFiles:
    return CheckpointFiles(str(name), revision, cache_dir, local_files_only)


def _check_arguments(kwargs: dict[str, Any], load_8bit: bool, load_4bit: bool) -> None:
    for name, value in kwargs.items():
        if name == "customized_config" and value is None:
            continue
        if name not in _WITHOUT_EFFECT:
            raise TypeError(f"load_pretrained_model has no argument {name!r}")
    if load_8bit and load_4bit:
        raise ValueError("load_8bit and load_4bit exclude each other")
    if (load_8bit or load_4bit) and importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            "load_8bit and load_4bit need bitsandbytes: pip install 'otprune-llava[quantized]'"
        )


def _placement(device_map: DeviceMap, device: str | torch.device) -> Any:
    if str(device) != "cuda":
        return {"": device}
    if device_map is None or device_map in _STRATEGIES:
        return (device_map or "auto") if torch.cuda.is_available() else {"": "cpu"}
    return dict(device_map) if isinstance(device_map, Mapping) else {"": device_map}


def _dtype(wanted: torch.dtype | str | None, placement: Any) -> torch.dtype:
    if isinstance(wanted, str):
        found = getattr(torch, wanted.removeprefix("torch."), None)
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise ValueError(f"torch_dtype must name a floating-point dtype, got {wanted!r}")
        return found
    if wanted is not None:
        return wanted
    devices = set(map(str, placement.values())) if isinstance(placement, dict) else {"cuda"}
    return torch.float32 if devices <= {"cpu", "disk"} else torch.float16


def _quantization(
    load_8bit: bool, load_4bit: bool, dtype: torch.dtype
) -> BitsAndBytesConfig | None:
    # Tower, projector and output head are not quantised: they are small, and features decide what
    # is kept.
    skip = ["model.vision_tower", "model.mm_projector", "lm_head"]
    if load_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    if load_4bit:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_quant_type="nf4",
            llm_int8_skip_modules=skip,
        )
    return None


def _model(
    files: CheckpointFiles, config: CheckpointConfig, weights: Weights, **settings: Any
) -> LlavaLlamaForCausalLM:
    check_layers(weights, config.model.num_hidden_layers, tower_layers(config.model), files.name)
    with usable(files), torch.device("meta"):
        planned = LlavaLlamaForCausalLM(config.model)
        shapes = shapes_of(planned.state_dict().items())
    check_rope(files, config.model)
    check_tiles(files, planned)
    if config.model.tie_word_embeddings and "lm_head.weight" not in weights:
        del shapes["lm_head.weight"]
    check_complete(weights, shapes, files.name)
    given = {name: value for name, value in settings.items() if value is not None}
    # The weights are complete and checked; transformers moves, casts and quantises them.
    model = LlavaLlamaForCausalLM.from_pretrained(
        None, config=config.model, state_dict=weights, **given
    )
    newline = getattr(model.model, "image_newline", None)
    if newline is not None and newline.is_meta and not hasattr(model.model, "_hf_hook"):
        # If offloaded it would never be fetched: accelerate's hooks are for modules.
        kept = weights["model.image_newline"].to(newline.dtype)
        model.model.image_newline = torch.nn.Parameter(kept)
    return model


def _clip_source(files: CheckpointFiles, config: CheckpointConfig) -> CheckpointFiles | None:
    """Return the repository of the vision tower, which may hold CLIP's text encoder.

    A checkpoint that holds the tower's weights need not name it (transformers' layout does not).
    Then the known tower with the same sizes is assumed.
    """
    if config.tower is not None:
        return config.tower
    named = files.related(str(getattr(config.model, "mm_vision_tower", "")))
    if named.folder is not None or named.name in KNOWN_TOWERS:
        return named
    own = config.model.mm_vision_config
    for name, known in KNOWN_TOWERS.items():
        if all(own.get(key) == known[key] for key in _SHAPE):
            return files.related(name)
    return None
