"""CLIP's text encoder in the tower's repository, and the signals that methods get from it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from helpers import CLIP, QUESTION, ROOT, loaded
from llava.checkpoint import CheckpointError
from llava.checkpoint.config import read_config
from llava.checkpoint.files import CheckpointFiles
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.mm_utils import tokenizer_image_token
from llava.model.builder import _clip_source, load_pretrained_model
from llava.model.multimodal_encoder.clip_text import ClipText, segments
from llava.model.multimodal_encoder.dinov2_encoder import Dinov2VisionTower
from llava.model.text import TextTools
from llava.model.writer import write_checkpoint

METHODS = ROOT.parent / "tests" / "data" / "parity" / "methods"
CPU = torch.device("cpu")
LETTERS = [chr(c) for c in range(ord("!"), ord("~") + 1)]
MERGES = ["c a", "ca t</w>", "d o", "do g</w>"]
WORDS = ["ca", "cat</w>", "do", "dog</w>", "<|startoftext|>", "<|endoftext|>"]
VOCABULARY = [*LETTERS, *(letter + "</w>" for letter in LETTERS), *WORDS]
START, END = len(VOCABULARY) - 2, len(VOCABULARY) - 1
TEXT_LENGTH = 8


def write_text_encoder(folder: Path) -> CLIPModel:
    """Make a tower's folder that of a whole CLIP with random weights; return the model."""
    vision = json.loads((folder / "config.json").read_text())
    text = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": len(VOCABULARY),
        "max_position_embeddings": TEXT_LENGTH,
        "bos_token_id": START,
        "eos_token_id": END,
    }
    torch.manual_seed(3)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    model = CLIPModel(config).float().eval()
    tower = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    assert not model.load_state_dict(tower, strict=False).unexpected_keys
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    vocabulary = {piece: i for i, piece in enumerate(VOCABULARY)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return model


@pytest.fixture
def whole(v15):
    """A copy of the tiny v1.5 checkpoint whose tower is a whole CLIP, and that CLIP."""
    clip = write_text_encoder(v15.parent / "tiny-clip")
    return load_pretrained_model(v15, device="cpu")[1], clip


def ids_of(text: str) -> list[int]:
    pieces = []
    for word in text.split():
        known = word + "</w>" in VOCABULARY[-len(WORDS) :]
        pieces += [word + "</w>"] if known else [*word[:-1], word[-1] + "</w>"]
    return [START, *(VOCABULARY.index(piece) for piece in pieces), END]


@pytest.mark.parametrize("text", ["cat", "a Dog", "dog cat dog"])
def test_a_short_question_is_what_clip_itself_says_of_it(whole, text):
    model, clip = whole
    with torch.no_grad():
        output = clip.get_text_features(torch.tensor([ids_of(text.lower())])).pooler_output
    found = model.text_tools.clip_text(text)
    assert found.shape == (1, 12)
    torch.testing.assert_close(found, output)


def test_a_long_question_is_cut_into_segments_filled_with_masked_zeros(whole):
    model, clip = whole
    text = "dog cat " * 5
    ids = ids_of(text)
    assert len(ids) == 12
    found = model.text_tools.clip_text(text)
    assert found.shape == (2, 12)
    with torch.no_grad():
        first = clip.get_text_features(torch.tensor([ids[:TEXT_LENGTH]])).pooler_output
        last = clip.get_text_features(torch.tensor([ids[TEXT_LENGTH:]])).pooler_output
    torch.testing.assert_close(found, torch.cat([first, last]))


@pytest.mark.parametrize("case", ["tower_land", "tower_port"])
def test_segments_are_those_of_the_released_code(case):
    with np.load(METHODS / f"cdpruner__{case}.npz") as stored:
        ids, mask = segments(stored["text_ids"][0].tolist(), 77)
        assert ids.tolist() == stored["segment_ids"].tolist()
        assert mask.tolist() == stored["segment_mask"].astype(bool).tolist()


@pytest.mark.parametrize("case", ["tower_land", "tower_port"])
def test_patches_are_those_of_the_released_code(whole, case):
    tower = whole[0].get_vision_tower()
    with np.load(METHODS / f"cdpruner__{case}.npz") as stored:
        hidden, weight, expected = (
            torch.tensor(stored[name]) for name in ("hidden", "visual_projection", "image_embeds")
        )
    clip = ClipText.load(CheckpointFiles(str(whole[0].text_tools.clip_source.name)), CPU)
    clip._projection = weight
    found = clip.patches(tower, hidden[:, 1:])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_patches_go_through_the_towers_last_norm_and_clips_projection(whole):
    model, clip = whole
    tower = model.get_vision_tower()
    hidden = torch.randn(2, 5, 32)
    with torch.no_grad():
        expected = clip.visual_projection(clip.vision_model.post_layernorm(hidden))
    torch.testing.assert_close(model.text_tools.clip_patches(tower, hidden), expected)
    assert not any("text_model" in name or "projection" in name for name in model.state_dict())


def test_nothing_of_clip_is_read_before_a_method_asks(whole):
    tools = whole[0].text_tools
    needs, tower = frozenset({"question", "embed_words"}), whole[0].get_vision_tower()
    tools.check(needs, tower)
    assert tools._clip is None
    tools.check(needs | {"clip_text"}, tower)
    assert tools._clip is not None


def test_the_tokenizer_may_be_one_file(whole, v15):
    folder = v15.parent / "tiny-clip"
    model = {"vocab": json.loads((folder / "vocab.json").read_text()), "merges": MERGES}
    (folder / "vocab.json").unlink()
    (folder / "tokenizer.json").write_text(json.dumps({"model": model}))
    other = ClipText.load(CheckpointFiles(str(folder)), CPU)
    expected = whole[0].text_tools.clip_text("a cat")
    torch.testing.assert_close(other.text("a cat"), expected)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "vocab.json").unlink(), "lacks vocab.json with merges.txt"),
        (lambda folder: (folder / "model.safetensors").unlink(), "lacks weights: .* holds no"),
        (lambda folder: (folder / "config.json").unlink(), "lacks text_config in config.json"),
    ],
    ids=["no tokenizer", "no weights", "no configuration"],
)
def test_a_repository_that_lacks_a_part_is_named_with_the_part(whole, v15, spoil, message):
    folder = v15.parent / "tiny-clip"
    spoil(folder)
    with pytest.raises(ValueError, match=f"need CLIP's text encoder; .*tiny-clip {message}"):
        whole[0].text_tools.check(frozenset({"clip_text"}), whole[0].get_vision_tower())


