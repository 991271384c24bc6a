"""Every method of the package under the engine: what it plans is what is left, and answers last."""

import pytest

from helpers import request, tiny
from otprune import PRUNERS
from otprune.registry import LAYER_PRUNERS
from otprune_lmms.engine import Engine
from otprune_lmms.pruning_config import PruningConfig

OWN = {
    "cdpruner": {"relevance": "llm"},
    "transprune": {"observe_from": 0, "observe_to": 0},
    "vtw": {"schedule": "2:0"},
    "tops": {"schedule": "0:0.5/1:0.25/3:0.125"},
    "dart": {"schedule": "1:0.25"},
}
"""Settings for a model of four layers without CLIP's text tower."""


def config_of(method: str) -> PruningConfig:
    given = OWN.get(method, {})
    if method not in LAYER_PRUNERS:
        return PruningConfig.make(method, 0.25, **given)
    return PruningConfig.make(method, **{"schedule": "1:0.5/2:0.25", **given})


CONFIGS = [config_of(method) for method in sorted(PRUNERS)]
BUDGETED = [
    PruningConfig.make("otprune", 0.75, layer=2, match="average"),
    PruningConfig.make("tome", 0.5, match="flops"),
    PruningConfig.make("fastv", 0.5, schedule="1:0.5"),
    PruningConfig.make("sparsevlm", 0.5, schedule="1:0.5/2:0.25"),
    PruningConfig.make("transprune", k=288, schedule="1:0.5/2:0.25", observe_from=0, observe_to=0),
]


def requests():
    """Requests with one image, another one, both, none, and an image without a question."""
    return [
        request(0, "What is it?", generation={"max_new_tokens": 3}),
        request(1, "How many are there?", ("port.png",), generation={"max_new_tokens": 3}),
        request(2, "Which one?", ("port.png", "land.png"), generation={"max_new_tokens": 3}),
        request(3, "What is two and two?", (), generation={"max_new_tokens": 3}),
        request(4, "", generation={"max_new_tokens": 3}),
    ]


def run(configs, **settings):
    engine = Engine(tiny(), model_name="tiny", workers=0, progress=False, **settings)
    return engine.run(requests(), configs)


@pytest.fixture(scope="module")
def batched():
    return run([*CONFIGS, *BUDGETED], batch_size=4)


@pytest.mark.parametrize("config", [*CONFIGS, *BUDGETED], ids=lambda config: config.label)
def test_what_is_planned_is_what_is_left(config, batched):
    pruning = config.pruning
    assert pruning is not None
    (*_, planned) = pruning.tokens_by_layer(576, tiny().shape)
    for one in requests():
        answer = batched[config, one]
        if pruning.pruner is None and pruning.before is not None:
            # A merger may need fewer tokens than it may have.
            assert all(0 < count <= planned for count in answer.kept)
        else:
            assert set(answer.kept) <= {planned}
        assert len(answer.kept) == len(one.images())
        assert answer.new_tokens > 0


SHORT = ("otprune", "w2greedy", "mmtok", "visionzip", "tome", "fastv", "sparsevlm", "tops")
"""Two methods of each kind or more; `LLaVA/tests` batches every one of them."""


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(one, id=one.label, marks=[pytest.mark.long] * (one.method not in SHORT))
        for one in (*CONFIGS, *BUDGETED)
    ],
)
def test_the_other_requests_of_a_batch_change_no_answer(config, batched):
    alone = run([config], batch_size=1)
    for one in requests():
        found, wanted = batched[config, one], alone[config, one]
        assert (found.text, found.kept) == (wanted.text, wanted.kept)


def test_later_runs_get_the_signals_that_they_need():
    engine = Engine(tiny(), model_name="tiny", workers=0, progress=False)
    plain, needs = PruningConfig.make("otprune", 0.25), PruningConfig.make("fastervlm", 0.25)
    engine.run(requests(), [plain])
    answers = engine.run(requests(), [needs])
    assert answers.counts.encoded == 2
    assert engine.run(requests(), [PruningConfig.make("otprune", 0.2)]).counts.encoded == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PruningConfig.make("fastv", schedule="7:0.5"), "layer must be in 0..3"),
        (PruningConfig.make("otprune", 0.5, layer=4), "layer must be in 0..3"),
        (PruningConfig.make("fastv", 0.1, schedule="2:0.5"), "the budget is out of reach"),
        (PruningConfig.make("cdpruner", 0.5), "clip"),
    ],
)
def test_what_the_model_cannot_do_is_one_error_before_the_first_answer(config, message):
    with pytest.raises(ValueError, match=message):
        run([PruningConfig(), config])
