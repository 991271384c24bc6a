"""Checkpoints load completely, or not at all with a sentence that names the file."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file

from helpers import CLIP, V15, V16, change, largest, load, loaded, rewrite, same_weights, visual_of
from llava.chat import make_prompt
from llava.checkpoint import CheckpointError
from llava.mm_utils import tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.model.language_model.llava_llama import LlavaLlamaForCausalLM
from llava.tokenizer import LlavaTokenizer
from otprune.pruning import make_pruning


def logits(model, checkpoint="checkpoints/tiny-llava-v1.5"):
    ids = torch.tensor([[1, 20, -200, 30, 31]])
    visual = [visual_of(checkpoint, "images/land.png")]
    with torch.no_grad():
        return model(input_ids=ids, visual=visual).logits


def test_what_is_returned():
    tokenizer, model, processor, context = load(V15)
    assert isinstance(tokenizer, LlavaTokenizer)
    assert isinstance(model, LlavaLlamaForCausalLM)
    assert not model.training
    assert processor.side == 336
    assert context == 2048
    assert model.pruning is None
    assert model.config.image_aspect_ratio == "pad"
    assert model.generation_config.eos_token_id == 2
    assert model.generation_config.pad_token_id == 0
    assert model.generation_config.max_length is None
    assert all(p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters())
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", torch.bfloat16, "torch.float32"])
def test_the_dtype_is_the_whole_model_s(dtype):
    model = load(V15, torch_dtype=dtype)[1]
    want = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype.split(".")[-1])
    assert {p.dtype for p in model.parameters()} == {want}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    ids = torch.tensor([[1, 20, -200, 30, 31]])
    pixels = torch.zeros(1, 3, 336, 336, dtype=torch.float16)
    for pruning in (None, make_pruning("otprune", k=9), make_pruning("otprune", k=9, layer=2)):
        answer = model.generate(ids, images=pixels, pruning=pruning, max_new_tokens=3)
        assert answer.shape[1] <= 3


def test_bfloat16_is_near_float32():
    wide, narrow = logits(load(V15)[1]), logits(load(V15, torch_dtype="bfloat16")[1])
    assert largest(wide - narrow.float()) < 0.5
    assert largest(wide - narrow.float()) > 0


def test_arguments_of_other_loaders_are_understood():
    model = load(V15, model_base=None, model_name="llava", multimodal=True)[1]
    assert model.config._attn_implementation == "sdpa"
    assert load(V15, attn_implementation="eager")[1].config._attn_implementation == "eager"
    assert load(V15, customized_config=None, low_cpu_mem_usage=True)[1] is not None
    pruning = make_pruning("otprune", keep_ratio=0.1)
    assert load(V15, pruning=pruning)[1].pruning is pruning


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"keep_ratio": 0.1}, TypeError, "has no argument 'keep_ratio'"),
        ({"customized_config": "x.json"}, TypeError, "has no argument 'customized_config'"),
        ({"torch_dtype": "float"}, None, None),
        ({"torch_dtype": "int8"}, ValueError, "must name a floating-point dtype, got 'int8'"),
        ({"torch_dtype": "half16"}, ValueError, "must name a floating-point dtype, got 'half16'"),
        ({"load_4bit": True, "load_8bit": True}, ValueError, "exclude each other"),
        (
            {"pruning": make_pruning("otprune", k=1, layer=9)},
            ValueError,
            r"layer must be in 0\.\.3",
        ),
    ],
)
def test_impossible_arguments_are_refused(arguments, error, message):
    if error is None:
        assert load(V15, **arguments)[1].dtype == torch.float32
        return
    with pytest.raises(error, match=message):
        load(V15, **arguments)


@pytest.mark.parametrize("bits", ["load_4bit", "load_8bit"])
def test_quantised_weights_need_bitsandbytes(bits, monkeypatch):
    monkeypatch.setattr("llava.model.builder.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="need bitsandbytes: pip install"):
        load(V15, **{bits: True})


@pytest.mark.parametrize("bits", ["load_4bit", "load_8bit"])
def test_the_language_model_alone_is_quantised(bits):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    model = load(V15, **{bits: True})[1]
    kinds = {
        name: type(m).__name__ for name, m in model.named_modules() if "Linear" in repr(type(m))
    }
    for name, kind in kinds.items():
        assert (kind != "Linear") == name.startswith("model.layers."), name
    distance = largest(logits(model) - logits(loaded("checkpoints/tiny-llava-v1.5")[1]))
    assert 0 < distance < (4 if bits == "load_4bit" else 1)
    pruning = make_pruning("otprune", k=9, layer=2)
    visual = [visual_of("checkpoints/tiny-llava-v1.5", "images/land.png")]
    ids = torch.tensor([[1, 20, -200, 30, 31]])
    assert model.generate(ids, visual=visual, pruning=pruning, max_new_tokens=3).shape == (1, 3)


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = load_pretrained_model(V15, None, "llava", device_map="auto")[1]
    assert model.device.type == "cpu"
    assert model.dtype == torch.float32


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}, torch.device("cpu")])
def test_a_device_map_may_name_the_cpu(device_map):
    assert load_pretrained_model(V15, device_map=device_map)[1].device.type == "cpu"


PARTS = [
    "model.embed_tokens",
    "model.layers.0",
    "model.layers.1",
    "model.layers.2",
    "model.layers.3",
    "model.norm",
    "model.rotary_emb",
    "model.image_newline",
    "model.vision_tower",
    "model.mm_projector",
    "lm_head",
]


LIKE_OTHERS = (
    *("model.layers.0", "model.layers.1", "model.layers.2", "model.layers.3"),
    *("model.norm", "model.rotary_emb"),
)


@pytest.fixture(scope="module")
def spread():
    """A request, and what the whole model answers under some prunings."""
    generator = torch.Generator().manual_seed(0)
    request = {
        "images": torch.randn(1, 3, 3, 336, 336, generator=generator),
        "image_sizes": [(333, 512)],
        "max_new_tokens": 4,
    }
    ids = torch.tensor([[1, 20, -200, 30, 31]])
    prunings = (None, make_pruning("otprune", k=9), make_pruning("otprune", k=9, layer=2))
    plain = loaded("checkpoints/tiny-llava-v1.6")[1]
    return ids, request, [(one, plain.generate(ids, **request, pruning=one)) for one in prunings]


@pytest.mark.filterwarnings("ignore:The following device_map keys do not match any submodules")
@pytest.mark.parametrize(
    "offloaded",
    [
        ["model.layers.1", "model.layers.2"],
        ["model"],
        *(pytest.param([one], marks=[pytest.mark.long] * (one in LIKE_OTHERS)) for one in PARTS),
    ],
)
def test_a_model_spread_over_devices_answers_the_same(tmp_path, offloaded, spread):
    # Weights on disk are fetched by the hooks with which accelerate spreads a model.
    places = dict.fromkeys(PARTS, "cpu") | dict.fromkeys(offloaded, "disk")
    if offloaded == ["model"]:
        places = {"model": "disk", "lm_head": "cpu"}
    model = load(V16, device="cuda", device_map=places, offload_folder=tmp_path / "disk")[1]
    assert set(map(str, model.hf_device_map.values())) == {"cpu", "disk"}
    ids, request, wanted = spread
    for pruning, want in wanted:
        assert torch.equal(model.generate(ids, **request, pruning=pruning), want)


def test_the_vision_tower_is_frozen():
    model = load(V15)[1]
    assert not any(p.requires_grad for p in model.get_vision_tower().parameters())
    assert all(p.requires_grad for p in model.model.layers.parameters())


def test_safetensors_are_preferred_to_pickles(v16):
    torch.save({"lm_head.weight": torch.zeros(2)}, v16 / "pytorch_model.bin")
    assert same_weights(load(v16)[1], load(V16)[1])


def test_settings_reach_the_loader(monkeypatch):
    seen = {}

    def from_pretrained(*arguments, **settings):
        seen.update(settings)
        raise InterruptedError

    monkeypatch.setattr(LlavaLlamaForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr("llava.model.checks.importlib.util.find_spec", lambda name: name)
    with pytest.raises(InterruptedError):
        load(V15, use_flash_attn=True, max_memory={0: "9GiB"}, offload_folder="x")
    assert seen["attn_implementation"] == "flash_attention_2"
    assert seen["max_memory"] == {0: "9GiB"}
    assert seen["offload_folder"] == "x"
    for strategy in ("auto", "balanced", "sequential"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        with pytest.raises(InterruptedError):
            load_pretrained_model(V15, device_map=strategy)
        assert seen["device_map"] == strategy
        assert seen["dtype"] == torch.float16
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(InterruptedError):
            load_pretrained_model(V15, device_map=strategy)
        assert seen["device_map"] == {"": "cpu"}
        assert seen["dtype"] == torch.float32


def test_features_take_the_projector_s_dtype():
    model = load(V15)[1]
    model.model.mm_projector.double()
    with torch.no_grad():
        assert model.encode_images(torch.zeros(1, 3, 336, 336)).dtype == torch.float64


def test_the_tower_inside_is_used_if_the_configuration_says_so():
    inside = load(V16)[1].model.vision_tower.vision_tower.pre_layrnorm.weight
    outside = load(V15)[1].model.vision_tower.vision_tower.pre_layrnorm.weight
    stored = load_file(V16 / "model-00003-of-00003.safetensors") | load_file(
        V16 / "model-00002-of-00003.safetensors"
    )
    name = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight"
    assert torch.equal(inside, stored[name].float())
    assert not torch.equal(inside, outside)


def test_a_tower_inside_is_left_alone_if_the_configuration_says_so(v16):
    change(v16 / "config.json", unfreeze_mm_vision_tower=False)
    weight = load(v16)[1].model.vision_tower.vision_tower.pre_layrnorm.weight
    clip = load_file(CLIP / "model.safetensors")
    assert torch.equal(weight, clip["vision_model.pre_layrnorm.weight"].float())


def test_a_frozen_tower_inside_serves_where_its_own_has_no_weights(v16, tmp_path, caplog):
    # Such as a fine-tuned v1.5 without the hub: the tower's name is known, its weights are not.
    snapshot = tmp_path / "hub" / "models--owner--clip"
    (snapshot / "refs").mkdir(parents=True)
    (snapshot / "refs" / "main").write_text("0" * 40)
    (snapshot / "snapshots" / ("0" * 40)).mkdir(parents=True)
    shutil.copy(CLIP / "config.json", snapshot / "snapshots" / ("0" * 40))
    change(v16 / "config.json", unfreeze_mm_vision_tower=False, mm_vision_tower="owner/clip")
    with caplog.at_level(logging.WARNING):
        model = load(v16, cache_dir=tmp_path / "hub", local_files_only=True)[1]
    assert "no weights of owner/clip are cached" in caplog.text
    assert f"taking the tower that {v16} holds" in caplog.text
    assert same_weights(model, load(V16)[1])
    change(v16 / "config.json", mm_vision_tower="nobody/no-such-tower")
    with pytest.raises(CheckpointError, match="the vision tower nobody/no-such-tower that"):
        load(v16, local_files_only=True)


def test_no_tower_anywhere_is_said(v15):
    change(v15 / "config.json", unfreeze_mm_vision_tower=True)
    with pytest.raises(
        CheckpointError, match="says that its vision tower is inside, but no weight"
    ):
        load(v15)
    change(v15 / "config.json", unfreeze_mm_vision_tower=False, mm_vision_tower="../nowhere")
    with pytest.raises(CheckpointError, match="nowhere is no folder and no hub id"):
        load(v15)


def test_buffers_that_old_checkpoints_carry_are_passed_over(v16):
    old = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8),
        "model.vision_tower.vision_tower.vision_model.embeddings.position_ids": torch.arange(577),
    }
    rewrite(v16, lambda weights: weights.update(old))
    assert same_weights(load(v16)[1], load(V16)[1])


def test_a_cached_repository_loads_without_the_hub(tmp_path):
    for repository, source in (("owner/llava", V16), ("owner/clip", CLIP)):
        snapshot = tmp_path / f"models--{repository.replace('/', '--')}"
        (snapshot / "refs").mkdir(parents=True)
        (snapshot / "refs" / "main").write_text("0" * 40)
        shutil.copytree(source, snapshot / "snapshots" / ("0" * 40))
    config = tmp_path / "models--owner--llava" / "snapshots" / ("0" * 40) / "config.json"
    change(config, mm_vision_tower="owner/clip")
    model = load("owner/llava", cache_dir=tmp_path, local_files_only=True)[1]
    assert same_weights(model, load(V16)[1])
    change(config, unfreeze_mm_vision_tower=False)
    frozen = load("owner/llava", cache_dir=tmp_path, local_files_only=True)[1]
    tower, other = (m.model.vision_tower for m in (frozen, load(V15)[1]))
    assert same_weights(tower, other)


def test_a_tower_inside_a_known_name_needs_nothing_else(v16, tmp_path):
    tower = json.loads((CLIP / "config.json").read_text())
    change(v16 / "config.json", mm_vision_tower="owner/gone", mm_vision_config=tower)
    shutil.rmtree(tmp_path / "tiny-clip")
    assert same_weights(load(v16, local_files_only=True)[1], load(V16)[1])


def test_files_of_torch_before_zip_archives_are_read(v15):
    for path in v15.glob("*.bin"):
        weights = torch.load(path, weights_only=True)
        torch.save(weights, path, _use_new_zipfile_serialization=False)
    assert same_weights(load(v15)[1], load(V15)[1])


def test_a_single_file_without_an_index_is_read(v15):
    weights = {}
    for path in v15.glob("pytorch_model-*.bin"):
        weights |= torch.load(path, weights_only=True)
        path.unlink()
    (v15 / "pytorch_model.bin.index.json").unlink()
    torch.save(weights, v15 / "pytorch_model.bin")
    assert same_weights(load(v15)[1], load(V15)[1])


def test_a_token_that_no_prompt_holds_gets_a_row(v15, caplog):
    change(v15 / "config.json", mm_use_im_patch_token="REMOVE")
    with caplog.at_level(logging.WARNING):
        tokenizer, model, _, _ = load(v15)
    assert "embeddings grown to 619 rows for <im_patch>" in caplog.text
    assert model.get_input_embeddings().weight.shape == (619, 64)
    assert tokenizer("<im_patch>").input_ids[-1] == 618
    plain = loaded("checkpoints/tiny-llava-v1.5")[1]
    assert torch.equal(logits(model)[..., :618], logits(plain))


def test_tokens_around_images_reach_prompts_if_the_checkpoint_has_them(v16):
    change(v16 / "config.json", mm_use_im_start_end=True)
    with pytest.raises(CheckpointError, match="its 618 embeddings have none for"):
        load(v16)

    def grow(weights):
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in weights:
                weights[name] = torch.cat([weights[name], weights[name][5:7]])

    rewrite(v16, grow)
    change(v16 / "config.json", vocab_size=620)
    (v16 / "added_tokens.json").write_text('{"<im_start>": 619, "<im_end>": 618}')
    llava = load(v16)
    ids = torch.tensor(tokenizer_image_token(make_prompt("Q", 1, config=llava[1].config), llava[0]))
    (place,) = (ids == -200).nonzero()[:, 0].tolist()
    assert ids[place - 1 : place + 2].tolist() == [619, -200, 618]
    assert llava[1].text_tools.question(ids) == "Q"
    image = visual_of("checkpoints/tiny-llava-v1.6", "images/land.png")
    plain = loaded("checkpoints/tiny-llava-v1.6")[1]
    like = torch.where(ids >= 618, ids - 618 + 5, ids)
    with torch.no_grad():
        ours, theirs = (
            model(input_ids=row[None], visual=[image]).logits[..., :618]
            for model, row in ((llava[1], ids), (plain, like))
        )
    assert torch.equal(ours, theirs)
