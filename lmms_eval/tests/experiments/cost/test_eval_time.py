"""EVAL_TIME: times by phase in the journal, and nothing else changed."""

import logging
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from lmms_eval.api.instance import Instance

from helpers import TINY, loaded, picture, request, tiny
from otprune_lmms.engine import Engine, phases
from otprune_lmms.engine import engine as engines
from otprune_lmms.engine.phases import (
    PHASES,
    BatchTiming,
    HostClock,
    PhaseTimer,
    clock_for,
    summary,
)
from otprune_lmms.environment import Environment, SettingsError, merged, read_environment
from otprune_lmms.journal import Journal
from otprune_lmms.launch.command_line import arguments_of, completed
from otprune_lmms.lmms_model import PrunedModel
from otprune_lmms.model_arguments import Arguments, parse
from otprune_lmms.pruning_config import PruningConfig
from ticks import Ticks

CONFIGS = [
    PruningConfig(),
    PruningConfig.make("uniform", 0.25),
    PruningConfig.make("uniform", 0.5, layer=1),
    PruningConfig.make("tome", 0.5),
    PruningConfig.make("fastv", schedule="1:0.5"),
    PruningConfig.make("transprune", schedule="1:0.5", observe_from=0, observe_to=0),
]
BASE = "pretrained=somewhere"


def engine(**settings) -> Engine:
    return Engine(tiny(), **{"model_name": "tiny", "workers": 0, "progress": False, **settings})


def requests(count: int):
    questions = ("What is it?", "Is it a dog?", "How many are there?")
    return [
        request(i, questions[i], ("land.png",), generation={"max_new_tokens": 3})
        for i in range(count)
    ]


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "1", "yes", " Yes "])
def test_yes(monkeypatch, word):
    monkeypatch.setenv("EVAL_TIME", word)
    assert read_environment().eval_time is True
    assert parse(merged({}, read_environment())).eval_time


@pytest.mark.parametrize("word", ["false", "0", "no", "NO"])
def test_no(monkeypatch, word):
    monkeypatch.setenv("EVAL_TIME", word)
    assert read_environment().eval_time is False
    assert not parse(merged({}, read_environment())).eval_time


def test_nothing_said_is_no(monkeypatch):
    monkeypatch.setenv("EVAL_TIME", "")
    assert read_environment().eval_time is None
    assert merged({}, read_environment()) == {}
    assert not Arguments().eval_time


@pytest.mark.parametrize("word", ["on", "2", "ja", "truely"])
def test_another_word_is_one_error(monkeypatch, word):
    monkeypatch.setenv("EVAL_TIME", word)
    with pytest.raises(SettingsError, match=rf"EVAL_TIME must be true or false .*, got '{word}'"):
        read_environment()
    with pytest.raises(SettingsError, match=f"eval_time must be true or false .*, got '{word}'"):
        parse({"eval_time": word})


@pytest.mark.parametrize(
    ("text", "wanted"), [("true", True), ("True", True), ("1", True), ("no", False), ("0", False)]
)
def test_a_model_argument_says_it_too(text, wanted):
    assert parse(arguments_of(f"{BASE},eval_time={text}")).eval_time is wanted
    both = Environment(eval_time=wanted)
    assert parse(merged(arguments_of(f"{BASE},eval_time={text}"), both)).eval_time is wanted
    with pytest.raises(SettingsError, match="EVAL_TIME in the environment says .*: give one"):
        merged(arguments_of(f"{BASE},eval_time={text}"), Environment(eval_time=not wanted))


def test_no_key_knows_of_it():
    asked, plain = (parse({"pretrained": "x", "eval_time": value}) for value in (True, False))
    assert repr(asked) == repr(plain)
    assert asked == plain
    assert completed(BASE, Environment(eval_time=True)) == BASE
    assert Environment(eval_time=True).settings() == {}


def keys(folder) -> dict[str, list[set[str]]]:
    """What a journal has times of, by the setting's fingerprint."""
    with Journal(folder, readonly=True) as journal:
        found: dict[str, list[set[str]]] = {}
        for one in journal:
            found.setdefault(one.config, []).append(set(one.seconds))
        return found


def test_times_land_in_the_journal_and_change_no_answer(tmp_path, caplog, monkeypatch):
    plain = engine().run(requests(3), CONFIGS)
    with Journal(tmp_path) as journal:
        engine(journal=journal, batch_size=2).run(requests(1), CONFIGS)
    with Journal(tmp_path) as journal, caplog.at_level(logging.INFO, "otprune_lmms"):
        timed = engine(journal=journal, batch_size=2, eval_time=True).run(requests(3), CONFIGS)
    counts = (timed.counts.reused, timed.counts.generated)
    assert counts == (len(CONFIGS), 2 * len(CONFIGS)), "an answer has one key"
    for key, answer in plain.items():
        assert (timed[key].text, timed[key].kept) == (answer.text, answer.kept)
    both = {"generate", *PHASES}
    for config in CONFIGS:
        assert keys(tmp_path)[config.answer_key] == [{"generate"}, both, both]
        assert timed[config, requests(1)[0]].phases == {}
        for one in requests(3)[1:]:
            answer = timed[config, one]
            assert tuple(answer.phases) == PHASES
            assert answer.phases["vision"] > 0
            assert (answer.phases["select"] > 0) == (config.method is not None)
            assert answer.phases["prefill"] > 0
            assert answer.phases["decode"] > 0
            inside = sum(answer.phases[name] for name in PHASES[1:])
            assert inside <= answer.seconds
    assert [one for one in caplog.messages if "times of 2 of 3 answers" in one]
    with Journal(tmp_path) as journal:
        again = engine(journal=journal).run(requests(3), CONFIGS)
    assert again.counts.generated == 0
    for key, answer in again.items():
        assert answer.phases == pytest.approx(timed[key].phases, abs=1e-6)
    bare = replace(again[CONFIGS[1], requests(3)[2]], phases={})
    assert bare == again[CONFIGS[1], requests(3)[2]]
    assert hash(bare) == hash(again[CONFIGS[1], requests(3)[2]])


