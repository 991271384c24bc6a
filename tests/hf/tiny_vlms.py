"""Tiny random vision-language models of many families, each with two prompts that differ in all.

A model is made from numbers alone: no checkpoint, no processor. Weights with two axes are three
times as large as usual, or a random model would repeat one token; there is no end token, so that
every answer has its full length.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import transformers
from packaging.version import Version
from torch import Tensor

PLACEHOLDER, FRAMES = 500, 501
"""Ids that stand for a visual token of an image, and of a video."""

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 8192,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOWS = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
"""Layers in turn with a window, which is shorter than a prompt, and without."""
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 112,
    "patch_size": 14,
}
CLIP = TOWER | {"model_type": "clip_vision_model", "projection_dim": 32}
SIGLIP = TOWER | {"model_type": "siglip_vision_model", "vision_use_head": False}
PIXTRAL = TOWER | {
    "model_type": "pixtral",
    "head_dim": 16,
    "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
}
SAM = {
    "hidden_size": 32,
    "output_channels": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 128,
    "patch_size": 16,
    "window_size": 4,
    "global_attn_indexes": [1],
    "mlp_dim": 64,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
SECTIONS = {
    "rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "mrope_section": [2, 3, 3]}
}
QWEN_TOWER = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "out_hidden_size": 64,
}
QWEN3_TOWER = QWEN_TOWER | {"patch_size": 16, "num_position_embeddings": 256}
QWEN_IDS = {
    "image_token_id": PLACEHOLDER,
    "video_token_id": 501,
    "vision_start_token_id": 502,
    "vision_end_token_id": 503,
}
GLM_IDS = {
    "image_token_id": PLACEHOLDER,
    "video_token_id": 501,
    "image_start_token_id": 502,
    "image_end_token_id": 503,
    "video_start_token_id": 506,
    "video_end_token_id": 507,
}
GRIDS = torch.tensor([[1, 8, 12], [1, 6, 6], [1, 10, 4]])
PINPOINTS = [[112, 224], [224, 112], [224, 224]]
SIZES = torch.tensor([[112, 84], [56, 112]])


UNSUPPORTED = {
    "aria": (None, "5.20", "its vision encoder cannot be made from a configuration"),
    "paddleocr_vl": (None, "5.21", "its forward takes no mm_encoder_outputs"),
    "smolvlm": (None, "5.21", "it cuts image tokens into pieces of one size"),
    "llama4": ("5.24", None, "its forward reads a field that its own output lacks"),
}
"""Families that do not work in some versions of transformers.