def test_a_text_encoder_that_does_not_fit_its_configuration_is_refused(whole, v15):
    path = v15.parent / "tiny-clip" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["num_hidden_layers"] = 3
    path.write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match="CLIP's text encoder in .*tiny-clip is damaged: .*issing"
    ):
        whole[0].text_tools.clip_text("cat")


def test_a_tower_of_the_vision_half_alone_is_refused_by_name():
    _, model, _, _ = loaded("checkpoints/tiny-llava-v1.5")
    with pytest.raises(
        ValueError, match=f"text encoder; .*{CLIP.name} lacks visual_projection.weight"
    ):
        model.text_tools.check(frozenset({"clip_patches"}), model.get_vision_tower())


@pytest.mark.parametrize(("side", "expected"), [(336, "-336"), (224, ""), (56, None)])
@pytest.mark.parametrize("model_type", ["llava", "llava_next"])
def test_transformers_layout_takes_the_text_encoder_of_the_tower_of_its_shape(
    tmp_path, side, expected, model_type
):
    vision = {"hidden_size": 1024, "image_size": side, "num_hidden_layers": 24, "patch_size": 14}
    raw = {
        "model_type": model_type,
        "text_config": {"hidden_size": 8, "model_type": "llama"},
        "vision_config": vision,
        "image_grid_pinpoints": [[336, 672]],
    }
    (tmp_path / "config.json").write_text(json.dumps(raw))
    files = CheckpointFiles(str(tmp_path), cache_dir="here", local_files_only=True)
    source = _clip_source(files, read_config(files))
    if expected is None:
        assert source is None
        return
    name = f"openai/clip-vit-large-patch14{expected}"
    assert source == CheckpointFiles(name, None, "here", local_files_only=True)


def test_a_checkpoint_written_from_another_names_the_same_tower(whole, v15):
    tokenizer, model, _, _ = load_pretrained_model(v15, device="cpu")
    write_checkpoint(model, tokenizer, v15.parent / "written")
    again = load_pretrained_model(v15.parent / "written", device="cpu")[1]
    expected = model.text_tools.clip_text("a cat")
    assert torch.equal(again.text_tools.clip_text("a cat"), expected)


def test_a_tower_that_is_not_clips_is_refused_by_name():
    tower = object.__new__(Dinov2VisionTower)
    tools = TextTools(loaded("checkpoints/tiny-llava-v1.5")[0])
    expected = "need a CLIP vision tower with its text encoder; Dinov2VisionTower has none"
    for ask in (
        lambda: tools.check(frozenset({"clip_text"}), tower),
        lambda: tools.clip_patches(tower, torch.zeros(1, 2)),
    ):
        with pytest.raises(ValueError, match=expected):
            ask()
    with pytest.raises(ValueError, match="set model.text_tools.clip_source"):
        tools.clip_text("cat")


@pytest.mark.parametrize("template", conv_templates)
@pytest.mark.parametrize("question", ["What is in this image?", "Two lines:\nA. 2\nB. 3"])
def test_the_question_is_what_was_asked_whatever_the_template(template, question):
    tokenizer = loaded("checkpoints/tiny-llava-v1.5")[0]
    tools = TextTools(tokenizer)
    conversation = conv_templates[template].copy()
    conversation.append_message(conversation.roles[0], f"<image>\n{question}")
    conversation.append_message(conversation.roles[1], None)
    ids = tokenizer_image_token(conversation.get_prompt(), tokenizer, return_tensors="pt")
    after = ids[int((ids == IMAGE_TOKEN_INDEX).nonzero()[-1, 0]) + 1 :]
    assert tools.question(ids) == question
    assert tools.question(after) == question


def test_a_question_after_two_images_is_what_follows_the_last():
    tokenizer = loaded("checkpoints/tiny-llava-v1.5")[0]
    ids = tokenizer_image_token(f"{QUESTION} {QUESTION} ASSISTANT:", tokenizer, return_tensors="pt")
    assert TextTools(tokenizer).question(ids) == "What is in this image?"


def test_words_are_embedded_each_tokenised_alone():
    tokenizer, model, _, _ = loaded("checkpoints/tiny-llava-v1.5")
    embed = model.model.embed_tokens
    for entry in json.loads((METHODS / "mmtok__text_and_padding.json").read_text())["questions"]:
        words = entry["text"].split()
        found = model.text_tools.embed_words(words, embed)
        expected = torch.tensor(entry["ids"] or [], dtype=torch.long)
        assert torch.equal(found, embed(expected))
