"""What checkpoints of tiny vision-language models have beside their weights, family by family.

Ids of special tokens are those of `tiny_vlms`.
"""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, NamedTuple

from tiny_vlms import FRAMES, PINPOINTS, PLACEHOLDER

Settings = dict[str, Any]

SIDE = 112
"""Height and width of what the vision encoders take, in pixels."""
_SQUARE = {"height": SIDE, "width": SIDE}

_STARTS, _ENDS = 502, 503
"""Ids of the tokens around an image, as `tiny_vlms` has them."""


class Layout(NamedTuple):
    """What a family's checkpoint has beside the weights.

    Attributes:
        processor: its class, and settings.
        image_processor: its class, and settings.
        video_processor: the same; None for families without videos.
        image: what the chat template writes for an image.
        turn: what it writes before and after a turn.
        special: special tokens by id.
        names: names that the processor gives special tokens.
    """

    processor: tuple[str, Settings]
    image_processor: tuple[str, Settings]
    video_processor: tuple[str, Settings] | None
    image: str
    turn: tuple[str, str]
    special: Mapping[int, str]
    names: Mapping[str, str]


_CHATML = ("<|im_start|>{{ m['role'] }}\n", "<|im_end|>\n")
_CHATML_ENDS = {0: "<|endoftext|>", 1: "<|im_start|>", 2: "<|im_end|>"}
_LLAMA_ENDS = {0: "<pad>", 1: "<s>", 2: "</s>"}
_PLAIN = ("{{ m['role'] | upper }}: ", " ")

