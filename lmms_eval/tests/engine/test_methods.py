"""Every method of the package under the engine: what it plans is what is left, and answers last."""

import pytest

from helpers import loaded, request
from otprune import PRUNERS
from otprune.hf.layers import decoder_shape
from otprune.registry import LAYER_PRUNERS
from otprune_lmms.engine import Engine
from otprune_lmms.pruning_config import Cell

OWN = {
    "cdpruner": {"relevance": "llm"},
    "transprune": {"observe_from": 0, "observe_to": 0},
    "vtw": {"schedule": "2:0"},
    "tops": {"schedule": "0:0.5/1:0.25/3:0.125"},
    "dart": {"schedule": "1:0.25"},
}
"""Settings for a model of four layers without CLIP's text tower."""


def cell_of(method: str) -> Cell:
    given = OWN.get(method, {})
    if method not in LAYER_PRUNERS:
        return Cell.make(method, 0.25, **given)
    return Cell.make(method, **{"schedule": "1:0.5/2:0.25", **given})


CELLS = [cell_of(method) for method in sorted(PRUNERS)]
BUDGETED = [
    Cell.make("otprune", 0.75, layer=2, match="average"),
    Cell.make("tome", 0.5, match="flops"),
    Cell.make("fastv", 0.5, schedule="1:0.5"),
    Cell.make("sparsevlm", 0.5, schedule="1:0.5/2:0.25"),
    Cell.make("transprune", k=288, schedule="1:0.5/2:0.25", observe_from=0, observe_to=0),
]


def asked():
    """Two pictures, two of them at once, and none."""
    return [
        request(0, "What is it?", generation={"max_new_tokens": 3}),
        request(1, "How many are there?", ("port.png",), generation={"max_new_tokens": 3}),
        request(2, "Which one?", ("port.png", "land.png"), generation={"max_new_tokens": 3}),
        request(3, "What is two and two?", (), generation={"max_new_tokens": 3}),
    ]


def run(cells, **settings):
    engine = Engine(loaded(), model_name="tiny", workers=0, progress=False, **settings)
    return engine.run(asked(), cells)


@pytest.fixture(scope="module")
def batched():
    return run([*CELLS, *BUDGETED], batch_size=4)


@pytest.mark.parametrize("cell", [*CELLS, *BUDGETED], ids=lambda cell: cell.label)
def test_what_is_planned_is_what_is_left(cell, batched):
    pruning = cell.pruning()
    assert pruning is not None
    (*_, planned) = pruning.tokens_by_layer(576, decoder_shape(loaded()[1].config))
    for one in asked():
        answer = batched[cell, one]
        if pruning.pruner is None and pruning.before is not None:
            # A merger may need fewer tokens than it may have.
            assert all(0 < count <= planned for count in answer.kept)
        else:
            assert set(answer.kept) <= {planned}
        assert len(answer.kept) == len(one.images())
        assert answer.new_tokens > 0


@pytest.mark.parametrize("cell", [*CELLS, *BUDGETED], ids=lambda cell: cell.label)
def test_company_decides_nothing(cell, batched):
    alone = run([cell], batch_size=1)
    for one in asked():
        found, wanted = batched[cell, one], alone[cell, one]
        assert (found.text, found.kept) == (wanted.text, wanted.kept)


def test_later_runs_get_the_signals_that_they_need():
    engine = Engine(loaded(), model_name="tiny", workers=0, progress=False)
    plain, needs = Cell.make("otprune", 0.25), Cell.make("fastervlm", 0.25)
    engine.run(asked(), [plain])
    answers = engine.run(asked(), [needs])
    assert answers.counts.encoded == 2
    assert engine.run(asked(), [Cell.make("otprune", 0.2)]).counts.encoded == 0


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (Cell.make("fastv", schedule="7:0.5"), "layer must be in 0..3"),
        (Cell.make("otprune", 0.5, layer=4), "layer must be in 0..3"),
        (Cell.make("fastv", 0.1, schedule="2:0.5"), "the budget is out of reach"),
        (Cell.make("cdpruner", 0.5), "clip"),
    ],
)
def test_what_the_model_cannot_do_is_one_error_before_the_first_answer(cell, message):
    with pytest.raises(ValueError, match=message):
        run([Cell(), cell])
