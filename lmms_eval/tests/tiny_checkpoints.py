"""Checkpoints of tiny random vision-language models, complete as published ones are.

A folder has the weights of `tiny_vlms`, a tokenizer with the family's special tokens, a chat
template and the configurations of its processors. They are written without torchvision, which
`AutoProcessor` wants for families that take videos; `AutoTokenizer`, `AutoImageProcessor` and
`AutoModelForImageTextToText` do without.
"""

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from string import ascii_letters, ascii_lowercase
from typing import Any, NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiny_vlms import FRAMES, PINPOINTS, PLACEHOLDER, TEXT, made

Settings = dict[str, Any]

SIDE = 112
"""Height and width of what the vision encoders take, in pixels."""
_SQUARE = {"height": SIDE, "width": SIDE}

_STARTS, _ENDS = 502, 503
"""Ids of the tokens around an image, as `tiny_vlms` has them."""


class _Layout(NamedTuple):
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


def _llava() -> _Layout:
    return _Layout(
        processor=("LlavaProcessor", _CLIP_TOKENS),
        image_processor=("CLIPImageProcessor", _CLIP_PIXELS),
        video_processor=None,
        image="<image>\n",
        turn=_PLAIN,
        special=_LLAMA_ENDS | {PLACEHOLDER: "<image>"},
        names={"image_token": "<image>"},
    )


def _llava_next() -> _Layout:
    tiles = _CLIP_PIXELS | {"image_grid_pinpoints": PINPOINTS, "do_pad": True}
    return _llava()._replace(
        processor=("LlavaNextProcessor", _CLIP_TOKENS),
        image_processor=("LlavaNextImageProcessor", tiles),
    )


def _llava_onevision() -> _Layout:
    tokens = {
        "num_image_tokens": (SIDE // 14) ** 2,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
    }
    tiles = _HALVES | {"size": _SQUARE, "image_grid_pinpoints": PINPOINTS, "do_pad": True}
    return _Layout(
        processor=("LlavaOnevisionProcessor", tokens),
        image_processor=("LlavaOnevisionImageProcessor", tiles),
        video_processor=("LlavaOnevisionVideoProcessor", _HALVES | {"size": _SQUARE}),
        image="<image>\n",
        turn=_CHATML,
        special=_CHATML_ENDS | {PLACEHOLDER: "<image>", FRAMES: "<video>"},
        names={"image_token": "<image>", "video_token": "<video>"},
    )


def _qwen(processor: str, video_processor: str, side: int = 14) -> _Layout:
    return _Layout(
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


def _qwen2_vl() -> _Layout:
    return _qwen("Qwen2VLProcessor", "Qwen2VLVideoProcessor")


def _qwen2_5_vl() -> _Layout:
    return _qwen("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor")


def _qwen3_vl() -> _Layout:
    return _qwen("Qwen3VLProcessor", "Qwen3VLVideoProcessor", 16)


def _internvl() -> _Layout:
    tiles = _HALVES | {"size": _SQUARE, "crop_to_patches": False, "min_patches": 1}
    return _Layout(
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


def _gemma3() -> _Layout:
    return _Layout(
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


def _idefics3(kind: str) -> _Layout:
    tiles = {
        "size": {"longest_edge": 2 * SIDE},
        "max_image_size": {"longest_edge": SIDE},
        "do_image_splitting": True,
    }
    places = [f"<row_{row}_col_{column}>" for row, column in product(range(1, 7), repeat=2)]
    around = ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    return _Layout(
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


_LAYOUTS = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "internvl": _internvl,
    "gemma3": _gemma3,
    "idefics3": lambda: _idefics3("Idefics3"),
    "smolvlm": lambda: _idefics3("SmolVLM"),
}

FAMILIES = tuple(_LAYOUTS)
"""Families that have a checkpoint."""


def write_checkpoint(folder: Path, family: str) -> None:
    """Write a family's checkpoint, the same bytes at each call.

    Args:
        folder: is made where it is missing.
        family: a name of `FAMILIES`.
    """
    layout = _LAYOUTS[family]()
    folder.mkdir(parents=True, exist_ok=True)
    made(family)[0].save_pretrained(folder)
    _tokenizer(layout).save_pretrained(folder)
    name, pixels = layout.image_processor
    processor, settings = layout.processor
    _write(folder / "processor_config.json", {"processor_class": processor, **settings})
    shared = {"processor_class": processor}
    _write(folder / "preprocessor_config.json", {"image_processor_type": name, **pixels, **shared})
    if layout.video_processor is not None:
        name, frames = layout.video_processor
        frames = {"video_processor_type": name, **frames, **shared}
        _write(folder / "video_preprocessor_config.json", frames)


def _write(file: Path, content: Settings) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")


def _tokenizer(layout: _Layout) -> PreTrainedTokenizerFast:
    """Return a tokenizer of ASCII and pairs of letters, with the family's special tokens.

    Any tokens of it are a text that can be told from that of others.
    """
    special = dict(layout.special)
    space, newline = "\u0120", "\u010a"  # as a byte-level tokenizer writes them
    characters = [space, newline, *map(chr, range(33, 127))]
    pairs = [*product(space, ascii_letters), *product(ascii_lowercase, repeat=2)]
    tokens = iter([*characters, *map("".join, pairs)])
    names = [special.get(number) or next(tokens) for number in range(TEXT["vocab_size"])]
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [pair for pair in pairs if "".join(pair) in vocabulary]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=special[0],
        bos_token=special[1],
        eos_token=special[2],
        extra_special_tokens=dict(layout.names),
        chat_template=_template(layout),
        padding_side="left",
        model_max_length=TEXT["max_position_embeddings"],
    )
    others = [token for number, token in sorted(special.items()) if number > 2]
    fast.add_special_tokens({"additional_special_tokens": others})
    return fast


def _template(layout: _Layout) -> str:
    before, after = layout.turn
    end = before.replace("m['role']", "'assistant'")
    return (
        "{% for m in messages %}" + before + "{% if m['content'] is string %}{{ m['content'] }}"
        "{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}"
        + layout.image
        + "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
        + after
        + "{% endfor %}{% if add_generation_prompt %}"
        + end
        + "{% endif %}"
    )
