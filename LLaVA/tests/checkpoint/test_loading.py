"""Checkpoints load completely, or not at all with a sentence that names the file."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import CLIP, V15, V16, largest, loaded, visual_of
from llava.checkpoint import CheckpointError
from llava.checkpoint.write import write_checkpoint
from llava.model.builder import load_pretrained_model
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from llava.pruning import prune
from llava.tokenizer import LlavaTokenizer


@pytest.fixture
def v15(tmp_path):
    """A copy of the tiny v1.5 checkpoint and its tower that a test may spoil."""
    shutil.copytree(CLIP, tmp_path / "tiny-clip")
    shutil.copytree(V15, tmp_path / "llava")
    return tmp_path / "llava"


@pytest.fixture
def v16(tmp_path):
    shutil.copytree(V16, tmp_path / "llava")
    shutil.copytree(CLIP, tmp_path / "tiny-clip")
    return tmp_path / "llava"


def load(path, **arguments):
    return load_pretrained_model(path, device="cpu", **arguments)


def change(path, **fields):
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in content.items() if v != "REMOVE"}))


def same_weights(one, other) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(t, theirs[name]) for name, t in one.state_dict().items())


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
    for pruning in (None, prune("otprune", k=9), prune("otprune", k=9, layer=2)):
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
    pruning = prune("otprune", keep_ratio=0.1)
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
        ({"pruning": prune("otprune", k=1, layer=9)}, ValueError, r"layer must be in 0\.\.3"),
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
    pruning = prune("otprune", k=9, layer=2)
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


def test_a_model_spread_over_devices_answers_the_same(tmp_path):
    # Weights on disk are fetched by the hooks with which accelerate spreads a model.
    places = {
        "model.embed_tokens": "cpu",
        "model.vision_tower": "cpu",
        "model.mm_projector": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "disk",
        "model.layers.2": "disk",
        "model.layers.3": "cpu",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "disk",
    }
    model = load_pretrained_model(V15, device_map=places, offload_folder=tmp_path / "disk")[1]
    assert set(map(str, model.hf_device_map.values())) == {"cpu", "disk"}
    plain = loaded("checkpoints/tiny-llava-v1.5")[1]
    ids = torch.tensor([[1, 20, -200, 30, 31]])
    visual = [visual_of("checkpoints/tiny-llava-v1.5", "images/land.png")]
    for pruning in (None, prune("otprune", k=9), prune("otprune", k=9, layer=2)):
        answers = [
            one.generate(ids, visual=visual, pruning=pruning, max_new_tokens=4)
            for one in (model, plain)
        ]
        assert torch.equal(*answers)


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


def spoil(path, how):
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(b"not a file of weights, but long enough to be read as one" * 10)


@pytest.mark.parametrize("how", ["missing", "truncated", "empty", "foreign"])
@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("v15", "pytorch_model-00002-of-00002.bin"),
        ("v16", "model-00002-of-00003.safetensors"),
        ("v15", "../tiny-clip/model.safetensors"),
    ],
)
def test_a_spoilt_shard_is_named(kind, file, how, request):
    folder = request.getfixturevalue(kind)
    spoil(folder / file, how)
    message = "is missing" if how == "missing" else "is damaged"
    if how == "missing" and file.startswith(".."):
        message, file = "holds no weights", "../tiny-clip"
    with pytest.raises(CheckpointError, match=f"{file.removeprefix('../')}.*{message}"):
        load(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json", "tokenizer.model"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"{}"])
def test_a_spoilt_description_is_named(v16, file, content):
    (v16 / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        load(v16)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.model"])
def test_a_missing_description_is_named(v15, file):
    (v15 / file).unlink()
    with pytest.raises(CheckpointError, match=f"{file} does not exist"):
        load(v15)


def rewrite(folder, change_weights):
    """Change what the last shard of a v1.6 checkpoint holds, and its index."""
    path = folder / "model-00001-of-00003.safetensors"
    weights = load_file(path)
    change_weights(weights)
    save_file(weights, path)


def test_a_key_that_the_index_promises_must_be_there(v16):
    rewrite(v16, lambda weights: weights.pop("lm_head.weight"))
    with pytest.raises(CheckpointError, match="00001-of-00003.* lacks lm_head.weight, which model"):
        load(v16)


def test_a_weight_that_is_nowhere_is_named(v16):
    rewrite(v16, lambda weights: weights.pop("lm_head.weight"))
    index = json.loads((v16 / "model.safetensors.index.json").read_text())
    del index["weight_map"]["lm_head.weight"]
    (v16 / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="llava lacks lm_head.weight"):
        load(v16)


def test_a_weight_that_nothing_uses_is_named(v16):
    extra = {"model.mm_projector.4.weight": torch.zeros(2)}
    rewrite(v16, lambda weights: weights.update(extra))
    with pytest.raises(CheckpointError, match="holds model.mm_projector.4.weight, which the model"):
        load(v16)


def test_a_weight_in_two_shards_is_named(v16):
    last = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight"
    again = {last: torch.zeros(32)}
    rewrite(v16, lambda weights: weights.update(again))
    with pytest.raises(CheckpointError, match="which another shard holds as well"):
        load(v16)


def test_a_weight_of_another_shape_is_named(v16):
    rewrite(v16, lambda w: w.update({"lm_head.weight": torch.zeros(618, 32)}))
    with pytest.raises(
        CheckpointError, match=r"lm_head.weight of shape \(618, 32\), .*\(618, 64\)"
    ):
        load(v16)


def test_buffers_that_old_checkpoints_carry_are_passed_over(v16):
    old = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8),
        "model.vision_tower.vision_tower.vision_model.embeddings.position_ids": torch.arange(577),
    }
    rewrite(v16, lambda weights: weights.update(old))
    assert same_weights(load(v16)[1], load(V16)[1])


@pytest.mark.parametrize("vocab", [600, 618 + 200])
def test_the_vocabulary_of_another_model_is_named(v15, vocab):
    change(v15 / "config.json", vocab_size=vocab)
    with pytest.raises(
        CheckpointError, match=f"tokenizer.model .* 618 pieces, .*vocab_size {vocab}"
    ):
        load(v15)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mm_vision_tower": "REMOVE"}, "names no mm_vision_tower: no LLaVA checkpoint"),
        ({"model_type": "llava_mistral"}, "is of model_type 'llava_mistral'; only llava and"),
        ({"hidden_size": "REMOVE"}, "lacks hidden_size"),
        ({"mm_projector_type": "resampler"}, "not usable: mm_projector_type must be .*'resampler'"),
        ({"mm_vision_select_layer": -40}, "not usable: mm_vision_select_layer must be in"),
        ({"num_hidden_layers": "four"}, "config.json .* not usable"),
        ({"num_hidden_layers": 5}, "lacks model.layers.4"),
        ({"num_hidden_layers": 3}, "holds model.layers.3"),
        (
            {"text_config": {"model_type": "llama"}},
            "transformers' own layouts llava and llava_next",
        ),
    ],
)
def test_a_configuration_of_another_kind_is_refused(v15, fields, message):
    change(v15 / "config.json", **fields)
    with pytest.raises(CheckpointError, match=message):
        load(v15)


@pytest.mark.parametrize("name", ["no-such-folder", "/no/such/folder", "./nothing", "a/b/c"])
def test_a_path_that_leads_nowhere_is_said(name):
    with pytest.raises(CheckpointError, match="no hub id|neither a folder nor"):
        load(name, local_files_only=True)


def test_a_repository_that_is_not_cached_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="config.json of owner/name is not in the cache"):
        load("owner/name", cache_dir=tmp_path, local_files_only=True)


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


def test_code_in_a_pickle_is_not_run(v15):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"lm_head.weight": Evil()}, v15 / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(CheckpointError, match="is damaged or no file of weights"):
        load(v15)


def test_a_single_file_without_an_index_is_read(v15):
    weights = {}
    for path in v15.glob("pytorch_model-*.bin"):
        weights |= torch.load(path, weights_only=True)
        path.unlink()
    (v15 / "pytorch_model.bin.index.json").unlink()
    torch.save(weights, v15 / "pytorch_model.bin")
    assert same_weights(load(v15)[1], load(V15)[1])


def test_tokens_that_the_configuration_asks_for_get_rows(v15, caplog):
    change(v15 / "config.json", mm_use_im_start_end=True, mm_use_im_patch_token="REMOVE")
    with caplog.at_level(logging.WARNING):
        tokenizer, model, _, _ = load(v15)
    assert "embeddings grown to 621 rows for <im_patch>, <im_start>, <im_end>" in caplog.text
    assert model.get_input_embeddings().weight.shape == (621, 64)
    assert tokenizer("<im_start>").input_ids[-1] == 619
    plain = loaded("checkpoints/tiny-llava-v1.5")[1]
    assert torch.equal(logits(model)[..., :618], logits(plain))


def test_a_projector_alone_is_put_on_its_base(v15, tmp_path):
    whole = load(V15)[1]
    names = [name for name in whole.state_dict() if "mm_projector" in name]
    folder = tmp_path / "llava-projector"
    folder.mkdir()
    change_to = {name: torch.randn_like(whole.state_dict()[name]) for name in names}
    torch.save(change_to, folder / "mm_projector.bin")
    shutil.copy(v15 / "config.json", folder)
    tokenizer, model, _, _ = load(folder, model_base=v15)
    state = model.state_dict()
    assert all(torch.equal(state[name], change_to[name]) for name in names)
    assert torch.equal(state["lm_head.weight"], whole.lm_head.weight)
    assert tokenizer.vocab_size == 618
    with pytest.raises(CheckpointError, match="is a projector: give its base as model_base"):
        load(folder)


@pytest.mark.parametrize("rank_stabilised", [False, True])
@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_a_lora_adapter_is_merged_into_its_base(v15, tmp_path, form, rank_stabilised):
    folder = tmp_path / "llava-lora"
    folder.mkdir()
    shutil.copy(v15 / "config.json", folder)
    target = "model.layers.1.self_attn.q_proj"
    a, b = torch.randn(4, 64), torch.randn(64, 4)
    factors = {
        f"base_model.model.{target}.lora_A.weight": a,
        f"base_model.model.{target}.lora_B.weight": b,
    }
    if form == "bin":
        torch.save(factors, folder / "adapter_model.bin")
    else:
        save_file(factors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": rank_stabilised}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    bias = torch.randn(64)
    torch.save(
        {"base_model.model.model.mm_projector.2.bias": bias}, folder / "non_lora_trainables.bin"
    )
    model, whole = load(folder, model_base=v15)[1], load(V15)[1]
    scale = 8 / 2 if rank_stabilised else 8 / 4
    want = (whole.get_submodule(target).weight + scale * b @ a).half().float()
    assert torch.equal(model.get_submodule(target).weight, want)
    assert torch.equal(model.model.mm_projector[2].bias, bias)
    assert torch.equal(model.lm_head.weight, whole.lm_head.weight)
    with pytest.raises(CheckpointError, match="is a LoRA adapter: give its base as model_base"):
        load(folder)


@pytest.mark.parametrize(
    ("settings", "factors", "message"),
    [
        ({"peft_type": "IA3", "r": 4, "lora_alpha": 8}, {}, "of a kind other than LoRA"),
        ({"r": 4, "lora_alpha": 8, "use_dora": True}, {}, "of a kind other than LoRA"),
        ({"lora_alpha": 8}, {}, "has no r and lora_alpha"),
        ({"r": 4, "lora_alpha": 8}, {"x.lora_A.weight": 0}, "which is no LoRA factor"),
        (
            {"r": 4, "lora_alpha": 8},
            {"base_model.model.model.norm.lora_A.weight": 0},
            "lacks a factor or the base of model.norm.weight",
        ),
    ],
)
def test_adapters_that_cannot_be_merged_are_refused(v15, tmp_path, settings, factors, message):
    folder = tmp_path / "llava-lora"
    folder.mkdir()
    shutil.copy(v15 / "config.json", folder)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    torch.save({k: torch.zeros(2, 2) for k in factors}, folder / "adapter_model.bin")
    torch.save({}, folder / "non_lora_trainables.bin")
    with pytest.raises(CheckpointError, match=message):
        load(folder, model_base=v15)


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
