"""A pruned wrapper beside the stock one that it is made of, a fake of ours on a tiny model."""

import logging
from contextlib import contextmanager

import pytest
from lmms_eval.api.instance import Instance
from lmms_eval.models.model_utils.gen_metrics import (
    get_logged_metrics_history,
    reset_logged_metrics,
)

from fake_wrapper import FakeStock
from helpers import PICTURES, picture
from otprune.hf import UnsupportedModelError, pruned
from otprune_lmms.environment import SettingsError
from otprune_lmms.stock.calls import CallCounts, PrunedCallError
from otprune_lmms.stock.classes import subclass
from tiny_checkpoints import write_checkpoint

DOCUMENTS = [[name] for name in PICTURES] + [[PICTURES[0], PICTURES[1]], []]
VISUAL = 64
"""Visual tokens of an image."""

Pruned = subclass(FakeStock, "fake")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    write_checkpoint(folder, "llava")
    return str(folder)


@pytest.fixture
def make(checkpoint):
    """Make a wrapper, with the documents."""

    def make(kind, **settings):
        model = kind(pretrained=checkpoint, **settings)
        model.task_dict = {"task": {"test": DOCUMENTS}}
        return model

    return make


def asked(request_type="generate_until", target=None):
    """A request about each document."""
    second = {"max_new_tokens": 8} if target is None else target
    return [
        Instance(
            request_type=request_type,
            arguments=(
                f"What is it, number {number}?",
                second,
                lambda doc: [picture(name) for name in doc],
                number,
                "task",
                "test",
            ),
            idx=0,
            metadata={"task": "task", "doc_id": number, "repeats": 1},
        )
        for number in range(len(DOCUMENTS))
    ]


def test_without_a_method_the_answers_are_the_stock_wrapper_s(make):
    stock, ours = make(FakeStock), make(Pruned)
    want = stock.generate_until(asked())
    assert ours.generate_until(asked()) == want
    assert ours.lengths == stock.lengths
    assert len(set(want)) > 3
    target = asked("loglikelihood", "yes it is")
    assert ours.loglikelihood(target) == stock.loglikelihood(target)


def test_with_all_tokens_kept_too(make):
    want = make(FakeStock).generate_until(asked())
    ours = make(Pruned, method="divprune", keep_ratio=1.0)
    assert ours.generate_until(asked()) == want
    target = asked("loglikelihood", "yes it is")
    assert ours.loglikelihood(target) == make(FakeStock).loglikelihood(target)


@pytest.mark.parametrize("settings", [{"keep_ratio": 0.25}, {"keep_ratio": 0.25, "layer": 2}])
def test_pruned_answers_are_the_stock_wrapper_s_inside_a_block(make, settings):
    stock, ours = make(FakeStock), make(Pruned, method="divprune", **settings)
    whole = stock.generate_until(asked())
    whole_lengths, stock.lengths = stock.lengths, []
    with pruned(stock.model, "divprune", **settings):
        want = stock.generate_until(asked())
    assert ours.generate_until(asked()) == want != whole
    assert ours.lengths == stock.lengths
    dropped = [0 if "layer" in settings else 48 * len(doc) for doc in DOCUMENTS]
    assert ours.lengths == [a - b for a, b in zip(whole_lengths, dropped, strict=True)]
    assert vars(ours.model).keys() == vars(stock.model).keys()
    assert whole == stock.generate_until(asked())


def test_one_budget_for_all_images_of_a_prompt(make):
    ours = make(Pruned, method="divprune", k=10, unit="sample")
    ours.generate_until(asked())
    assert ours.call_counts.kept == {0: 10 * 5}
    assert ours.call_counts.images == 5