From the first version, if any, until before the second; and why.
"""


def unsupported(name: str) -> str:
    """Return why a family does not work in the installed version of transformers; "" if it does."""
    first, until, why = UNSUPPORTED.get(name, (None, "0", ""))
    here = Version(transformers.__version__)
    if first is not None and here < Version(first) or until is not None and here >= Version(until):
        return ""
    return f"{name} in transformers {transformers.__version__}: {why}"


class Tiny(NamedTuple):
    """A model, a batch for it, and the placeholders of each image."""

    model: Any
    inputs: dict[str, Tensor]
    images: list[int]


def _new(name: str, config: str, **settings: Any) -> Any:
    """Return a model of transformers by the names of its class and of its configuration."""
    return getattr(transformers, name)(getattr(transformers, config)(**settings))


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _square(count: int, side: int = 112) -> dict[str, Tensor]:
    return {"pixel_values": _noise(count, 3, side, side)}


def _grids(width: int, *, flat: bool = True) -> dict[str, Tensor]:
    """Return patches of three images of different size."""
    patches = int(GRIDS.prod(-1).sum())
    shape = (patches, width) if flat else (patches, 3, 14, 14)
    return {"pixel_values": _noise(*shape), "image_grid_thw": GRIDS}


QWEN_PATCH = 3 * 2 * 14 * 14
QWEN3_PATCH = 3 * 2 * 16 * 16
FLAT_PATCH = 3 * 14 * 14


def llava():
    model = _new(
        "LlavaForConditionalGeneration", "LlavaConfig", vision_config=CLIP,
        text_config=TEXT | {"model_type": "llama"}, image_token_index=PLACEHOLDER,
        vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip
    return model, _square(3)


def vipllava():
    model = _new(
        "VipLlavaForConditionalGeneration", "VipLlavaConfig", vision_config=CLIP,
        text_config=TEXT | {"model_type": "llama"}, image_token_index=PLACEHOLDER,
        vision_feature_layers=[-2, -1],
    )  # fmt: skip
    return model, _square(3)


def llava_pixtral():
    model = _new(
        "LlavaForConditionalGeneration", "LlavaConfig", vision_config=PIXTRAL,
        text_config=TEXT | {"model_type": "mistral", "head_dim": 16, "sliding_window": None},
        image_token_index=PLACEHOLDER, vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )  # fmt: skip
    return model, _square(2) | {"image_sizes": SIZES}


def llava_next():
    model = _new(
        "LlavaNextForConditionalGeneration", "LlavaNextConfig", vision_config=CLIP,
        text_config=TEXT | {"model_type": "mistral", "sliding_window": None},
        image_token_index=PLACEHOLDER, vision_feature_layer=-2,
        vision_feature_select_strategy="default", image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    return model, {
        "pixel_values": _noise(2, 5, 3, 112, 112),
        "image_sizes": torch.tensor([[100, 200], [220, 220]]),
    }


def llava_next_video():
    model = _new(
        "LlavaNextVideoForConditionalGeneration", "LlavaNextVideoConfig", vision_config=CLIP,
        text_config=TEXT | {"model_type": "llama"}, image_token_index=PLACEHOLDER,
        video_token_index=501, vision_feature_layer=-2, vision_feature_select_strategy="default",
        image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    return model, llava_next()[1]


def llava_onevision():
    model = _new(
        "LlavaOnevisionForConditionalGeneration", "LlavaOnevisionConfig", vision_config=SIGLIP,
        text_config=TEXT | {"model_type": "qwen2"}, image_token_index=PLACEHOLDER,
        video_token_index=FRAMES,
        vision_feature_layer=-1, vision_feature_select_strategy="full",
        image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    return model, llava_next()[1]


def qwen2_vl():
    tower = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}
    model = _new(
        "Qwen2VLForConditionalGeneration", "Qwen2VLConfig",
        vision_config=tower | {"patch_size": 14, "spatial_merge_size": 2},
        text_config=TEXT | SECTIONS, **QWEN_IDS,
    )  # fmt: skip
    return model, _grids(QWEN_PATCH)


def qwen2_5_vl():
    model = _new(
        "Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLConfig",
        vision_config=QWEN_TOWER | {"fullatt_block_indexes": [1], "window_size": 56},
        text_config=TEXT | SECTIONS, **QWEN_IDS,
    )  # fmt: skip
    return model, _grids(QWEN_PATCH)


def qwen3_vl():
    model = _new(
        "Qwen3VLForConditionalGeneration", "Qwen3VLConfig",
        vision_config=QWEN3_TOWER | {"depth": 4, "deepstack_visual_indexes": [0, 1]},
        text_config=TEXT | SECTIONS | {"head_dim": 16}, **QWEN_IDS,
    )  # fmt: skip
    return model, _grids(QWEN3_PATCH)


def qwen3_vl_moe():
    model = _new(
        "Qwen3VLMoeForConditionalGeneration", "Qwen3VLMoeConfig",
        vision_config=QWEN3_TOWER | {"depth": 4, "deepstack_visual_indexes": [0, 1]},
        text_config=TEXT | SECTIONS | EXPERTS | {"head_dim": 16}, **QWEN_IDS,
    )  # fmt: skip
    return model, _grids(QWEN3_PATCH)


HYBRID = {
    "head_dim": 16,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "rope_parameters": SECTIONS["rope_parameters"] | {"partial_rotary_factor": 1.0},
}


def qwen3_5():
    model = _new(
        "Qwen3_5ForConditionalGeneration", "Qwen3_5Config", vision_config=QWEN3_TOWER,
        text_config=TEXT | HYBRID, **QWEN_IDS,
    )  # fmt: skip
    return model, _grids(QWEN3_PATCH)


GLM_TOWER = QWEN_TOWER | {"image_size": 112, "attention_bias": False}


def glm4v():
    model = _new(
        "Glm4vForConditionalGeneration", "Glm4vConfig", vision_config=GLM_TOWER,
        text_config=TEXT | SECTIONS, **GLM_IDS,
    )  # fmt: skip
    return model, _grids(QWEN_PATCH)


def glm46v():
    model = _new(
        "Glm46VForConditionalGeneration", "Glm46VConfig",
        vision_config=GLM_TOWER | {"model_type": "glm4v_vision"},
        text_config=TEXT | SECTIONS | {"model_type": "glm4v_text"}, **GLM_IDS,
    )  # fmt: skip
    return model, _grids(QWEN_PATCH)


def internvl():
    model = _new(
        "InternVLForConditionalGeneration", "InternVLConfig",
        vision_config=TOWER | {"image_size": [112, 112], "patch_size": [14, 14]},
        text_config=TEXT | {"model_type": "qwen2"}, image_token_id=PLACEHOLDER,
        image_seq_length=16,
    )  # fmt: skip
    return model, _square(4)


def gemma3():
    model = _new(
        "Gemma3ForConditionalGeneration", "Gemma3Config", vision_config=SIGLIP,
        text_config=TEXT | {"head_dim": 16, "sliding_window": 20, "layer_types": WINDOWS},
        image_token_index=PLACEHOLDER, boi_token_index=504, eoi_token_index=505,
        mm_tokens_per_image=16,
    )  # fmt: skip
    # It begins as zeros, with which all images look alike.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
    return model, _square(3)


def idefics2():
    model = _new(
        "Idefics2ForConditionalGeneration", "Idefics2Config", vision_config=TOWER,
        text_config=TEXT | {"model_type": "mistral", "head_dim": 16, "sliding_window": None},
        perceiver_config={
            "hidden_size": 64, "resampler_n_latents": 16, "resampler_depth": 1,
            "resampler_n_heads": 2, "resampler_head_dim": 16, "num_key_value_heads": 1,
        },
        image_token_id=PLACEHOLDER,
    )  # fmt: skip
    return model, {"pixel_values": _noise(2, 1, 3, 112, 112)}


def _idefics3(kind: str):
    model = _new(
        f"{kind}ForConditionalGeneration", f"{kind}Config", vision_config=TOWER,
        text_config=TEXT | {"model_type": "llama"}, image_token_id=PLACEHOLDER, scale_factor=2,
        pad_token_id=0,
    )  # fmt: skip
    pixels = _noise(2, 2, 3, 112, 112)
    pixels[1, 1] = 0  # The second prompt has one image; the other one is padding.
    return model, {"pixel_values": pixels}


def idefics3():
    return _idefics3("Idefics3")


def smolvlm():
    return _idefics3("SmolVLM")


def mistral3():
    model = _new(
        "Mistral3ForConditionalGeneration", "Mistral3Config", vision_config=PIXTRAL,
        text_config=TEXT | {"model_type": "mistral", "head_dim": 16, "sliding_window": None},
        image_token_index=PLACEHOLDER, spatial_merge_size=2, vision_feature_layer=-1,
    )  # fmt: skip
    return model, _square(2) | {"image_sizes": SIZES}


def lighton_ocr():
    model = _new(
        "LightOnOcrForConditionalGeneration", "LightOnOcrConfig", vision_config=PIXTRAL,
        text_config=TEXT | {"model_type": "qwen3", "head_dim": 16}, image_token_id=PLACEHOLDER,
        spatial_merge_size=2,
    )  # fmt: skip
    return model, _square(2) | {"image_sizes": SIZES}


COHERE = TEXT | {
    "model_type": "cohere2",
    "sliding_window": 20,
    "layer_types": WINDOWS,
}


def aya_vision():
    model = _new(
        "AyaVisionForConditionalGeneration", "AyaVisionConfig", vision_config=SIGLIP,
        text_config=COHERE, image_token_index=PLACEHOLDER, downsample_factor=2,
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    return model, _square(3)


def cohere2_vision():
    model = _new(
        "Cohere2VisionForConditionalGeneration", "Cohere2VisionConfig", vision_config=SIGLIP,
        text_config=COHERE, image_token_id=PLACEHOLDER, downsample_factor=2,
        alignment_intermediate_size=64,
    )  # fmt: skip
    return model, _square(3)


def llama4():
    model = _new(
        "Llama4ForConditionalGeneration", "Llama4Config",
        vision_config=TOWER | {
            "intermediate_size": 128, "vision_output_dim": 32, "pixel_shuffle_ratio": 0.5,
            "projector_input_dim": 32, "projector_output_dim": 32,
        },
        text_config=TEXT | {
            "head_dim": 16, "intermediate_size_mlp": 128, "num_local_experts": 2,
            "num_experts_per_tok": 1, "interleave_moe_layer_step": 1,
            "attention_chunk_size": 8192, "use_qk_norm": False,
        },
        image_token_index=PLACEHOLDER,
    )  # fmt: skip
    return model, _square(3)


def ovis2():
    model = _new(
        "Ovis2ForConditionalGeneration", "Ovis2Config",
        vision_config=TOWER | {
            "vocab_size": 64, "num_visual_indicator_tokens": 5, "hidden_stride": 2,
            "tokenize_function": "softmax",
        },
        text_config=TEXT | {"model_type": "qwen2"}, image_token_id=PLACEHOLDER,
        visual_indicator_token_ids=[505, 506, 507, 508, 509], vocab_size=512, hidden_size=64,
    )  # fmt: skip
    return model, _square(3)


def deepseek_vl():
    model = _new(
        "DeepseekVLForConditionalGeneration", "DeepseekVLConfig", vision_config=SIGLIP,
        text_config=TEXT | {"model_type": "llama"}, image_token_id=PLACEHOLDER,
    )  # fmt: skip
    return model, _square(3)


def deepseek_vl_hybrid():
    model = _new(
        "DeepseekVLHybridForConditionalGeneration", "DeepseekVLHybridConfig",
        vision_config=SIGLIP | {"image_size": 128, "patch_size": 32},
        high_res_vision_config=SAM | {
            "model_type": "sam_vision_model", "output_channels": 32, "num_pos_feats": 16,
        },
        text_config=TEXT | {"model_type": "llama"}, image_token_id=PLACEHOLDER,
    )  # fmt: skip
    return model, _square(3, 128) | {"high_res_pixel_values": _noise(3, 3, 128, 128)}


def video_llava():
    model = _new(
        "VideoLlavaForConditionalGeneration", "VideoLlavaConfig", vision_config=CLIP,
        text_config=TEXT | {"model_type": "llama"}, image_token_index=PLACEHOLDER,
        video_token_index=501, vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip
    name = "pixel_values"
    if name not in inspect.signature(model.forward).parameters:
        name = "pixel_values_images"
    return model, {name: _square(3)["pixel_values"]}


def got_ocr2():
    model = _new(
        "GotOcr2ForConditionalGeneration", "GotOcr2Config", vision_config=SAM,
        text_config=TEXT | {"model_type": "qwen2"}, image_token_id=PLACEHOLDER,
    )  # fmt: skip
    return model, _square(3, 128)


def paddleocr_vl():
    tower = TOWER | {"num_hidden_layers": 2, "spatial_merge_size": 2}
    model = _new(
        "PaddleOCRVLForConditionalGeneration", "PaddleOCRVLConfig", vision_config=tower,
        text_config=TEXT | SECTIONS | {"head_dim": 16}, **QWEN_IDS,
    )  # fmt: skip
    return model, _grids(FLAT_PATCH, flat=False)


def lfm2_vl():
    tower = TOWER | {"model_type": "siglip2_vision_model", "num_patches": 64}
    kinds = ["conv", "full_attention", "full_attention", "full_attention"]
    model = _new(
        "Lfm2VlForConditionalGeneration", "Lfm2VlConfig",
        vision_config=tower | {"vision_use_head": False},
        text_config=TEXT | {
            "model_type": "lfm2", "layer_types": kinds, "block_multiple_of": 16, "conv_L_cache": 3,
        },
        image_token_id=PLACEHOLDER, downsample_factor=2, projector_hidden_size=64,
    )  # fmt: skip
    whole = torch.ones(48, dtype=torch.long)
    return model, {
        "pixel_values": _noise(2, 48, FLAT_PATCH),
        "spatial_shapes": torch.tensor([[8, 6], [4, 8]]),
        "pixel_attention_mask": torch.stack([whole, (torch.arange(48) < 32).long()]),
    }


def video_llama_3():
    tower = {name: QWEN_TOWER[name] for name in ("hidden_size", "intermediate_size", "patch_size")}
    model = _new(
        "VideoLlama3ForConditionalGeneration", "VideoLlama3Config",
        vision_config=tower | {"num_hidden_layers": 2, "num_attention_heads": 2},
        text_config=TEXT | {"model_type": "qwen2"}, image_token_id=PLACEHOLDER,
        video_token_id=501,
    )  # fmt: skip
    return model, _grids(FLAT_PATCH) | {"image_merge_sizes": torch.tensor([2, 2, 2])}


def janus():
    model = _new(
        "JanusForConditionalGeneration", "JanusConfig",
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "depth": 2,
            "image_size": 112, "patch_size": 14, "projection_dim": 64, "mlp_ratio": 2,
            "num_image_tokens": 64,
        },
        text_config=TEXT | {"model_type": "llama"},
        vq_config={
            "base_channels": 32, "channel_multiplier": [1], "embed_dim": 8, "num_embeddings": 32,
            "latent_channels": 8, "projection_dim": 64, "num_patches": 4,
            "image_token_embed_dim": 64, "num_res_blocks": 1, "num_hidden_layers": 1,
            "hidden_size": 32,
        },
        image_token_id=PLACEHOLDER,
    )  # fmt: skip
    return model, _square(3)


def aria():
    model = _new(
        "AriaForConditionalGeneration", "AriaConfig",
        vision_config=TOWER | {"model_type": "idefics3_vision"},
        text_config=TEXT | {
            "moe_num_experts": 2, "moe_topk": 1, "moe_num_shared_experts": 1, "head_dim": 16,
        },
        image_token_index=PLACEHOLDER, vision_feature_layer=-1,
        projector_patch_to_query_dict={64: 16},
    )  # fmt: skip
    return model, _square(3) | {"pixel_mask": torch.ones(3, 112, 112, dtype=torch.bool)}


FAMILIES: dict[str, Callable[[], tuple[Any, dict[str, Tensor]]]] = {
    family.__name__: family
    for family in (
        llava, llava_next, llava_onevision, qwen2_5_vl, qwen3_vl, internvl, gemma3, smolvlm,
        idefics3,
        aria, aya_vision, cohere2_vision, deepseek_vl, deepseek_vl_hybrid, glm46v, glm4v, got_ocr2,
        idefics2, janus, lfm2_vl, lighton_ocr, llama4, llava_next_video, llava_pixtral, mistral3,
        ovis2, paddleocr_vl, qwen2_vl, qwen3_5, qwen3_vl_moe, video_llama_3, video_llava, vipllava,
    )
}  # fmt: skip
FULL = tuple(FAMILIES)[:9]
"""Families of which everything is tested."""

INSIDE = (
    "llava", "llava_next", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm",
    "mistral3", "lighton_ocr", "qwen2_vl", "qwen3_vl_moe", "gemma3", "aria", "aya_vision",
    "cohere2_vision", "glm4v", "paddleocr_vl",
)  # fmt: skip
"""Families that are tested with pruning inside the language model; every decoder is among them."""

TYPES = ("gemma3",)
"""Families that want ``token_type_ids``."""


def base_of(model: Any) -> Any:
    """The module that holds vision encoder and decoder."""
    return getattr(model, "model", model)


def clone(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in inputs.items()}


def made(name: str) -> tuple[Any, dict[str, Tensor]]:
    """Return a family's model, the same at each call, and what it takes beside the prompt's ids."""
    torch.manual_seed(0)
    model, pixels = FAMILIES[name]()
    model.eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            parameter.mul_(3)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None
    # Tests say how many tokens they want.
    model.generation_config.max_length = None
    return model, pixels


@cache
def tiny(name: str) -> Tiny:
    """Return a family's model with two prompts, padded on the left; the first has more images."""
    model, pixels = made(name)
    images = _counts(model, pixels)
    first = images[:-1]
    if name == "internvl":
        # Two tiles of the first image stand together.
        first = [images[0] + images[1], images[2]]
    generator = torch.Generator().manual_seed(1)

    def text(count: int) -> list[int]:
        return torch.randint(10, 400, (count,), generator=generator).tolist()

    rows = [text(5), [*text(3), *[PLACEHOLDER] * images[-1], *text(9)]]
    for count in first:
        rows[0] += [PLACEHOLDER] * count + text(4)
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    inputs = {"input_ids": ids, "attention_mask": mask, **pixels}
    if hasattr(base_of(model), "get_rope_index"):
        inputs["mm_token_type_ids"] = (ids == PLACEHOLDER).int()
    if name in TYPES:
        inputs["token_type_ids"] = (ids == PLACEHOLDER).long()
    return Tiny(model, inputs, [*first, images[-1]])


