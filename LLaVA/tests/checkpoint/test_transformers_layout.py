"""The same weights in transformers' own LLaVA and here, through the checkpoint that it writes."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

from helpers import PARITY, V15, largest
from llava.checkpoint import CheckpointError
from llava.mm_utils import process_images
from llava.model.builder import load_pretrained_model
from otprune.pruning import make_pruning

IMAGE = 630
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
TEXT = {
    "vocab_size": 640,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "projection_dim": 16,
}
PREPROCESSOR = {
    "crop_size": {"height": 56, "width": 56},
    "size": {"shortest_edge": 56},
    "do_center_crop": True,
    "image_processor_type": "CLIPImageProcessor",
}


def theirs(kind: str):
    torch.manual_seed(3)
    shape = {
        "text_config": LlamaConfig(**TEXT),
        "vision_config": CLIPVisionConfig(**VISION),
        "image_token_index": IMAGE,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
    }
    if kind == "llava":
        model = LlavaForConditionalGeneration(LlavaConfig(**shape, image_seq_length=16))
    else:
        model = LlavaNextForConditionalGeneration(
            LlavaNextConfig(**shape, image_grid_pinpoints=PINPOINTS)
        )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)  # at the usual scale all logits are nearly equal
    return model.eval()


@pytest.fixture(params=["llava", "llava_next"])
def kind(request):
    return request.param


@pytest.fixture
def folder(kind, tmp_path):
    theirs(kind).save_pretrained(tmp_path)
    shutil.copy(V15 / "tokenizer.model", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return tmp_path


def pictures():
    return [Image.open(PARITY / "images" / name) for name in ("land.png", "wide.png")]


def inputs_of(kind: str, model, processor):
    """Prompts of one and of no image for both models; ours has one id where theirs has all."""
    images = pictures()
    pixels = process_images(images, processor, model.config)
    sizes = [image.size for image in images]
    visual = model.encode_visual(pixels, sizes)
    rows = [[1, 5, 6, None, 7, 8], [1, 9, None, 10]]
    ours, long = [], []
    for row, image in zip(rows, visual, strict=True):
        ours.append([-200 if token is None else token for token in row])
        long.append(
            [t for token in row for t in ([IMAGE] * len(image) if token is None else [token])]
        )
    return ours, long, pixels, sizes


@torch.no_grad()
def test_logits_and_answers_are_those_of_transformers(kind, folder):
    _, model, processor, _ = load_pretrained_model(folder, device="cpu")
    reference = theirs(kind)
    ours, long, pixels, sizes = inputs_of(kind, model, processor)
    for row in range(2):
        more = {}
        if kind == "llava_next":
            more = {"image_sizes": torch.tensor([sizes[row][::-1]])}  # height first
        want = reference(
            input_ids=torch.tensor([long[row]]), pixel_values=pixels[row][None], **more
        ).logits
        got = model(
            torch.tensor([ours[row]]), images=pixels[row][None], image_sizes=sizes[row : row + 1]
        ).logits
        assert got.shape == want.shape
        assert largest(got - want) <= 1e-5
        assert float(want.std()) > 0.5
        tokens = reference.generate(
            input_ids=torch.tensor([long[row]]), pixel_values=pixels[row][None], **more,
            max_new_tokens=8, do_sample=False,
        )[:, len(long[row]):]  # fmt: skip
        mine = model.generate(
            torch.tensor([ours[row]]), images=pixels[row][None], image_sizes=sizes[row : row + 1],
            max_new_tokens=8, do_sample=False,
        )  # fmt: skip
        assert torch.equal(mine, tokens)


@torch.no_grad()
def test_pruning_is_dropping_the_rows_from_transformers_own_embeddings(kind, folder):
    _, model, processor, _ = load_pretrained_model(folder, device="cpu")
    reference = theirs(kind)
    ours, long, pixels, sizes = inputs_of(kind, model, processor)
    visual = model.encode_visual(pixels, sizes)[0]
    pruning = make_pruning("otprune", k=5)
    kept = pruning.before.select(visual.tokens, 5)
    embeds = reference.get_input_embeddings()(torch.tensor([long[0]]))
    at = torch.tensor(long[0]) == IMAGE
    embeds[0, at] = visual.tokens
    stays = torch.ones(len(at), dtype=torch.bool)
    stays[at.nonzero()[:, 0]] = False
    stays[at.nonzero()[kept, 0]] = True
    want = reference.model.language_model(inputs_embeds=embeds[:, stays]).last_hidden_state
    got = model(torch.tensor([ours[0]]), visual=[visual], pruning=pruning).logits
    assert largest(got - reference.lm_head(want)) <= 1e-5


def test_rows_that_end_early_are_filled_with_what_can_be_decoded(kind, folder):
    # llava-hf's padding is an added token, beyond the pieces of tokenizer.model.
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 639}))
    tokenizer, model, processor, _ = load_pretrained_model(folder, device="cpu")
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id == 0
    rows = torch.randint(3, 600, (8, 5), generator=torch.Generator().manual_seed(0))
    first = model.generate(rows, max_new_tokens=1)[:, 0].tolist()
    answer = model.generate(rows, max_new_tokens=4, eos_token_id=[first[0]])
    assert answer[0].tolist() == [first[0], 0, 0, 0]
    assert len(set(first)) > 1
    assert len(tokenizer.batch_decode(answer, skip_special_tokens=True)) == 8


def old_names(name: str) -> str:
    """What transformers before 4.52 called a weight on disk."""
    name = name.removeprefix("model.")
    if name.startswith("language_model."):
        name = name.replace("language_model.", "language_model.model.", 1)
    if name.startswith("lm_head"):
        name = "language_model." + name
    if name.startswith("vision_tower.") and "vision_model" not in name:
        name = name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return name


def new_names(name: str) -> str:
    """What transformers since 4.52 calls a weight in memory."""
    if name.startswith("language_model.model."):
        return "model.language_model." + name.removeprefix("language_model.model.")
    if name.startswith("language_model.lm_head"):
        return name.removeprefix("language_model.")
    return name if name.startswith(("model.", "lm_head")) else "model." + name


@pytest.mark.parametrize("rename", [old_names, new_names])
def test_names_of_every_generation_are_known(folder, rename):
    want = load_pretrained_model(folder, device="cpu")[1].state_dict()
    weights = load_file(folder / "model.safetensors")
    plain = {new_names(name): tensor for name, tensor in weights.items()}
    save_file({rename(name): t for name, t in plain.items()}, folder / "model.safetensors")
    got = load_pretrained_model(folder, device="cpu")[1].state_dict()
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_the_same_model_in_both_layouts_sees_images_alike(kind, folder):
    config = load_pretrained_model(folder, device="cpu")[1].config
    if kind == "llava":
        assert (config.image_aspect_ratio, config.mm_patch_merge_type) == ("pad", "flat")
    else:
        assert (config.image_aspect_ratio, config.mm_patch_merge_type) == (
            "anyres",
            "spatial_unpad",
        )
        # Width first, in the original's order, which decides ties.
        assert config.image_grid_pinpoints == PINPOINTS


@pytest.mark.parametrize("pinpoints", [[[56, 112], [56, 168]], [[112, 56]]])
def test_one_sided_resolutions_are_turned_to_width_first(tmp_path, pinpoints):
    theirs("llava_next").save_pretrained(tmp_path)
    shutil.copy(V15 / "tokenizer.model", tmp_path)
    change(tmp_path, image_grid_pinpoints=pinpoints)
    config = load_pretrained_model(tmp_path, device="cpu")[1].config
    assert config.image_grid_pinpoints == [[width, height] for height, width in pinpoints]


def change(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model_type": "llava_onevision"},
            "is of model_type 'llava_onevision' .*not supported",
        ),
        ({"text_config": {"model_type": "mistral"}}, "a language model of type 'mistral'"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act must be 'gelu', got 'relu'"),
        ({"vision_feature_layer": [-2, -3]}, r"vision features of layer \[-2, -3\]"),
        ({"vision_feature_select_strategy": "mean"}, "strategy 'mean' are not known"),
        ({"vision_config": None}, "vision_config must be an object, got None"),
    ],
)
def test_other_models_of_this_layout_are_refused(tmp_path, fields, message):
    theirs("llava").save_pretrained(tmp_path)
    shutil.copy(V15 / "tokenizer.model", tmp_path)
    change(tmp_path, **fields)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained_model(tmp_path, device="cpu")
