"""Vision towers against transformers' own hidden states, attentions and keys."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from helpers import largest
from llava.model.multimodal_encoder.builder import TOWERS, build_vision_tower, vision_settings

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
}
FAMILIES = {
    "clip_vision_model": (CLIPVisionModel, CLIPVisionConfig, {"intermediate_size": 48}, 1),
    "siglip_vision_model": (SiglipVisionModel, SiglipVisionConfig, {"intermediate_size": 48}, 0),
    "dinov2": (Dinov2Model, Dinov2Config, {"mlp_ratio": 2}, 1),
}


def settings(kind: str, **more) -> SimpleNamespace:
    raw = {"model_type": kind, **SHAPE, **FAMILIES[kind][2], "torch_dtype": "float16"}
    return SimpleNamespace(mm_vision_tower="tower", mm_vision_config=raw, **more)


def both(kind: str, **more):
    """Our tower, and transformers' model with the same weights."""
    torch.manual_seed(0)
    model_class, config_class, extra, _ = FAMILIES[kind]
    theirs = model_class._from_config(
        config_class(**SHAPE, **extra), attn_implementation="eager"
    ).eval()
    ours = build_vision_tower(settings(kind, **more)).eval()
    ours.vision_tower.load_state_dict(theirs.state_dict())
    return ours, theirs


def tiles(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("layer", [-1, -2, -3, 0, 1, 4, 5, -6])
def test_features_are_the_selected_hidden_state(kind, layer):
    ours, theirs = both(kind, mm_vision_select_layer=layer)
    with torch.no_grad():
        states = theirs(tiles(), output_hidden_states=True).hidden_states
    want = states[layer][:, FAMILIES[kind][3] :]
    assert ours(tiles()).shape == want.shape == (2, 16, 32)
    assert largest(ours(tiles()) - want) <= 1e-5


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("layer", [-1, -2, 3])
def test_signals_are_those_of_the_block_before_the_selected_state(kind, layer):
    ours, theirs = both(kind, mm_vision_select_layer=layer)
    blocks = theirs.encoder.layer if kind == "dinov2" else theirs.encoder.layers
    number = (layer if layer >= 0 else 6 + layer) - 1
    attention = blocks[number].attention if kind == "dinov2" else blocks[number].self_attn
    seen = {}
    attention.k_proj.register_forward_hook(lambda m, a, out: seen.update(keys=out))
    with torch.no_grad():
        weights = theirs(tiles(), output_attentions=True).attentions[number]
    cls = FAMILIES[kind][3]
    out = ours.encode(tiles(), {"encoder_keys"})
    assert largest(out.signals["encoder_keys"] - seen["keys"][:, cls:]) <= 1e-5
    assert "cls_attention" not in out.signals
    if not cls:
        with pytest.raises(ValueError, match="cls_attention needs a CLS token, SiglipVisionTower"):
            ours.encode(tiles(), {"cls_attention"})
        return
    out = ours.encode(tiles(), {"cls_attention"})
    assert out.signals["cls_attention"].shape == (2, 4, 16)
    assert largest(out.signals["cls_attention"] - weights[:, :, 0, 1:]) <= 1e-6
    assert "encoder_keys" not in out.signals


def test_blocks_after_the_selected_state_are_not_run():
    ours, _ = both("clip_vision_model", mm_vision_select_layer=-2)
    calls = []
    for number, block in enumerate(ours._blocks()):
        block.register_forward_hook(lambda *_, number=number: calls.append(number))
    ours(tiles())
    assert calls == [0, 1, 2, 3]


def test_signals_cost_nothing_unless_asked_for():
    ours, _ = both("clip_vision_model")
    calls = []
    ours._blocks()[3].self_attn.k_proj.register_forward_hook(lambda *_: calls.append(1))
    ours.encode(tiles())
    assert len(calls) == 1
    ours.encode(tiles(), {"cls_attention"})
    assert len(calls) == 3


def test_cls_patch_keeps_the_cls_token():
    ours, theirs = both("clip_vision_model", mm_vision_select_feature="cls_patch")
    with torch.no_grad():
        want = theirs(tiles(), output_hidden_states=True).hidden_states[-2]
    out = ours.encode(tiles(), {"cls_attention"})
    assert largest(out.features - want) <= 1e-5
    assert out.signals["cls_attention"].shape == (2, 4, 17)


def test_dinov2_positions_are_interpolated_to_the_tile():
    config = settings(
        "dinov2", mm_image_processor={"size": 42, "crop_size": 42, "do_center_crop": True}
    )
    tower = build_vision_tower(config)
    assert tower.num_patches == 36
    assert tower(torch.zeros(1, 3, 42, 42)).shape == (1, 36, 32)


def test_features_have_the_dtype_of_the_tiles():
    ours, _ = both("clip_vision_model")
    assert ours.dtype == torch.float32
    assert ours(tiles().bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("clip_vision_model", {"mm_vision_select_layer": -7}, r"must be in -6\.\.5 .* got -7"),
        ("clip_vision_model", {"mm_vision_select_layer": 6}, r"must be in -6\.\.5 .* got 6"),
        ("clip_vision_model", {"mm_vision_select_feature": "all"}, "patch or cls_patch, got 'all'"),
        ("siglip_vision_model", {"mm_vision_select_feature": "cls_patch"}, "has none"),
    ],
)
def test_impossible_selections_are_refused(kind, more, message):
    with pytest.raises(ValueError, match=message):
        build_vision_tower(settings(kind, **more))


def test_unknown_towers_are_refused():
    with pytest.raises(ValueError, match="tower is of type 'convnext'; known: clip, "):
        build_vision_tower(
            SimpleNamespace(mm_vision_tower="tower", mm_vision_config={"model_type": "convnext"})
        )
    with pytest.raises(ValueError, match="mm_vision_config must be given for vision tower 'x/y'"):
        build_vision_tower(SimpleNamespace(mm_vision_tower="x/y"))


def test_a_named_tower_needs_no_configuration():
    raw = vision_settings(SimpleNamespace(mm_vision_tower="openai/clip-vit-large-patch14-336"))
    assert (raw["hidden_size"], raw["num_hidden_layers"], raw["image_size"]) == (1024, 24, 336)


def test_the_vision_half_of_a_whole_clip_is_taken():
    whole = {"model_type": "clip", "text_config": {}, "vision_config": {"hidden_size": 8}}
    raw = vision_settings(SimpleNamespace(mm_vision_tower="x", mm_vision_config=whole))
    assert raw == {"model_type": "clip", "hidden_size": 8}


def test_wrong_tiles_and_unknown_signals_are_refused():
    ours, _ = both("clip_vision_model")
    with pytest.raises(ValueError, match=r"tiles must be \[b 3 28 28\], got \(1, 3, 14, 14\)"):
        ours(torch.zeros(1, 3, 14, 14))
    with pytest.raises(ValueError, match="no vision tower gives text"):
        ours.encode(tiles(), {"text"})
    none, _ = both("clip_vision_model", mm_vision_select_layer=0)
    with pytest.raises(ValueError, match="runs none"):
        none.encode(tiles(), {"encoder_keys"})


def test_each_family_has_its_own_preprocessing():
    means = {
        kind: tuple(build_vision_tower(settings(kind)).image_processor.image_mean)
        for kind in FAMILIES
    }
    assert len(set(means.values())) == 3
    siglip = build_vision_tower(settings("siglip_vision_model")).image_processor
    assert (siglip.fit, siglip.side) == ("exact", 28)


def test_every_kind_has_a_tower():
    assert set(FAMILIES) < set(TOWERS)