def _counts(model: Any, pixels: dict[str, Tensor]) -> list[int]:
    """Return the visual tokens of each image, as the model gives them."""
    given = dict(pixels)
    base = base_of(model)
    output = base.get_image_features(**given, return_dict=True)
    found = output.pooler_output if output.pooler_output is not None else output.last_hidden_state
    counts = [one.reshape(-1, one.shape[-1]).shape[0] for one in found]
    size = getattr(base, "image_seq_len", None)
    if size and hasattr(base, "connector"):
        counts = [size] * (sum(counts) // size)
    return counts


VIDEOS = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "llava_next_video")
"""Families that are tested with videos."""


@cache
def filmed(name: str) -> Tiny:
    """Return a family's model with an image and a video in one prompt, and a video in the other."""
    model, pictures, counts = tiny(name)
    if "image_grid_thw" in pictures:
        grids = torch.tensor([[2, 4, 6], [3, 6, 4]])
        tokens = (grids.prod(1) // 4).tolist()
        clips = {
            "pixel_values_videos": _noise(
                int(grids.prod(1).sum()), pictures["pixel_values"].shape[1]
            ),
            "video_grid_thw": grids,
        }
        pixels = int(GRIDS[-1].prod())
        picture = {
            "pixel_values": pictures["pixel_values"][-pixels:], "image_grid_thw": GRIDS[-1:],
        }  # fmt: skip
        parts = [
            [size // int(grid[0])] * int(grid[0]) for size, grid in zip(tokens, grids, strict=True)
        ]
    else:
        frames = _noise(2, 3, 3, 112, 112)
        # LLaVA-OneVision ends a video with a newline vector.
        parts = [[16, 16, 16 + (name == "llava_onevision")]] * 2
        clips = {"pixel_values_videos": frames}
        picture = {key: pictures[key][-1:] for key in ("pixel_values", "image_sizes")}
    generator = torch.Generator().manual_seed(2)

    def text(count: int) -> list[int]:
        return torch.randint(10, 400, (count,), generator=generator).tolist()

    def film(sizes: list[int]) -> list[int]:
        # Qwen3-VL's prompts say the time before each frame.
        if name == "qwen3_vl":
            return [one for size in sizes for one in [*text(2), *[FRAMES] * size]]
        return [FRAMES] * sum(sizes)

    rows = [
        [*text(3), *film(parts[0]), *text(4), *[PLACEHOLDER] * counts[-1], *text(5)],
        [*text(2), *film(parts[1]), *text(6)],
    ]
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    inputs = {"input_ids": ids, "attention_mask": mask, **picture, **clips}
    if "image_grid_thw" in picture:
        inputs["mm_token_type_ids"] = (ids == PLACEHOLDER).int() + 2 * (ids == FRAMES).int()
    return Tiny(model, inputs, [counts[-1], *map(sum, parts)])
