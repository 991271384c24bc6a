"""Whatever is damaged of a checkpoint: it is refused in a sentence, or it answers."""

import json
import logging

import pytest
import torch
from safetensors.torch import save_file

from checkpoint.test_clip_text import write_text_encoder
from damage import attack
from helpers import change, load
from llava.chat import ask
from llava.checkpoint import CheckpointError
from llava.tokenizer import LlavaTokenizer
from otprune.pruning import make_pruning


def use(folder, base=None):
    """Load a checkpoint and have it answer."""

    def answer():
        llava = load(folder, model_base=base, local_files_only=True)
        try:
            ask(llava, "Is it a cat?", max_new_tokens=2)
            llava[0].decode(range(len(llava[0]) + 3))
        except ValueError as error:
            # Weights of a damaged file may have become NaN, which nothing but an answer shows.
            if "logits must be finite" not in str(error):
                raise

    return answer


def use_text_encoder(folder):
    pruning = make_pruning("cdpruner", k=4)

    def answer():
        llava = load(folder, local_files_only=True, pruning=pruning)
        llava[1].text_tools.clip_text("cat and dog")

    return answer


def files_of(folder, *patterns):
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def add_tokens(folder):
    piece = LlavaTokenizer(folder / "tokenizer.model").piece(300)
    (folder / "added_tokens.json").write_text(json.dumps({piece: 300}))
    decoder = {"300": {"content": piece, "lstrip": False, "special": True}}
    change(folder / "tokenizer_config.json", added_tokens_decoder=decoder)
    change(folder / "config.json", rope_scaling={"type": "linear", "factor": 2.0})


def adapter_of(base, folder):
    folder.mkdir()
    (folder / "config.json").write_bytes((base / "config.json").read_bytes())
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_{}.weight"
    factors = {name.format("A"): torch.ones(2, 64), name.format("B"): torch.ones(64, 2)}
    save_file(factors, folder / "adapter_model.safetensors")
    torch.save({}, folder / "non_lora_trainables.bin")
    settings = {"r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v": 1}}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def oldest_format(folder):
    for path in folder.glob("*.bin"):
        weights = torch.load(path, weights_only=True)
        torch.save(weights, path, _use_new_zipfile_serialization=False)


KINDS = ("bin", "oldest", "safetensors", "tower", "text", "adapter")
MANY = [pytest.param(kind, 400, marks=pytest.mark.long) for kind in KINDS]


@pytest.mark.parametrize(("kind", "rounds"), [("bin", 8), ("safetensors", 8), *MANY])
def test_damaged_files_are_refused_in_a_sentence_or_used(kind, rounds, request, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    folder = request.getfixturevalue("v16" if kind == "safetensors" else "v15")
    clip = tmp_path / "tiny-clip"
    answer, files = use(folder), files_of(folder, "*.json", "*.bin", "*.model", "*.safetensors")
    if kind == "oldest":
        oldest_format(folder)
        files = files_of(folder, "*.bin")
    elif kind == "safetensors":
        add_tokens(folder)
        files = files_of(folder, "*.json", "*.safetensors", "*.model")
    elif kind == "tower":
        files = files_of(clip, "*")
    elif kind == "text":
        write_text_encoder(clip)
        answer, files = use_text_encoder(folder), files_of(clip, "config.json", "[mv]*.*")
    elif kind == "adapter":
        adapter = adapter_of(folder, tmp_path / "adapter")
        answer, files = use(adapter, folder), files_of(adapter, "*")
    answer()
    counts, escaped = attack(files, rounds, len(kind), answer, (CheckpointError,))
    assert escaped == []
    assert counts["CheckpointError"] > rounds // 4
    answer()
