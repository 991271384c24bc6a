"""Pruning a trained model: what is kept does not depend on what is set around the call."""

import functools
from contextlib import contextmanager

import pytest
import torch
from PIL import Image

from helpers import PARITY
from llava.chat import make_prompt
from llava.images import process_images
from llava.mm_utils import tokenizer_image_token
from llava.model.builder import load_pretrained_model
from otprune import LayerPruner, Selector
from otprune.merger import Merger
from otprune.pruning import Trace, make_pruning
from otprune.registry import LAYER_PRUNERS

SETTINGS = {
    **{name: {"keep_ratio": 0.5} for name in ("otprune", "cdpruner", "mmtok", "scope", "holov")},
    **{name: {"keep_ratio": 0.5} for name in ("visionzip", "tome", "pooling")},
    **{name: {"schedule": "2:0.5/5:0.25"} for name in LAYER_PRUNERS},
    "herding at layer 3": {"keep_ratio": 0.25, "layer": 3},
    "cdpruner": {"keep_ratio": 0.5, "relevance": "llm"},
    "transprune": {"schedule": "4:0.5/6:0.25", "observe_from": 1, "observe_to": 5},
    "tops": {"schedule": "0:0.5/2:0.25/5:0.125"},
    "vtw": {"schedule": "4:0"},
    "dart": {"schedule": "2:0.25"},
}

SHORT = ("otprune", "visionzip", "fastv", "sparsevlm", "herding at layer 3")


@functools.cache
def model_and_request():
    """llava-mini, and two prompts with an image each, the second one padded."""
    tokenizer, model, processor, _ = load_pretrained_model("llava-mini", device="cpu")
    names, questions = ("land.png", "port.png"), ("Is there a red circle in the image?", "What?")
    images = [Image.open(PARITY / "images" / name).convert("RGB") for name in names]
    prompts = [make_prompt(question, 1) for question in questions]
    rows = [torch.tensor(tokenizer_image_token(prompt, tokenizer)) for prompt in prompts]
    longest = max(map(len, rows))
    ids = torch.full((2, longest), tokenizer.pad_token_id or 0)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :], mask[i, longest - len(row) :] = row, 1
    pixels = process_images(images, processor, model.config)
    given = {"input_ids": ids, "attention_mask": mask, "images": pixels}
    return model, {**given, "image_sizes": [image.size for image in images]}


def pruning_of(setting):
    return make_pruning(setting.split()[0], **SETTINGS[setting])


def kept(setting):
    model, request = model_and_request()
    trace = Trace()
    with torch.no_grad():
        logits = model(**request, pruning=pruning_of(setting), trace=trace, use_cache=False).logits
    picks = {layer: [one.tolist() for one in images] for layer, images in trace.kept.items()}
    return picks, trace.lengths, logits


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


EVERY = [
    pytest.param(setting, marks=[pytest.mark.long] * (setting not in SHORT)) for setting in SETTINGS
]


@functools.cache
def usual(setting):
    return kept(setting)


@pytest.mark.parametrize("setting", EVERY)
def test_the_same_tokens_are_kept_whatever_is_set_around_the_model(setting):
    want = usual(setting)
    with (
        default_dtype(torch.float64),
        deterministic(),
        torch.inference_mode(),
        torch.device("meta"),
    ):
        found = kept(setting)
    assert found[:2] == want[:2]
    assert torch.equal(found[2], want[2])


@pytest.mark.parametrize("setting", ["otprune", "fastv"])
def test_answers_do_not_depend_on_the_default_device(setting):
    model, request = model_and_request()
    given = {"inputs": request["input_ids"], **request}
    del given["input_ids"]
    ask = functools.partial(model.generate, **given, max_new_tokens=4, do_sample=False)
    want = ask(pruning=pruning_of(setting))
    with torch.device("meta"):
        assert torch.equal(ask(pruning=pruning_of(setting)), want)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("setting", EVERY)
def test_under_autocast_each_choice_is_that_of_the_same_states_without_it(
    setting, precision, monkeypatch
):
    """The model's states are others under autocast; of equal states the choice is the same."""
    _, lengths, _ = usual(setting)
    calls = []

    def twice(kind, name):
        method = getattr(kind, name)

        def call(self, *arguments, **more):
            found = method(self, *arguments, **more)
            with torch.autocast("cpu", enabled=False):
                again = method(self, *arguments, **more)
            calls.append((found, again))
            return found

        monkeypatch.setattr(kind, name, call)

    twice(LayerPruner, "prune")
    twice(Selector, "select_batch")
    twice(Merger, "merge")
    with torch.autocast("cpu", precision):
        picks, found_lengths, logits = kept(setting)
    assert logits.dtype == precision, "the model itself ran under autocast"
    assert logits.isfinite().all()
    assert calls
    for found, again in calls:
        for one, other in zip(tensors(found), tensors(again), strict=True):
            assert one is other is None or torch.equal(one, other)
    assert found_lengths == lengths
    assert picks


def tensors(result):
    if isinstance(result, list):
        return result
    return [getattr(result, name) for name in result.__dataclass_fields__]
