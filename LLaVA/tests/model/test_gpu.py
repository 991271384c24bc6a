"""The same answers on a GPU. Skipped where there is none."""

import importlib.util

import pytest
import torch
from PIL import Image

from helpers import PARITY, V15, V16, largest, loaded, padded
from llava.mm_utils import process_images
from llava.model.builder import load_pretrained_model
from otprune import make_pruner
from otprune.pruning import Pruning, Stage, Trace, make_pruning

pytestmark = pytest.mark.gpu

ROWS = [[1, 20, 21, -200, 30, 31, 32], [1, -200, 40], [1, 50, 51, 52]]
SETTINGS = {
    "unpruned": None,
    "otprune": make_pruning("otprune", keep_ratio=0.098),
    "original positions": make_pruning("otprune", keep_ratio=0.098, positions="original"),
    "inside": make_pruning("otprune", keep_ratio=0.05, layer=2),
    "inside, compact": make_pruning("divprune", keep_ratio=0.05, layer=1, positions="compact"),
    "both": Pruning(
        (Stage(make_pruner("otprune"), k=90), Stage(make_pruner("divprune"), k=20, layer=3))
    ),
}


def request(processor, config, rows=ROWS):
    pictures = [Image.open(PARITY / "images" / f"{name}.png") for name in ("land", "square")]
    batch = padded([torch.tensor(row) for row in rows])
    return {name: tensor.cuda() for name, tensor in batch.items()} | {
        # Pixels stay on the CPU: where they belong is the model's business.
        "images": process_images(pictures, processor, config),
        "image_sizes": [picture.size for picture in pictures],
    }


@pytest.mark.parametrize("checkpoint", [V15, V16], ids=lambda path: path.name)
@pytest.mark.parametrize("setting", SETTINGS)
def test_float32_answers_as_on_the_cpu(checkpoint, setting):
    torch.backends.cuda.matmul.allow_tf32 = False
    _, model, processor, _ = load_pretrained_model(checkpoint, torch_dtype="float32")
    assert model.device.type == "cuda"
    other = loaded(f"checkpoints/{checkpoint.name}")[1]
    batch = request(processor, model.config)
    here = {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    traces = Trace(), Trace()
    with torch.no_grad():
        logits = model(**batch, pruning=SETTINGS[setting], trace=traces[0]).logits
        want = other(**here, pruning=SETTINGS[setting], trace=traces[1]).logits
    for layer, images in traces[1].kept.items():
        for mine, theirs in zip(traces[0].kept[layer], images, strict=True):
            assert len(set(mine.tolist()) & set(theirs.tolist())) >= len(theirs) - 1
    same = all(
        torch.equal(a, b)
        for layer in traces[1].kept
        for a, b in zip(traces[0].kept[layer], traces[1].kept[layer], strict=True)
    )
    if same:
        for row, length in enumerate(traces[1].lengths[-1]):
            assert largest(logits[row, :length].cpu() - want[row, :length]) <= 1e-3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash_attention_2"])
def test_half_precision_generates(dtype, setting, attention):
    if attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        pytest.skip("flash-attn is not installed")
    _, model, processor, _ = load_pretrained_model(
        V16, torch_dtype=dtype, attn_implementation=attention
    )
    batch = request(processor, model.config)
    for beams in (1, 2):
        answer = model.generate(
            **batch, pruning=SETTINGS[setting], max_new_tokens=5, num_beams=beams
        )
        assert answer.device.type == "cuda"
        assert answer.shape[0] == 3


def test_the_default_dtype_on_a_gpu_is_half():
    model = load_pretrained_model(V15)[1]
    assert model.dtype == torch.float16
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_model_spread_over_two_gpus_answers_as_on_one(setting):
    one = load_pretrained_model(V15, device="cuda:0", torch_dtype="float32")[1]
    places = {
        name: 0 for name in ("model.embed_tokens", "model.vision_tower", "model.mm_projector")
    }
    places |= {"model.rotary_emb": 0, "model.norm": 1, "lm_head": 1}
    places |= {f"model.layers.{i}": int(i > 1) for i in range(4)}
    _, two, processor, _ = load_pretrained_model(V15, device_map=places, torch_dtype="float32")
    batch = request(processor, one.config)
    answers = [
        model.generate(**batch, pruning=SETTINGS[setting], max_new_tokens=5) for model in (one, two)
    ]
    assert torch.equal(*answers)
