"""A model whose logits are not finite gives no answers: the error names document and setting."""

import math
from contextlib import contextmanager

import pytest
import torch

from helpers import loaded, request, tiny
from otprune_lmms.engine import Engine, RequestError
from otprune_lmms.journal import Journal
from otprune_lmms.models.generation import FiniteLogits
from otprune_lmms.pruning_config import PruningConfig

PLACES = {
    "output": lambda model: model.lm_head.weight,
    "decoder": lambda model: model.model.layers[1].mlp.up_proj.weight,
    "projector": lambda model: model.model.mm_projector[0].weight,
    "tower": lambda model: next(model.get_vision_tower().parameters()),
}


@contextmanager
def damaged(place: str, value: float = math.inf):
    """The tiny model with one other weight."""
    weight = PLACES[place](loaded()[1])
    first = (0,) * weight.ndim
    before = weight[first].item()
    with torch.no_grad():
        weight[first] = value
        try:
            yield tiny()
        finally:
            weight[first] = before


def run(model, config=None, journal=None, **changes):
    asked = [request(4, **changes), request(7, "Is it a dog?", **changes)]
    engine = Engine(model, model_name="tiny", workers=0, progress=False, journal=journal)
    return engine.run(asked, [config or PruningConfig()])


@pytest.mark.parametrize(
    ("place", "kind", "method"),
    [
        ("output", "generate", None),
        ("output", "loglikelihood", None),
        ("tower", "generate", None),
        ("projector", "loglikelihood", "uniform"),
        ("decoder", "generate", "uniform"),
        ("tower", "generate", "otprune"),
    ],
)
def test_one_infinite_weight_is_an_error_with_document_and_setting(place, kind, method, tmp_path):
    config = PruningConfig.make(method, method and 0.1)
    given = {"kind": kind, "continuation": "yes" if kind == "loglikelihood" else None}
    said = rf"document [47] of task \(test\), under {config.label}: .*finite"
    with damaged(place) as model, Journal(tmp_path) as journal:
        with pytest.raises(RequestError, match=said):
            run(model, config, journal, **given)
        assert len(journal) == 0


@pytest.mark.parametrize("generation", [{"temperature": 1.0}, {"num_beams": 2}])
def test_neither_drawn_answers_nor_beams_come_of_nan(generation):
    with damaged("decoder", math.nan) as model, pytest.raises(RequestError, match="finite"):
        run(model, generation=generation)


def test_the_row_that_is_not_finite_is_named_among_those_of_its_batch():
    watch = FiniteLogits()
    model = torch.nn.Linear(1, 1)
    model.forward = lambda logits: type("Output", (), {"logits": logits})
    good, bad = [0.0, 1.0], [0.0, -math.inf]
    with watch.watching(model):
        for step in ([good, good, good], [good, bad, good], [good, good, bad]):
            model(torch.tensor(step)[:, None])
    # The first answer ends before the third step, the last one before its padding.
    assert watch.rows([2, 2, 1]) == [True, False, True]
    assert watch.rows([2, 2, 2]) == [True, False, False]
    assert watch(torch.zeros(3, 1), torch.ones(3, 2)).tolist() == [[1, 1], [1, 1], [0, 0]]
