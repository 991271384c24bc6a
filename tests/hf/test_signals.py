"""Signals of vision encoders, against what the encoders' own attention was given and gave."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from hf.tiny_vlms import (
    PLACEHOLDER,
    SIGLIP,
    TEXT,
    _new,
    _noise,
    _square,
    base_of,
    clone,
    filmed,
    tiny,
)
from otprune import make_pruner
from otprune.hf import UnsupportedModelError, pruned
from otprune.hf.families import family_of

CALLS: list[tuple[Any, Tensor, Tensor]] = []
"""Module, attention [b h q t] and keys [b h t c] of each call while `noted` holds."""


def _note(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, :, : key.shape[-2]]
    weights = scores.float().softmax(-1).to(query.dtype)
    CALLS.append((module, weights, key))
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register("noted", _note)
AttentionMaskInterface.register("noted", eager_mask)


@contextmanager
def noted(tower: Any) -> Iterator[None]:
    before = tower.config._attn_implementation
    CALLS.clear()
    tower.set_attn_implementation("noted")
    try:
        yield
    finally:
        tower.set_attn_implementation(before)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def largest(difference):
    return float(difference.abs().max())


def same(found: Tensor, wanted: Tensor) -> bool:
    return largest(found - wanted) <= 1e-5 * max(1, largest(wanted))


@dataclass(frozen=True)
class Tower:
    """Where the parts of a family's vision encoder are, and how its patches become tokens.

    Attributes:
        tower: path of the encoder.
        block: path of the block's attention in it.
        projector: path of the module whose input the features are.
        merge: patches of a token along a side.
        cls: whether a CLS token is in front.
    """

    tower: str
    block: str
    projector: str = "multi_modal_projector"
    merge: int = 1
    cls: bool = False


CLIP_BLOCK, LAST = "encoder.layers.1.self_attn", "encoder.layers.2.self_attn"
QWEN = Tower("visual", "blocks.1.attn", "visual.merger", 2)
TOWERS = {
    "llava": Tower("vision_tower", CLIP_BLOCK, cls=True),
    "llava_next": Tower("vision_tower", CLIP_BLOCK, cls=True),
    "llava_next_video": Tower("vision_tower", CLIP_BLOCK, cls=True),
    "llava_onevision": Tower("vision_tower", LAST),
    "llava_pixtral": Tower("vision_tower", "transformer.layers.2.attention"),
    "internvl": Tower("vision_tower", "encoder.layer.2.attention", merge=2, cls=True),
    "idefics3": Tower("vision_model", LAST, "connector", 2),
    "smolvlm": Tower("vision_model", LAST, "connector", 2),
    "gemma3": Tower("vision_tower", LAST, merge=2),
    "aya_vision": Tower("vision_tower", LAST, merge=2),
    "cohere2_vision": Tower("vision_tower", LAST, merge=2),
    "deepseek_vl": Tower("vision_model", LAST, "aligner"),
    "paligemma": Tower("vision_tower", LAST),
    "mistral3": Tower("vision_tower", "transformer.layers.2.attention", merge=2),
    "lighton_ocr": Tower(
        "vision_encoder", "transformer.layers.2.attention", "vision_projection", 2
    ),
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
    "qwen3_vl": Tower("visual", "blocks.3.attn", "visual.merger", 2),
    "qwen3_vl_moe": Tower("visual", "blocks.3.attn", "visual.merger", 2),
    "qwen3_5": QWEN,
    "glm4v": Tower("visual", "blocks.1.attn", "visual.downsample", 2),
    "glm46v": Tower("visual", "blocks.1.attn", "visual.downsample", 2),
}
NAMES = ("attention", "encoder_keys", "features")


@cache
def model_of(name: str) -> tuple[Any, dict[str, Tensor]]:
    """The model of a family and a batch of images for it, without prompts."""
    if name == "paligemma":
        torch.manual_seed(0)
        model = _new(
            "PaliGemmaForConditionalGeneration", "PaliGemmaConfig", vision_config=SIGLIP,
            text_config=TEXT | {"model_type": "gemma", "head_dim": 16},
            image_token_index=PLACEHOLDER, projection_dim=64,
        ).eval().requires_grad_(False)  # fmt: skip
        return model, _square(3)
    model, inputs, _ = tiny(name)
    texts = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
    return model, {key: value for key, value in inputs.items() if key not in texts}


def merged(patches: Tensor, rows: int, columns: int, merge: int) -> Tensor:
    """Means over squares of patches of a raster, written out; [n c] in, [m c] out."""
    found = []
    for row in range(rows // merge):
        for column in range(columns // merge):
            of = [
                (row * merge + i) * columns + column * merge + j
                for i in range(merge)
                for j in range(merge)
            ]
            found.append(patches[of].mean(0))
    return torch.stack(found)


def by_hand(name: str, inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Attention, keys and features of the tokens of each tile or image, tokens first."""
    model, _ = model_of(name)
    base, where = base_of(model), TOWERS[name]
    tower = base.get_submodule(where.tower)
    given: list[Tensor] = []
    handle = base.get_submodule(where.projector).register_forward_pre_hook(
        lambda module, args: given.append(args[0])
    )
    with noted(tower):
        base.get_image_features(**inputs, return_dict=True)
    handle.remove()
    calls = [call for call in CALLS if call[0] is tower.get_submodule(where.block)]
    if where.projector.startswith("visual") or "pixtral" in tower.config.model_type:
        return _of_rows(name, inputs, calls, given[0])
    first = int(where.cls)
    (_, attention, keys), features = calls[0], given[0]
    found = []
    for tile in range(len(attention)):
        # Padding neither attends nor is attended to.
        some = attention[tile].amax((0, 1)) > 0
        seen = attention[tile, :, 0] if where.cls else attention[tile][:, some].mean(1)
        patches = {
            "attention": seen[:, first:].T,
            "encoder_keys": keys[tile].transpose(0, 1).flatten(1)[first:],
        }
        side = math.isqrt(len(patches["attention"]))
        one = {key: merged(value, side, side, where.merge) for key, value in patches.items()}
        if features.shape[1] * where.merge**2 == side * side:
            # Several patches in the channels of one row.
            one["features"] = features[tile].unflatten(-1, (where.merge**2, -1)).mean(-2)
        else:
            one["features"] = merged(features[tile], side, side, where.merge)
        found.append(one)
    return found


