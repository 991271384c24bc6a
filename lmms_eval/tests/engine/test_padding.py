"""Which patches are padding, as a method is told on every way to it."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from helpers import picture, request, tiny
from llava.chat import ask
from llava.images.padding import padding_patches
from otprune import PRUNERS, Selector
from otprune_lmms.engine import Engine
from otprune_lmms.experiments.diagnostics.one_image import measure_image
from otprune_lmms.pruning_config import PruningConfig

SEEN: list = []


@dataclass(frozen=True, slots=True)
class Unpadded(Selector):
    """Keeps what is no padding, and tells what it was told."""

    nested: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    def _rank_image(self, tokens, k, signals):
        SEEN.append(signals.padding.cpu())
        return torch.cat([(~signals.padding).nonzero(), signals.padding.nonzero()])[:k, 0]


@pytest.fixture(autouse=True)
def unpadded(monkeypatch):
    monkeypatch.setitem(PRUNERS, "unpadded", Unpadded)
    SEEN.clear()


def marked(model, name="land.png"):
    (image,) = model.encode([model.preprocess(picture(name))], frozenset())
    assert image.signals.padding.any()
    return image.signals.padding


@pytest.mark.parametrize("layer", [0, 2])
def test_the_engine_tells_it_alone_in_a_batch_and_at_a_layer(layer):
    model = tiny()
    config = PruningConfig.make("unpadded", 0.5, layer=layer)
    requests = [request(0), request(1, pictures=("port.png",))]
    for size in (1, 3):
        SEEN.clear()
        engine = Engine(model, model_name="tiny", batch_size=size, workers=0, progress=False)
        engine.run(requests, [config])
        wanted = [marked(model), marked(model, "port.png")]
        assert len(SEEN) >= 2
        assert all(any(torch.equal(one, other) for one in SEEN) for other in wanted)
        assert all(any(torch.equal(one, other) for other in wanted) for one in SEEN)


def test_chat_and_prune_tell_it_too():
    model = tiny()
    loaded = (model.tokenizer, model.model, model.image_processor, 2048)
    ask(loaded, "What is it?", picture("land.png"), pruning="unpadded", max_new_tokens=1)
    measure_image(model, picture("land.png"), [PruningConfig.make("unpadded", 0.5)], exact=False)
    assert len(SEEN) >= 2
    assert all(torch.equal(one, marked(model)) for one in SEEN)


def test_an_image_made_as_the_request_asks_has_the_padding_of_that():
    """Where the checkpoint does not say how images are made, lmms-eval's request may."""
    model = tiny()
    whole = model.preprocess(picture("land.png"), view="square")
    padded = model.preprocess(picture("land.png"), view="pad")
    assert (whole.view, padded.view) == ("square", "pad")
    nothing, some = model.encode([whole, padded], frozenset())
    assert not nothing.signals.padding.any()
    assert torch.equal(some.signals.padding, marked(model))
    config = SimpleNamespace(image_aspect_ratio=None)
    processor, size = model.image_processor, (640, 300)
    assert not padding_patches(config, processor, size, 1, 14).any()
    assert padding_patches(config, processor, size, 1, 14, "pad").any()
