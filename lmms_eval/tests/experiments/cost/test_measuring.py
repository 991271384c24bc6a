"""Measuring, under a clock that ticks at every look."""

import math
from collections import Counter

import pytest

from helpers import request, tiny
from otprune_lmms.engine import Engine, RequestError
from otprune_lmms.engine.responder import Responder
from otprune_lmms.experiments.cost.measuring import BenchError, CostOptions, measure
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.columns import SETTING
from otprune_lmms.results.costs import COLUMNS, PARTS
from ticks import Ticks

CONFIGS = [
    PruningConfig.make("otprune", 0.098),
    PruningConfig.make("uniform", 0.25, layer=2),
    PruningConfig.make("otprune", k=577),
    PruningConfig.make("uniform", 0.25, compat="reference"),
]
TWO = {"generation": {"max_new_tokens": 2}}


def three_requests(generation=TWO):
    """Two requests with an image, one without."""
    return [
        request(0, **generation),
        request(1, pictures=("port.png",), **generation),
        request(2, "What is two and two?", pictures=(), **generation),
    ]


def lines(requests, configs, clock=None, **settings):
    found = measure(
        tiny(),
        requests,
        configs,
        model_name="tiny",
        options=CostOptions(**{"repeats": 1, "warmup": 0, **settings}),
        progress=False,
        clock=clock,
    )
    return {one.setting: one for one in found}


@pytest.fixture(scope="module")
def real():
    """Three samples in two batches (the one without an image goes last), on the real clock."""
    return lines(three_requests({}), CONFIGS, batch_size=2)


def test_every_setting_has_a_whole_line(real):
    assert list(real) == ["unpruned", *(config.label for config in CONFIGS)]
    for one in real.values():
        plain = one.plain()
        assert tuple(plain) == COLUMNS
        allowed = {*SETTING, "select_share", "added_bytes"}
        missing = {name for name, value in plain.items() if value is None}
        assert missing <= allowed
        numbers = [value for value in plain.values() if isinstance(value, float)]
        assert all(math.isfinite(value) and value >= 0 for value in numbers)
        assert (one.samples, one.batch, one.repeats) == (3, 2, 1)
        assert one.visual_tokens == 2 * 576 / 3
        assert one.peak_bytes > 1e8


def test_the_parts_are_the_total(real):
    for one in real.values():
        parts = [getattr(one, part).middle for part in PARTS]
        assert one.total.middle == pytest.approx(sum(parts), rel=1e-9)
        assert one.total.low == one.total.middle == one.total.high, "one round has no spread"


def test_selection_takes_time_where_something_is_dropped_and_nowhere_else(real):
    for label, one in real.items():
        dropped = one.kept_tokens < one.visual_tokens
        assert dropped == (label not in ("unpruned", "otprune-k577"))
        assert (one.select.middle > 0) == dropped


def test_ratios_are_those_of_the_lines(real):
    base = real["unpruned"]
    for one in real.values():
        assert one.prefill_ratio == pytest.approx(one.prefill.middle / base.prefill.middle)
        assert one.multiply_adds_ratio == pytest.approx(one.multiply_adds / base.multiply_adds)
    assert real["otprune-k577"].multiply_adds_ratio == 1
    early, late = real["otprune-0.098"], real["uniform-0.25-layer2"]
    assert early.kept_tokens == 2 * 56 / 3
    assert early.multiply_adds < late.multiply_adds < base.multiply_adds
    assert early.kv_bytes < late.kv_bytes < base.kv_bytes
    assert {one.vision_flops for one in real.values()} == {base.vision_flops}


def test_the_tokens_written_are_those_of_the_engine(real):
    engine = Engine(tiny(), model_name="tiny", workers=0, progress=False, batch_size=2)
    answers = engine.run(three_requests({}), [PruningConfig(), *CONFIGS])
    for config in (PruningConfig(), *CONFIGS):
        written = [answers[config, one].new_tokens for one in answers.requests]
        kept = [sum(answers[config, one].kept) for one in answers.requests]
        assert real[config.label].new_tokens == sum(written) / 3
        assert real[config.label].kept_tokens == sum(kept) / 3


