"""lmms-eval's own ``llava`` wrapper, untouched, drives this package on a CPU."""

import copy
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from helpers import PARITY, V15, V16

lmms_eval = pytest.importorskip("lmms_eval.api.instance", reason="lmms-eval is not installed")

PROMPT = "What is in this image? Describe the picture briefly."
CASES = {
    V15: "g shoj n n n n n W n n n",
    V16: "n br\ufffd T opt answers opt answers opt answers opt answers",
}


@pytest.fixture(scope="module")
def Llava():  # noqa: N802 (the class's own name)
    import warnings

    with warnings.catch_warnings():
        # The module switches warnings off for the whole process.
        from lmms_eval.models.simple.llava import Llava
    return Llava


def wrapper(llava_class, checkpoint, documents, batch_size=1):
    llava = llava_class(
        pretrained=str(checkpoint), device="cpu", device_map="auto", batch_size=batch_size
    )
    llava.task_dict = {"task": {"test": documents}}
    return llava


def request(document: int, context: str, **generation):
    arguments = (
        context,
        copy.deepcopy(generation),
        lambda doc: [Image.open(PARITY / "images" / name).convert("RGB") for name in doc],
        document,
        "task",
        "test",
    )
    return SimpleNamespace(args=arguments)


@pytest.mark.parametrize("checkpoint", CASES, ids=lambda path: path.name)
def test_it_gives_the_recorded_answer(Llava, checkpoint):  # noqa: N803
    llava = wrapper(Llava, checkpoint, [["land.png"]])
    (answer,) = llava.generate_until([request(0, PROMPT, max_new_tokens=11)])
    # The wrapper rounds pixels to half precision, so a late token of a random model may differ.
    assert answer.split()[:4] == CASES[checkpoint].split()[:4]


def test_batches_several_images_and_texts_alone_go_through(Llava):  # noqa: N803
    documents = [["land.png"], ["port.png", "land.png"], [], ["square.png"]]
    questions = [PROMPT, "Which is larger?", "Say yes.", "Is there a dog? Answer yes or no."]
    alone = wrapper(Llava, V15, documents)
    want = [
        alone.generate_until([request(i, question, max_new_tokens=6)])[0]
        for i, question in enumerate(questions)
    ]
    several = wrapper(Llava, V15, documents, batch_size=2)
    requests = [request(i, questions[i], max_new_tokens=6) for i in (0, 1, 3)]
    assert several.generate_until(requests) == [want[0], want[1], want[3]]
    assert len(set(want)) > 1


def test_a_pruned_model_goes_through_it_too(Llava):  # noqa: N803
    from otprune.pruning import make_pruning

    llava = wrapper(Llava, V15, [["land.png"]])
    plain = llava.generate_until([request(0, PROMPT, max_new_tokens=6)])
    for pruning in (
        make_pruning("otprune", keep_ratio=0.098),
        make_pruning("otprune", keep_ratio=0.05, layer=2),
    ):
        llava.model.pruning = pruning
        assert llava.generate_until([request(0, PROMPT, max_new_tokens=6)]) != plain


def test_loglikelihoods_are_losses_of_the_answer(Llava):  # noqa: N803
    llava = wrapper(Llava, V15, [["land.png"]])
    context, _, visual, *rest = request(0, PROMPT).args
    requests = [SimpleNamespace(args=(context, word, visual, *rest)) for word in ("yes", "no", "A")]
    values = [value for value, _ in llava.loglikelihood(requests)]
    assert len(set(values)) == 3
    assert all(value > 0 for value in values)
    tokens = llava.tokenizer("yes").input_ids
    assert torch.tensor(tokens).numel() > 1
