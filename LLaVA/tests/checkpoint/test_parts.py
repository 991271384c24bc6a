"""Projectors and LoRA adapters on top of a base model."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from helpers import CLIP, V15, V16, change, load, loaded, same_weights
from llava.checkpoint import CheckpointError


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


PROJECTIONS = ("q_proj", "k_proj", "v_proj")


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_each_module_has_the_rank_and_alpha_of_its_pattern(tmp_path, rank_stabilised):
    # By peft's rule: the first pattern that matches the end of a name from one of its dots on.
    torch.manual_seed(0)
    shutil.copy(V15 / "config.json", tmp_path)
    change(tmp_path / "config.json", mm_vision_tower=str(CLIP))
    ranks = {"0": (4, 2, 8), "1": (2, 2, 8)}
    alphas = {"0": (8, 8, 32), "1": (8, 1, 32)}
    settings = {
        "r": 8, "lora_alpha": 8, "use_rslora": rank_stabilised,
        "rank_pattern": {r"0\.self_attn\.q_proj": 4, "model.layers.[01].self_attn.[qk]_proj": 2,
                         "proj": 3, "self_attn.q_proj": 5},
        "alpha_pattern": {"v_proj": 32, r"^model\.layers\.1\.self_attn\.k_proj": 1},
    }  # fmt: skip
    factors, deltas = {}, {}
    for layer in ranks:
        for projection, rank, alpha in zip(PROJECTIONS, ranks[layer], alphas[layer], strict=True):
            name = f"model.layers.{layer}.self_attn.{projection}"
            a, b = torch.randn(rank, 64), torch.randn(64, rank)
            factors[f"base_model.model.{name}.lora_A.weight"] = a
            factors[f"base_model.model.{name}.lora_B.weight"] = b
            deltas[name] = alpha / (rank**0.5 if rank_stabilised else rank) * (b @ a)
    save_file(factors, tmp_path / "adapter_model.safetensors")
    torch.save({}, tmp_path / "non_lora_trainables.bin")
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    model, base = load(tmp_path, model_base=V15)[1], loaded("checkpoints/tiny-llava-v1.5")[1]
    for name, delta in deltas.items():
        want = (base.get_submodule(name).weight + delta).half().float()
        assert torch.equal(model.get_submodule(name).weight, want), name
    del settings["rank_pattern"]
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"proj.weight of shapes \(\d, 64\) .* by rank 8 of"):
        load(tmp_path, model_base=V15)


def test_an_adapter_of_a_model_with_its_tower_inside_keeps_that_tower(tmp_path):
    shutil.copy(V16 / "config.json", tmp_path)
    change(tmp_path / "config.json", mm_vision_tower=str(CLIP))
    torch.save({}, tmp_path / "adapter_model.bin")
    torch.save({}, tmp_path / "non_lora_trainables.bin")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    assert same_weights(load(tmp_path, model_base=V16)[1], load(V16)[1])


@pytest.mark.parametrize(
    ("settings", "factors", "message"),
    [
        ({"peft_type": "IA3", "r": 4, "lora_alpha": 8}, {}, "peft_type must be 'LORA', got 'IA3'"),
        ({"r": 4, "lora_alpha": 8, "use_dora": True}, {}, "use_dora must be False, got True"),
        ({"r": 4, "lora_alpha": 8, "init_lora_weights": "pissa"}, {}, "init_lora_weights must"),
        ({"lora_alpha": 8}, {}, "adapter_config.json of .* lacks r"),
        ({"r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 0}}, {}, "rank_pattern.q_proj must"),
        ({"r": 4, "lora_alpha": 8, "alpha_pattern": {"q(": 2}}, {}, r"'q\(', which is no regular"),
        ({"r": 4, "lora_alpha": 8, "rank_pattern": {"(a+)+": 2}}, {}, "no repeated group, got"),
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