def test_each_phase_is_what_lies_between_its_marks():
    configs = [CONFIGS[0], CONFIGS[1], CONFIGS[2]]
    found = lines(three_requests()[:2], configs, Ticks(), batch_size=2)
    for label, one in found.items():
        selected = label in ("otprune-0.098", "uniform-0.25-layer2")
        # A mark at each end of encoding and selecting, one after each call of the model, one at
        # both ends of the answer: a step between two, shared by two rows.
        assert one.vision.middle == 500
        assert one.select.middle == 500 * selected
        # Marks around a selection that dropped nothing stay in the prefill.
        marks = 0 if one.config["method"] is None else 2
        assert one.prefill.middle == 500 * (1 + marks - selected)
        assert one.new_tokens == 2
        assert one.decode.middle == 500 * 2
        assert one.decode_per_token.middle == 500 * 2


def test_an_answer_of_one_token_has_no_step():
    one_token = [request(0, pictures=(), generation={"max_new_tokens": 1})]
    found = lines(one_token, [], Ticks())["unpruned"]
    assert found.decode_per_token.middle is None
    assert found.decode.middle == 1000
    assert (found.vision.middle, found.visual_tokens, found.vision_flops) == (1000, 0, 0)


def test_rounds_before_do_not_count_and_settings_take_turns(monkeypatch):
    requests = [request(i, pictures=(), **TWO) for i in range(2)]
    requests[1] = request(1, "And how many more?", pictures=(), **TWO)
    configs = [PruningConfig.make("uniform", k=k) for k in (1, 2)]
    order = []
    bind = Responder.bind

    def noted(self, pruning, visual, setting):
        order.append(None if pruning is None else pruning.stages[0].k)
        return bind(self, pruning, visual, setting)

    counting = Ticks()
    plain = lines(requests, configs, counting, repeats=1, warmup=0)
    once = counting.marks
    monkeypatch.setattr(Responder, "bind", noted)
    both = Ticks()
    lines(requests, configs, both, repeats=1, warmup=1)
    each = both.marks - once
    monkeypatch.setattr(Responder, "bind", bind)
    slow = Ticks(lambda number: 1000.0 if number < both.marks - each else 1.0)
    found = lines(requests, configs, slow, repeats=1, warmup=1)
    for label, one in found.items():
        assert (one.prefill, one.decode) == (plain[label].prefill, plain[label].decode)
    # Two batches: examined once, then two rounds; every batch under all settings before the next.
    turns = [order[i : i + 3] for i in range(0, len(order), 3)]
    assert len(turns) == 2 * (1 + 2)
    assert all(Counter(turn) == Counter([None, 1, 2]) for turn in turns)
    assert len({tuple(turn) for turn in turns[2:]}) > 1


def test_what_cannot_be_measured_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="requests must hold at least one sample"):
        lines([], CONFIGS)
    loss = request(3, kind="loglikelihood", continuation="yes")
    with pytest.raises(ValueError, match=r"document 3 of task \(test\) generates no answer"):
        lines([loss], CONFIGS)
    layers = tiny().shape.layers
    with pytest.raises(ValueError, match=f"layer must be in 0..{layers - 1}"):
        lines(three_requests(), [PruningConfig.make("uniform", 0.5, layer=layers)])
    broken = request(4)
    object.__setattr__(broken, "images", lambda: ["a path"])
    with pytest.raises(RequestError, match="document 4 of task"):
        lines([broken], [])

    def full(*_, **__):
        raise MemoryError("out of memory")

    monkeypatch.setattr(Responder, "model_input", full)
    with pytest.raises(BenchError, match="tiny: 1 samples at once do not fit .* under unpruned"):
        lines(three_requests()[2:], [])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"repeats": 0}, "repeats must be an integer >= 1, got 0"),
        ({"repeats": 2.5}, "repeats must be an integer >= 1, got 2.5"),
        ({"warmup": -1}, "warmup must be an integer >= 0, got -1"),
    ],
)
def test_settings_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        CostOptions(**given)
