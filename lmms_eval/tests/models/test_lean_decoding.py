"""Answers of the embedded models, decoded with less around the arithmetic and without."""

import functools
from contextlib import nullcontext
from unittest import mock

import pytest
import torch

from helpers import crop
from otprune.hf.decoding import LeanDecoder
from otprune.pruning import Trace, make_pruning
from otprune_lmms.models import ModelSource, load_model
from otprune_lmms.models.generation import Endings, StopAt, after_each_forward
from otprune_lmms.models.protocol import Generation, ModelInput

MINIS = ("llava-mini", "qwen-mini")
QUESTIONS = (
    "Provide a one-sentence caption for the provided image.",
    "Is there a snowboard in the image?\nAnswer the question using a single word or phrase.",
    "What is the color of the large car on the left of the person?",
    "What is this?",
)
PRUNINGS = {
    "unpruned": None,
    "selector": ("otprune", {"keep_ratio": 0.1}),
    "selector inside": ("divprune", {"k": 20, "layer": 3}),
    "layer pruner": ("pyramiddrop", {"schedule": "2:0.5/4:0.25", "positions": "original"}),
    "layer pruner, compact": ("fastv", {"schedule": "2:0.2", "positions": "compact"}),
}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


@functools.cache
def mini(name: str):
    return load_model(ModelSource(name, device="cpu"))


@functools.cache
def asked(name: str, rows: int) -> list[ModelInput]:
    """Return questions of unequal length about images of unequal size, two about the first."""
    model = mini(name)
    pixels = [model.preprocess(crop(max(0, row - 1))) for row in range(max(1, rows - 1))]
    visual = model.encode(pixels, frozenset())
    made = []
    for row in range(rows):
        image = visual[max(0, row - 1)]
        context = QUESTIONS[row % len(QUESTIONS)]
        ids = model.token_ids(model.render(context, 1, {}), [image])
        made.append(ModelInput(ids, (image,), (max(0, row - 1),)))
    return made


def written(name, rows, pruning, *, lean, tokens=14, until=("\n\n",), share=False):
    model = mini(name)
    given = asked(name, rows)
    off = mock.patch.object(LeanDecoder, "installed", return_value=nullcontext())
    logits, before = [], model._lean.steps
    see = model.model.register_forward_hook(lambda *all_: logits.append(all_[2].logits[:, -1]))
    with nullcontext() if lean else off:
        found = model.generate(
            given,
            pruning,
            Generation(max_new_tokens=tokens, until=until),
            Trace(),
            share_prefix=share,
        )
    see.remove()
    assert (model._lean.steps > before) == (lean and tokens > 1)
    return found, logits


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("pruning", PRUNINGS)
@pytest.mark.parametrize("name", MINIS)
def test_answers_and_logits_are_equal_bit_for_bit(name, pruning, rows):
    given = PRUNINGS[pruning]
    if name == "qwen-mini" and pruning.endswith("compact"):
        pytest.skip("positions with several axes are original")
    made = None if given is None else make_pruning(given[0], **given[1])
    share = rows > 1 and (made is None or made.decided_by_images)
    for shared in {False, share}:
        expected, logits = written(name, rows, made, lean=False, share=shared)
        found, again = written(name, rows, made, lean=True, share=shared)
        assert found == expected
        assert all(map(torch.equal, again, logits))
        assert len(again) == len(logits)


@pytest.mark.parametrize("name", MINIS)
def test_one_token_needs_no_step(name):
    expected, _ = written(name, 2, None, lean=False, tokens=1)
    assert written(name, 2, None, lean=True, tokens=1)[0] == expected


@pytest.mark.parametrize("name", MINIS)
def test_a_stop_text_ends_an_answer_at_the_same_step(name):
    whole, _ = written(name, 3, None, lean=True)
    word = max(whole[0].text.split()[1:4], key=len)
    expected, logits = written(name, 3, None, lean=False, until=(word,))
    found, again = written(name, 3, None, lean=True, until=(word,))
    assert found == expected
    assert len(again) == len(logits)
    assert expected[0].tokens < whole[0].tokens


@pytest.mark.parametrize("name", MINIS)
def test_every_step_is_a_call_that_a_timer_sees(name):
    calls = []
    with after_each_forward(mini(name).model, lambda: calls.append(None)):
        _, logits = written(name, 2, None, lean=True)
    assert len(calls) == len(logits) > 2


class Tokenizer:
    """Counts the rows that it decodes."""

    def __init__(self):
        self.decoded = 0

    def batch_decode(self, rows, skip_special_tokens):
        assert skip_special_tokens
        self.decoded += len(rows)
        return ["".join(chr(96 + one) for one in row if one) for row in rows]


def test_the_end_of_an_answer_is_decoded_once():
    tokenizer = Tokenizer()
    endings = Endings(tokenizer)
    ids = torch.tensor([[1, 2, 3], [0, 2, 3], [1, 2, 3]])
    assert endings.texts(ids) == ["abc", "bc", "abc"]
    assert tokenizer.decoded == 2
    assert endings.texts(ids[1:]) == ["bc", "abc"]
    assert StopAt(("c",), endings)(ids, torch.empty(0)).tolist() == [True, True, True]
    assert StopAt(("ab",), endings)(ids, torch.empty(0)).tolist() == [True, False, True]
    assert tokenizer.decoded == 2


def test_only_so_many_ends_are_remembered(monkeypatch):
    monkeypatch.setattr("otprune_lmms.models.generation._ENDINGS", 4)
    endings = Endings(Tokenizer())
    for first in range(1, 20):
        ids = torch.tensor([[first % 7 + 1, 2], [first % 5 + 1, 3], [4, 5]])
        plain = Tokenizer().batch_decode(ids.tolist(), skip_special_tokens=True)
        assert endings.texts(ids) == plain
        assert len(endings._known) <= 4