def _of_rows(
    name: str, inputs: dict[str, Tensor], calls: list[Any], features: Tensor
) -> list[dict[str, Tensor]]:
    """The same for encoders with one row of patches: each image's squares of patches by hand."""
    model, _ = model_of(name)
    merge = TOWERS[name].merge
    if features.ndim == 4:
        features = features.flatten(2).transpose(1, 2)
    features = features.reshape(-1, features.shape[-1])
    if len(calls) > 1:
        # One call for each image.
        seen = torch.cat([weights[0].mean(1).T for _, weights, _ in calls])
        keys = torch.cat([one[0].transpose(0, 1).flatten(1) for _, _, one in calls])
    else:
        (_, weights, one), counts = calls[0], (inputs["image_sizes"] // 14).prod(1).tolist()
        parts = weights[0].split(counts, 1)
        at = [0, *torch.tensor(counts).cumsum(0).tolist()]
        seen = torch.cat([part[:, :, at[i] : at[i + 1]].mean(1).T for i, part in enumerate(parts)])
        keys = one[0].transpose(0, 1).flatten(1)
    rows = {"attention": seen, "encoder_keys": keys, "features": features}
    if "image_grid_thw" not in inputs:
        sizes = (inputs["image_sizes"] // 14).tolist()
        counts = [r * c for r, c in sizes]
        split = {key: value.split(counts) for key, value in rows.items()}
        return [
            {key: merged(value[i], r, c, merge) for key, value in split.items()}
            for i, (r, c) in enumerate(sizes)
        ]
    # Four patches of a token follow each other; where their tokens end up the merger's output says.
    base, unit = base_of(model), merge**2
    tokens = torch.cat(list(base.get_image_features(**inputs, return_dict=True).pooler_output))
    own = {key: value.unflatten(0, (-1, unit)).mean(1) for key, value in rows.items()}
    if name == "qwen2_5_vl":
        made = base.visual.merger(features)
        order = torch.cdist(tokens, made).argmin(1)
        assert sorted(order.tolist()) == list(range(len(tokens)))
        assert order.tolist() != sorted(order.tolist())
        own = {key: value[order] for key, value in own.items()}
    counts = (inputs["image_grid_thw"].prod(1) // unit).tolist()
    split = {key: value.split(counts) for key, value in own.items()}
    return [{key: value[i] for key, value in split.items()} for i in range(len(counts))]


def ours(name: str, inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The same from the family, tokens first."""
    family = family_of(model_of(name)[0])
    attention = "cls_attention" if TOWERS[name].cls else "received_attention"
    wanted = frozenset({attention, "encoder_keys", "features"})
    assert wanted <= family.gives
    return [
        {
            "attention": one[attention].T,
            "encoder_keys": one["encoder_keys"],
            "features": one["features"],
        }
        for one in family.encode(inputs, wanted).signals
    ]


PACKED = ("llava_next", "llava_next_video", "llava_onevision")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", [name for name in TOWERS if name not in PACKED])
def test_signals_are_what_the_vision_encoder_computes(name, attention):
    model, inputs = model_of(name)
    wanted = by_hand(name, inputs)
    tower = base_of(model).get_submodule(TOWERS[name].tower)
    tower.set_attn_implementation(attention)
    found = ours(name, inputs)
    tower.set_attn_implementation("sdpa")
    family = family_of(model)
    sizes = family.encode(inputs).sizes
    assert len(found) == len(wanted) == len(sizes)
    for one, by_loops, size in zip(found, wanted, sizes, strict=True):
        for key in NAMES:
            assert len(one[key]) == size
            assert same(one[key], by_loops[key])
        # A signal that is the same everywhere would be easy to get right.
        assert float(one["attention"].std(0).max()) > 1e-5
        if not TOWERS[name].cls:
            assert largest(one["attention"].sum(0) * TOWERS[name].merge ** 2 - 1) <= 1e-5


SIDE = 8
"""Patches along a side of a tile."""
SHAPES = {
    # Height and width in pixels; rows and columns of tiles; rows and columns cut off on each side.
    "whole": ([[100, 200], [220, 220]], [(1, 2), (2, 2)], [(0, 0), (0, 0)]),
    "padded": ([[60, 200], [150, 220]], [(1, 2), (2, 2)], [(2, 0), (3, 0)]),
}


def in_place(
    tiles: list[dict[str, Tensor]], shape: tuple[int, int], cut: tuple[int, int]
) -> tuple[dict[str, Tensor], list[int]]:
    """Tokens of the tiles of an image put together by loops, and the tile of each token."""
    rows, columns = shape
    order: list[tuple[int, int]] = [(0, patch) for patch in range(SIDE * SIDE)]
    for y in range(cut[0], rows * SIDE - cut[0]):
        for x in range(cut[1], columns * SIDE - cut[1]):
            tile = 1 + (y // SIDE) * columns + x // SIDE
            order.append((tile, (y % SIDE) * SIDE + x % SIDE))
        order.append((-1, 0))
    found = {}
    for name in NAMES:
        empty = torch.zeros_like(tiles[0][name][0])
        found[name] = torch.stack([empty if t < 0 else tiles[t][name][p] for t, p in order])
    return found, [tile for tile, _ in order]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("name", PACKED)
def test_signals_of_tiles_are_where_their_tokens_are(name, sizes, attention):
    pixels, shapes, cuts = SHAPES[sizes]
    inputs = {**model_of(name)[1], "image_sizes": torch.tensor(pixels)}
    model, _ = model_of(name)
    tiles = by_hand(name, inputs)
    model.model.vision_tower.set_attn_implementation(attention)
    found = ours(name, inputs)
    model.model.vision_tower.set_attn_implementation("sdpa")
    family, first = family_of(model), 0
    encoded = family.encode(inputs)
    for image, (shape, cut) in enumerate(zip(shapes, cuts, strict=True)):
        count = 1 + shape[0] * shape[1]
        wanted, numbers = in_place(tiles[first : first + count], shape, cut)
        first += count
        assert len(numbers) == encoded.sizes[image]
        for key in NAMES:
            assert same(found[image][key], wanted[key])
        tokens = family.image(encoded, range(image, image + 1), inputs)
        assert tokens.signals.tiles.tolist() == numbers
        assert tokens.newline.tolist() == [number < 0 for number in numbers]
    assert first == len(tiles)
    together = family.image(encoded, range(2), inputs).signals.tiles
    assert together.max() == first - 1
    assert len(together) == sum(encoded.sizes)


def test_signals_are_interpolated_where_the_tokens_of_a_large_raster_are():
    model, inputs = model_of("llava_onevision")
    family = family_of(model)
    model.config.vision_aspect_ratio = "anyres_max_1"
    try:
        tiles = by_hand("llava_onevision", inputs)
        found = ours("llava_onevision", inputs)
        encoded = family.encode(inputs)
        signals = family.image(encoded, range(1, 2), inputs).signals
    finally:
        model.config.vision_aspect_ratio = "anyres_max_9"
    # 16 x 16 patches of the second image become 8 x 8: means over 2 x 2 of them.
    assert encoded.sizes[1] == 64 + 8 * 9
    raster = torch.zeros(16, 16, tiles[0]["features"].shape[1])
    for tile in range(4):
        y, x = 8 * (tile // 2), 8 * (tile % 2)
        raster[y : y + 8, x : x + 8] = tiles[4 + tile]["features"].view(8, 8, -1)
    small = raster.view(8, 2, 8, 2, -1).mean((1, 3))
    rows = found[1]["features"][64:].view(8, 9, -1)
    assert same(rows[:, :8], small)
    assert largest(rows[:, 8]) == 0
    # An image of a prompt with two images is one tile.
    numbers = signals.tiles[64:].view(8, 9)
    assert numbers[0].tolist() == [1] * 4 + [2] * 4 + [-1]
    assert numbers[7].tolist() == [3] * 4 + [4] * 4 + [-1]


def test_images_of_a_prompt_with_several_are_one_tile_each_in_onevision():
    model, inputs = model_of("llava_onevision")
    pixels = _noise(2, 1, 3, 112, 112)
    several = {**inputs, "pixel_values": pixels, "batch_num_images": torch.tensor([2])}
    family = family_of(model)
    found = family.encode(several, frozenset({"received_attention"}))
    assert found.sizes == [65, 65]
    assert [one["received_attention"].shape for one in found.signals] == [(2, 65)] * 2
    assert family.image(found, range(2), several).signals.tiles.tolist() == (
        [0] * 64 + [-1] + [1] * 64 + [-1]
    )


@pytest.mark.parametrize("name", ["llava", "internvl", "gemma3", "qwen2_5_vl", "mistral3"])
def test_signals_of_one_image_are_those_in_a_batch(name):
    model, inputs = model_of(name)
    if "image_grid_thw" in inputs:
        count = int(inputs["image_grid_thw"][-1].prod())
        one = {
            "pixel_values": inputs["pixel_values"][-count:],
            "image_grid_thw": inputs["image_grid_thw"][-1:],
        }
    else:
        one = {key: value[-1:] for key, value in inputs.items()}
    batch, alone = ours(name, inputs)[-1], ours(name, one)[0]
    for key in NAMES:
        assert same(alone[key], batch[key])


def test_padded_patches_take_no_part_in_the_attention_of_idefics():
    model, inputs = model_of("idefics3")
    mask = torch.ones(2, 2, 112, 112, dtype=torch.long)
    # The first tile shows 5 of 8 columns and half a patch more.
    mask[0, 0, :, 5 * 14 + 7 :] = 0
    padded = {**inputs, "pixel_attention_mask": mask}
    for attention in ("sdpa", "eager"):
        model.model.vision_model.set_attn_implementation(attention)
        found = ours("idefics3", padded)
        for one, wanted in zip(found, by_hand("idefics3", padded), strict=True):
            for key in NAMES:
                assert same(one[key], wanted[key])
    model.model.vision_model.set_attn_implementation("sdpa")
    assert largest(found[0]["attention"].view(4, 4, 2)[:, 3]) == 0
    family = family_of(model)
    encoded = family.encode(padded)
    padding = [family.image(encoded, range(i, i + 1), padded).signals.padding for i in range(3)]
    # A token is padding if both columns of its patches are.
    assert padding[0].view(4, 4).tolist() == [[False, False, False, True]] * 4
    assert not padding[1].any()
    assert not padding[2].any()
    whole = family.image(encoded, range(2), padded).signals.padding
    assert torch.equal(whole, torch.cat(padding[:2]))
    assert family.image(encoded, range(1), inputs).signals.padding is None


def kept_by(name: str, method: str, **settings: Any) -> list[list[int]]:
    model, inputs, _ = tiny(name)
    with pruned(model, method, **settings) as trace:
        model(**clone(inputs))
    return [kept.tolist() for kept in trace.kept[0]]


@pytest.mark.parametrize("name", ["gemma3", "qwen2_5_vl", "llava_onevision", "idefics3"])
def test_methods_with_a_substitute_run_without_a_cls_token(name):
    _, _, images = tiny(name)
    for method in ("holov", "vispruner", "visionzip"):
        kept = kept_by(name, method, k=6)
        assert [len(one) for one in kept] == [6] * len(images)
    # One chunk: the most attended tokens.
    seen = ours(name, model_of(name)[1])
    if name != "llava_onevision":
        wanted = [sorted(one["attention"].mean(1).topk(6).indices.tolist()) for one in seen]
        assert kept_by(name, make_pruner("holov", chunks=1), k=6) == wanted
        assert kept_by(name, make_pruner("vispruner", important_ratio=1.0), k=6) == wanted


def test_visionzip_without_a_cls_token_mixes_tokens():
    name = "gemma3"
    model, inputs, _ = tiny(name)
    family = family_of(model)
    encoded = family.encode(inputs)
    signals = family.encode(inputs, frozenset({"received_attention", "encoder_keys"})).signals
    made: list[Tensor] = []
    handle = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: made.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with pruned(model, "visionzip", k=6) as trace:
        model(**clone(inputs))
    handle.remove()
    # The last image is alone in the second prompt.
    seen, keys = signals[-1]["received_attention"].sum(0), signals[-1]["encoder_keys"]
    keys = keys.unflatten(1, (2, -1)).mean(1)
    keys = keys / keys.norm(dim=1, keepdim=True)
    top = seen.topk(5).indices.sort().values
    rest = [i for i in range(16) if i not in top.tolist()]
    target = rest[0]
    others = encoded.parts[-1][rest[1:]].mean(0)
    wanted = torch.cat([encoded.parts[-1][top], (encoded.parts[-1][target] + others)[None]])
    assert trace.kept[0][-1].tolist() == [*top.tolist(), target]
    row = inputs["input_ids"][1][inputs["attention_mask"][1].bool()]
    first = made[0].shape[1] - len(row) + 16 - 6 + int((row == PLACEHOLDER).nonzero()[0])
    assert largest(made[0][1, first : first + 6] - wanted) <= 1e-5


def test_tome_needs_no_cls_token_but_a_projector_of_single_patches():
    assert [len(one) for one in kept_by("deepseek_vl", "tome", k=9)] == [9] * 3
    model, inputs, _ = tiny("deepseek_vl")
    family = family_of(model)
    encoded = family.encode(inputs, frozenset({"features"}))
    for one, tokens in zip(encoded.signals, encoded.parts, strict=True):
        assert same(family.project(one["features"]), tokens)


def test_internvl_gives_its_cls_token_s_attention():
    seen = ours("internvl", model_of("internvl")[1])
    wanted = [sorted(one["attention"].mean(1).topk(3).indices.tolist()) for one in seen]
    assert kept_by("internvl", "fastervlm", k=3, unit="tile") == wanted
    assert [len(one) for one in kept_by("internvl", "scope", k=5)] == [5, 5, 5]


def test_a_budget_is_shared_by_the_tiles_of_llava_next():
    model, inputs, _ = tiny("llava_next")
    numbers = [family_of(model).image(family_of(model).encode(inputs), range(i, i + 1), inputs)
               .signals.tiles for i in range(2)]  # fmt: skip
    for method in ("fastervlm", "vispruner", "scope", "visionzip"):
        kept = kept_by("llava_next", method, k=15)
        counts = [tiles[torch.tensor(one)[torch.tensor(one) >= 0]].bincount().tolist()
                  for tiles, one in zip(numbers, kept, strict=True)]  # fmt: skip
        cls = method == "visionzip"
        assert counts == [[5 - cls] * 3, [3 - cls] * 5]


@pytest.mark.parametrize(
    ("name", "method", "settings", "message"),
    [
        ("gemma3", "fastervlm", {}, "FasterVLM needs cls_attention, which gemma3 .* no CLS token"),
        ("qwen2_5_vl", "scope", {}, "SCOPE needs cls_attention, which qwen2_5_vl does not give"),
        ("llava_onevision", "prumerge", {}, "PruMerge needs final_cls_attention, final_keys, wh"),
        ("internvl", "visionzip", {}, "VisionZip needs cls_features, which internvl does not gi"),
        ("qwen2_5_vl", "tome", {}, "ToMe mixes the projector's inputs, which qwen2_5_vl does n"),
        ("llava_onevision", "tome", {}, "ToMe mixes the projector's inputs"),
        ("qwen2_5_vl", "downsample", {}, "Downsample needs encode_at"),
        ("qwen3_vl", "visionzip", {}, "deepstack features"),
        ("vipllava", "holov", {}, "HoloV needs cls_attention, which vipllava does not give"),
    ],
)
def test_signals_that_a_tower_cannot_give_are_named_before_anything_runs(
    name, method, settings, message
):
    model = tiny(name).model
    with (
        pytest.raises(UnsupportedModelError, match=message),
        pruned(model, method, k=3, **settings),
    ):
        raise AssertionError("the block must not be entered")


def test_paligemma_is_pruned_before_its_language_model_only():
    model, _ = model_of("paligemma")
    with (
        pytest.raises(UnsupportedModelError, match="paligemma cannot be pruned inside"),
        pruned(model, "fastv"),
    ):
        raise AssertionError("the block must not be entered")


def test_a_tower_whose_last_block_sees_windows_gives_no_attention():
    model = tiny("qwen2_5_vl").model
    visual = model.model.visual
    before = visual.fullatt_block_indexes
    visual.fullatt_block_indexes = [0]
    try:
        assert family_of(model).gives == {"features"}
    finally:
        visual.fullatt_block_indexes = before


def test_signals_of_videos_are_refused_in_a_sentence():
    model, inputs, _ = filmed("qwen2_5_vl")
    with (
        pruned(model, "holov", k=3),
        pytest.raises(UnsupportedModelError, match="of images only, got videos"),
    ):
        model(**clone(inputs))


def test_images_are_encoded_again_at_a_lower_resolution():
    model, inputs, _ = tiny("llava_next")
    family = family_of(model)
    one = family.encode(inputs, frozenset({"encode_at"})).signals[1]["encode_at"]
    whole = one(8, 8)
    assert largest(whole - family.encode(inputs).parts[1][:64]) <= 1e-4
    assert one(3, 5).shape == (15, 64)
    assert [len(kept) for kept in kept_by("llava_next", "downsample", k=9)] == [9, 9]


def test_signals_are_of_the_call_of_their_own_thread():
    model, inputs = model_of("llava")
    family = family_of(model)
    wanted = frozenset({"features"})
    alone = [one["features"] for one in family.encode(inputs, wanted).signals]
    tower = family.tower
    with tower.recorded() as record:
        family.base.get_image_features(**inputs, return_dict=True)
        other = threading.Thread(
            target=lambda: model.model.vision_tower(inputs["pixel_values"].flip(0))
        )
        other.start()
        other.join()
    found = tower.of(record, wanted)["features"]
    assert all(torch.equal(one, own) for one, own in zip(found, alone, strict=True))


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
def test_rasters_of_tiles_serve_methods_that_need_a_grid(name):
    model, inputs, _ = tiny(name)
    family = family_of(model)
    encoded = family.encode(inputs)
    for method in ("grid", "pooling"):
        kept = kept_by(name, method, k=12)
        for image, one in enumerate(kept):
            signals = family.image(encoded, range(image, image + 1), inputs).signals
            counts = signals.tiles[torch.tensor(one)].bincount().tolist()
            # 12 of 3 tiles, and of 5; pooling makes at most so many, and near squares.
            of_five = {"grid": [3, 3, 2, 2, 2], "pooling": [1] * 5}
            assert counts == ([4, 4, 4] if image == 0 else of_five[method])
    # Four of a tile of 8 x 8: the middles of its quarters.
    kept = kept_by(name, "grid", k=12)[0]
    assert kept[:4] == [2 * 8 + 2, 2 * 8 + 6, 6 * 8 + 2, 6 * 8 + 6]
    assert kept[4:8] == [64 + 2 * 17 + x for x in (2, 6, 10, 14)]