def test_without_it_no_clock_is_looked_at(monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(engines, "clock_for", never)
    for kind in (phases.PhaseTimer, phases.BatchTiming):
        monkeypatch.setattr(kind, "__init__", never)
    monkeypatch.setattr(phases.HostClock, "mark", never)
    monkeypatch.setattr(torch.cuda, "synchronize", never)
    answers = engine().run(requests(1), CONFIGS)
    assert all(answer.phases == {} for answer in answers.values())
    assert all(answer.seconds > 0 for answer in answers.values())
    assert not loaded()[1]._forward_hooks


def test_a_loglikelihood_has_a_prefill_and_nothing_after_it():
    asked = [
        request(i, kind="loglikelihood", continuation=word) for i, word in enumerate(("yes", "no"))
    ]
    found = engine(eval_time=True, batch_size=2).run(asked, CONFIGS[:2])
    assert {key: (a.loss, a.greedy) for key, a in found.items()} == {
        key: (a.loss, a.greedy) for key, a in engine(batch_size=2).run(asked, CONFIGS[:2]).items()
    }
    for (config, _), answer in found.items():
        assert answer.phases["decode"] == 0
        assert answer.phases["prefill"] > 0
        assert (answer.phases["select"] > 0) == (config.method is not None)


class Model:
    """Stands for a language model that is called a number of times."""

    called = None

    @contextmanager
    def on_call(self, called):
        self.called = called
        try:
            yield
        finally:
            self.called = None

    def __call__(self) -> None:
        assert self.called is not None
        self.called()


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_the_first_call_ends_the_prefill(calls):
    model, clock = Model(), Ticks()
    run = BatchTiming(clock, writes=True)
    with run.watching(model):
        for _ in range(calls):
            model()
    assert (run.select, run.prefill, run.decode, run.steps) == (0, 1, calls, calls - 1)
    assert model.called is None
    loss = BatchTiming(clock, writes=False)
    with loss.watching(model):
        for _ in range(calls):
            model()
    assert (loss.prefill, loss.decode, loss.steps) == (calls + 1, 0, 0)


def test_contexts_within_a_selection_are_part_of_it_and_a_vain_one_is_none():
    for dropped in (True, False):
        model, run = Model(), BatchTiming(Ticks(), writes=True)
        with run.watching(model):
            for _ in range(2):
                with run.selecting(), run.selecting():
                    pass
            model()
            run.dropped = dropped
        assert run.select == (2 if dropped else 0)
        assert run.select + run.prefill == 5


def test_a_call_that_fails_leaves_no_hook():
    model = Model()
    with pytest.raises(MemoryError), BatchTiming(Ticks(), writes=True).watching(model):
        raise MemoryError
    assert model.called is None


def test_an_images_time_is_its_share_of_its_batch_wherever_it_is_used():
    watch = PhaseTimer(Ticks(lambda number: 6.0))
    assert watch.encode(["a", "b", "c"], lambda: "tokens") == "tokens"
    with watch.answer(Model(), writes=True):
        pass
    rows = watch.shares([["a"], ["a", "b"], ["c", "c"], []])
    assert [row["vision"] for row in rows] == [2, 4, 2, 0]
    assert {row["prefill"] for row in rows} == {6 / 4}


def test_the_clock_is_that_of_the_weights():
    assert isinstance(clock_for(tiny()), HostClock)


def test_a_line_about_a_setting():
    one = {"vision": 0.02, "select": 0.001, "prefill": 0.03, "decode": 0.004}
    more = {**one, "vision": 0.04, "decode": 0.006}
    found = summary("x", [(one, 3), (more, 4), (more, 4), ({}, 9)])
    assert found == (
        "x: times of 3 of 4 answers, median ms: vision 40.00, select 1.00, prefill 30.00, "
        "decode 6.00 (2.00 a token)"
    )
    assert summary("x", [({}, 9)]) == "x: no times among 1 answers"
    assert summary("x", [({**one, "decode": 0.0}, 1)]).endswith("decode 0.00 (0.00 a token)")


def test_lmms_evals_model_takes_the_times_when_the_environment_asks(monkeypatch, tmp_path):
    monkeypatch.setenv("EVAL_TIME", "true")
    model = PrunedModel(pretrained=str(TINY), device="cpu", journal=str(tmp_path))
    model.task_dict = {"task": {"test": ["land.png"]}}
    asked = Instance(
        "generate_until",
        ("What is it?", {"max_new_tokens": 2}, lambda doc: [picture(doc)], 0, "task", "test"),
        0,
        {"task": "task", "doc_id": 0, "repeats": 1},
    )
    model.generate_until([asked])
    model.clean()
    assert keys(tmp_path) == {PruningConfig().answer_key: [{"generate", *PHASES}]}


@pytest.mark.gpu
def test_a_gpus_events_add_up():
    loaded()[1].to("cuda")
    try:
        found = Engine(tiny(), model_name="g", workers=0, progress=False, eval_time=True)
        (answer,) = found.run(requests(1), CONFIGS[1:2]).values()
    finally:
        loaded()[1].to("cpu")
    assert all(answer.phases[name] > 0 for name in PHASES)
    assert sum(answer.phases[name] for name in PHASES[1:]) <= answer.seconds * 1.05