_CLIP_PIXELS = {
    "size": {"shortest_edge": SIDE},
    "crop_size": _SQUARE,
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def _patches(side: int) -> Settings:
    area = (2 * side) ** 2
    sizes = {"shortest_edge": 4 * area, "longest_edge": 64 * area}
    return {"patch_size": side, "merge_size": 2, "temporal_patch_size": 2, "size": sizes}


_CLIP_TOKENS = {
    "patch_size": 14,
    "num_additional_image_tokens": 1,
    "vision_feature_select_strategy": "default",
}


def _llava() -> Layout:
    return Layout(
        processor=("LlavaProcessor", _CLIP_TOKENS),
        image_processor=("CLIPImageProcessor", _CLIP_PIXELS),
        video_processor=None,
        image="<image>\n",
        turn=_PLAIN,
        special=_LLAMA_ENDS | {PLACEHOLDER: "<image>"},
        names={"image_token": "<image>"},
    )


def _llava_next() -> Layout:
    tiles = _CLIP_PIXELS | {"image_grid_pinpoints": PINPOINTS, "do_pad": True}
    return _llava()._replace(
        processor=("LlavaNextProcessor", _CLIP_TOKENS),
        image_processor=("LlavaNextImageProcessor", tiles),
    )


def _llava_onevision() -> Layout:
    tokens = {
        "num_image_tokens": (SIDE // 14) ** 2,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
    }
    tiles = _HALVES | {"size": _SQUARE, "image_grid_pinpoints": PINPOINTS, "do_pad": True}
    return Layout(
        processor=("LlavaOnevisionProcessor", tokens),
        image_processor=("LlavaOnevisionImageProcessor", tiles),
        video_processor=("LlavaOnevisionVideoProcessor", _HALVES | {"size": _SQUARE}),
        image="<image>\n",
        turn=_CHATML,
        special=_CHATML_ENDS | {PLACEHOLDER: "<image>", FRAMES: "<video>"},
        names={"image_token": "<image>", "video_token": "<video>"},
    )


def _qwen(processor: str, video_processor: str, side: int = 14) -> Layout:
    return Layout(
        processor=(processor, {}),
        image_processor=("Qwen2VLImageProcessor", _patches(side)),
        video_processor=(video_processor, _patches(side)),
        image="<|vision_start|><|image_pad|><|vision_end|>",
        turn=_CHATML,
        special=_CHATML_ENDS
        | {
            PLACEHOLDER: "<|image_pad|>", FRAMES: "<|video_pad|>",
            _STARTS: "<|vision_start|>", _ENDS: "<|vision_end|>",
        },
        names={
            "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
            "vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>",
        },
    )  # fmt: skip


def _qwen2_vl() -> Layout:
    return _qwen("Qwen2VLProcessor", "Qwen2VLVideoProcessor")


def _qwen2_5_vl() -> Layout:
    return _qwen("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor")


def _qwen3_vl() -> Layout:
    return _qwen("Qwen3VLProcessor", "Qwen3VLVideoProcessor", 16)


def _internvl() -> Layout:
    tiles = _HALVES | {"size": _SQUARE, "crop_to_patches": False, "min_patches": 1}
    return Layout(
        processor=("InternVLProcessor", {"image_seq_length": 16}),
        image_processor=("GotOcr2ImageProcessor", tiles | {"max_patches": 4}),
        video_processor=("InternVLVideoProcessor", _HALVES | {"size": _SQUARE}),
        image="<IMG_CONTEXT>\n",
        turn=_CHATML,
        special=_CHATML_ENDS
        | {
            PLACEHOLDER: "<IMG_CONTEXT>", FRAMES: "<video>", _STARTS: "<img>", _ENDS: "</img>",
        },
        names={
            "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
            "start_image_token": "<img>", "end_image_token": "</img>",
        },
    )  # fmt: skip


def _gemma3() -> Layout:
    return Layout(
        processor=("Gemma3Processor", {"image_seq_length": 16}),
        image_processor=("Gemma3ImageProcessor", _HALVES | {"size": _SQUARE}),
        video_processor=None,
        image="<start_of_image>",
        turn=("<start_of_turn>{{ m['role'] }}\n", "<end_of_turn>\n"),
        special={
            0: "<pad>", 1: "<bos>", 2: "<eos>", PLACEHOLDER: "<image_soft_token>",
            504: "<start_of_image>", 505: "<end_of_image>", 506: "<start_of_turn>",
            507: "<end_of_turn>",
        },
        names={
            "image_token": "<image_soft_token>", "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
    )  # fmt: skip


def _idefics3(kind: str) -> Layout:
    tiles = {
        "size": {"longest_edge": 2 * SIDE},
        "max_image_size": {"longest_edge": SIDE},
        "do_image_splitting": True,
    }
    places = [f"<row_{row}_col_{column}>" for row, column in product(range(1, 7), repeat=2)]
    around = ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    return Layout(
        processor=(f"{kind}Processor", {"image_seq_len": 16}),
        image_processor=(f"{kind}ImageProcessor", _HALVES | tiles),
        video_processor=("SmolVLMVideoProcessor", _HALVES | tiles) if kind == "SmolVLM" else None,
        image="<image>",
        turn=("<|im_start|>{{ m['role'] | capitalize }}:", "<end_of_utterance>\n"),
        special={0: "<pad>", 1: "<|im_start|>", 2: "<|im_end|>", PLACEHOLDER: "<image>"}
        | dict(enumerate(places, PLACEHOLDER - len(places)))
        | dict(enumerate(around, PLACEHOLDER + 1)),
        names={},
    )


def _glm4v() -> Layout:
    tiles = _patches(14) | {"size": {"shortest_edge": 56 * 56, "longest_edge": 224 * 224}}
    return Layout(
        processor=("Glm4vProcessor", {}),
        image_processor=("Glm4vImageProcessor", tiles),
        video_processor=("Glm4vVideoProcessor", tiles),
        image="<|begin_of_image|><|image|><|end_of_image|>",
        turn=("<|{{ m['role'] }}|>\n", "\n"),
        special={
            0: "<|endoftext|>", 1: "[gMASK]", 2: "<|user|>",
            PLACEHOLDER: "<|image|>", FRAMES: "<|video|>",
            _STARTS: "<|begin_of_image|>", _ENDS: "<|end_of_image|>",
            506: "<|begin_of_video|>", 507: "<|end_of_video|>", 508: "<|assistant|>",
            509: "<|system|>",
        },
        names={"image_token": "<|image|>", "video_token": "<|video|>"},
    )  # fmt: skip


def _mistral3() -> Layout:
    sizes = {"size": {"longest_edge": SIDE}, "patch_size": {"height": 14, "width": 14}}
    return Layout(
        processor=("PixtralProcessor", {"patch_size": 14, "spatial_merge_size": 2}),
        image_processor=("PixtralImageProcessor", _HALVES | sizes),
        video_processor=None,
        image="[IMG]",
        turn=("[INST]", "[/INST]"),
        special=_LLAMA_ENDS
        | {
            PLACEHOLDER: "[IMG]", 506: "[IMG_BREAK]", 507: "[IMG_END]", 508: "[INST]",
            509: "[/INST]",
        },
        names={},
    )  # fmt: skip


def _idefics2() -> Layout:
    sizes = {
        "size": {"shortest_edge": SIDE // 2, "longest_edge": SIDE},
        "do_image_splitting": False,
    }
    around = ["<fake_token_around_image>", "<end_of_utterance>"]
    return Layout(
        processor=("Idefics2Processor", {"image_seq_len": 16}),
        image_processor=("Idefics2ImageProcessor", _HALVES | sizes),
        video_processor=None,
        image="<image>",
        turn=("{{ m['role'] | capitalize }}:", "<end_of_utterance>\n"),
        special=_LLAMA_ENDS | {PLACEHOLDER: "<image>"} | dict(enumerate(around, PLACEHOLDER + 1)),
        names={},
    )


LAYOUTS: dict[str, Callable[[], Layout]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_5": _qwen3_vl,
    "internvl": _internvl,
    "gemma3": _gemma3,
    "glm4v": _glm4v,
    "mistral3": _mistral3,
    "idefics2": _idefics2,
    "idefics3": lambda: _idefics3("Idefics3"),
    "smolvlm": lambda: _idefics3("SmolVLM"),
}