def test_likelihoods_are_those_of_the_shortened_prompt(make):
    stock, ours = make(FakeStock), make(Pruned, method="divprune", keep_ratio=0.25)
    target = asked("loglikelihood", "yes it is")
    found = ours.loglikelihood(target)
    assert len({loss for loss, _ in found}) == len(found)
    assert found[-1] == stock.loglikelihood(target)[-1]
    assert found[0] != stock.loglikelihood(target)[0]
    asked_once = stock.lengths[: len(DOCUMENTS)]
    shorter = [one - 48 * len(doc) for one, doc in zip(asked_once, DOCUMENTS, strict=True)]
    assert ours.lengths == shorter
    # The first token of an answer is recognised as the most likely one, at the end of its prompt.
    texts = ours.generate_until(asked())
    ids = [ours.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    begun = [ours.tokenizer.decode(one[:1]) for one in ids]
    first = [asked("loglikelihood", token)[number] for number, token in enumerate(begun)]
    assert {likely for _, likely in ours.loglikelihood(first)} == {True}
    assert {likely for _, likely in found} == {False}


def test_methods_that_read_the_question_get_the_processor(make, monkeypatch):
    given = []

    @contextmanager
    def watching(*arguments, **settings):
        given.append(settings["tokenizer"])
        with pruned(*arguments, **settings) as trace:
            yield trace

    monkeypatch.setattr("otprune_lmms.stock.classes.pruned", watching)
    ours = make(Pruned, method="divprune", keep_ratio=0.25)
    ours.generate_until(asked())
    assert given == [ours.processor, ours.processor]


def test_seeded_methods_tell_images_apart_by_their_pixels(make, monkeypatch):
    drawn = []

    def listening(self, trace):
        drawn.append([keep.tolist() for keep in trace.kept.get(0, ())])

    monkeypatch.setattr(CallCounts, "add", listening)
    ours = make(Pruned, method="random", k=9)
    ours.generate_until(asked())
    first = drawn.copy()
    drawn.clear()
    ours.generate_until(asked()[::-1])
    assert drawn[::-1] == first
    *alone, both, none = first
    assert none == []
    draws = [tuple(keep) for one in [*alone, both] for keep in one]
    assert len(set(draws)) == len(draws) == 6


def test_what_was_kept_is_in_the_log_and_in_lmms_eval_s_results(make, caplog):
    ours = make(Pruned, method="divprune", keep_ratio=0.25)
    reset_logged_metrics()
    with caplog.at_level(logging.INFO, "otprune_lmms"):
        ours.generate_until(asked())
    assert (
        "divprune-0.25: kept 16.0 of 64.0 visual tokens an image, the mean over 6 images in 6"
        in (caplog.text)
    )
    (record,) = get_logged_metrics_history()
    assert record["visual_tokens_kept"] == 16
    assert record["visual_tokens"] == VISUAL
    assert record["total_gen_tokens"] == 8 * len(DOCUMENTS)
    assert record["total_elapsed_time"] > 0


def test_tokens_and_seconds_are_not_counted_twice(make, monkeypatch):
    from lmms_eval.models.model_utils.gen_metrics import log_metrics

    answer = FakeStock.generate_until

    def reporting(self, requests):
        log_metrics(total_elapsed_time=2.0, total_gen_tokens=5, avg_speed=2.5)
        return answer(self, requests)

    monkeypatch.setattr(FakeStock, "generate_until", reporting)
    reset_logged_metrics()
    make(Pruned, method="divprune", keep_ratio=0.25).generate_until(asked())
    assert [one["total_gen_tokens"] for one in get_logged_metrics_history()] == [5, 0]


def test_an_error_of_a_pruned_call_is_no_empty_answer(make, monkeypatch):
    ours = make(Pruned, method="divprune", keep_ratio=0.25)

    def fail(*_, **__):
        raise UnsupportedModelError("no such images")

    monkeypatch.setattr(ours.model, "generate", fail)
    with pytest.raises(UnsupportedModelError, match="no such images"):
        ours.generate_until(asked())
    # As in the stock wrapper where nothing is pruned.
    plain = make(Pruned)
    monkeypatch.setattr(plain.model, "generate", fail)
    assert plain.generate_until(asked()) == [""] * len(DOCUMENTS)
    assert not issubclass(PrunedCallError, Exception)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "divprune", "keep_ratio": 0.2, "layer": 99}, "layer"),
        (
            {"method": "otprune", "keep_ratio": 0.2, "compat": "reference"},
            "compat is for the llava",
        ),
    ],
)
def test_settings_that_the_model_cannot_be_pruned_by_are_refused_before_a_question(
    make, settings, message
):
    with pytest.raises(SettingsError, match=message):
        make(Pruned, **settings)


def test_bad_settings_are_refused_before_anything_is_loaded():
    with pytest.raises(SettingsError, match=r"keep_ratio must be in \(0, 1\]"):
        Pruned(pretrained="/nowhere", method="divprune", keep_ratio=9.8)
    with pytest.raises(SettingsError, match="unknown argument 'colour' in model_args"):
        Pruned(pretrained="/nowhere", colour="red")


def test_the_class_is_the_stock_one_s_subclass_and_says_what_it_takes(checkpoint):
    assert issubclass(Pruned, FakeStock)
    assert Pruned.is_simple
    assert Pruned.__name__ == "PrunedFakeStock"
    text = f"pretrained={checkpoint},batch_size=1,method=divprune,keep_ratio=0.25"
    model = Pruned.create_from_arg_string(text, {"batch_size": 3, "device": None})
    other = Pruned.create_from_arg_string(text.replace("0.25", "0.5"), {"device": "cpu"})
    assert repr(model) != repr(other)
    assert "keep_ratio=0.25" in repr(model)
    assert checkpoint in repr(model)


def test_settings_of_the_environment_must_be_in_the_arguments(checkpoint, monkeypatch):
    monkeypatch.setenv("BASELINE", "DIVPRUNE")
    monkeypatch.setenv("SUBSET_RATIO", "0.25")
    text = f"pretrained={checkpoint}"
    whole = f"{text},method=divprune,keep_ratio=0.25"
    with pytest.raises(SettingsError, match=f"so give model_args '{whole}'"):
        Pruned.create_from_arg_string(text)
    assert Pruned.create_from_arg_string(whole).pruning_arguments.config.keep_ratio == 0.25
