"""Answers end where the task says, and likelihoods are those of the continuation."""

import pytest
import torch

from helpers import PICTURES, loaded, request, tiny
from otprune.pruning import Trace
from otprune_lmms.engine import Engine, RequestError
from otprune_lmms.engine.prepare import generation_of
from otprune_lmms.engine.reading import LoadedBatch, RequestReader
from otprune_lmms.models.generation import cut, is_unfinished
from otprune_lmms.models.protocol import Generation, ModelInput
from otprune_lmms.pruning_config import PruningConfig

QUESTION = "What is in this image?"
CONFIGS = [
    PruningConfig(),
    PruningConfig.make("otprune", 0.098),
    PruningConfig.make("divprune", 0.25, layer=2),
    PruningConfig.make("tome", 0.25),
    PruningConfig.make("cdpruner", 0.25, relevance="llm"),
    PruningConfig.make("fastv", schedule="1:0.5/2:0.25"),
    PruningConfig.make("pyramiddrop", 0.75, schedule="1:0.5/2:0.25"),
]


def engine(**settings) -> Engine:
    return Engine(tiny(), model_name="tiny", workers=0, progress=False, **settings)


def said(requests, **settings):
    answers = engine(**settings).run(requests, [PruningConfig()])
    return [answers[PruningConfig(), one] for one in requests]


@pytest.mark.parametrize(
    ("text", "until", "want"),
    [
        ("yes\n\nno", ["\n\n"], "yes"),
        ("yes", ["\n\n"], "yes"),
        ("a b c", ["c", "b"], "a "),
        ("STOP", ["STOP"], ""),
        ("any", [], "any"),
    ],
)
def test_an_answer_is_cut_at_the_first_text_that_ends_it(text, until, want):
    assert cut(text, until) == want


@pytest.mark.parametrize(
    ("ids", "text", "unfinished"),
    [
        ([5, 6, 7], "a b c", True),
        ([5, 6], "a b", False),
        ([5, 6, 2], "a b", False),
        ([5, 6, 3], "a b", False),
        ([2, 6, 7], "b c", True),
        ([5, 6, 7], "a STOP", False),
        ([], "", False),
    ],
    ids=["at the limit", "shorter", "end", "another end", "end inside", "stop text", "nothing"],
)
def test_an_answer_is_unfinished_where_nothing_but_its_length_ends_it(ids, text, unfinished):
    row = torch.tensor(ids, dtype=torch.long)
    settings = Generation(max_new_tokens=3, until=("STOP",))
    assert is_unfinished(row, text, settings, {2, 3}) is unfinished


def test_an_end_of_turn_as_the_last_token_allowed_finishes_an_answer(monkeypatch):
    questions = [request(i, QUESTION, (PICTURES[i],)) for i in range(2)]
    plain = said(questions, batch_size=2)
    assert [one.unfinished for one in plain] == [True, True]
    last = tiny().tokenizer(plain[0].text, add_special_tokens=False).input_ids
    # Whatever the model writes ends its answers.
    monkeypatch.setattr(loaded()[1].generation_config, "eos_token_id", sorted({2, *last}))
    ended = said(questions[:1])[0]
    assert ended.unfinished is False
    assert ended.new_tokens < plain[0].new_tokens
    assert said([request_with("yes")])[0].unfinished is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"max_new_tokens": "x"},
            r"max_new_tokens of document 0 of task .* whole number >= 1.*'x'",
        ),
        ({"max_new_tokens": 0}, "max_new_tokens of .* got 0"),
        ({"max_new_tokens": float("inf")}, "max_new_tokens of .* got inf"),
        ({"num_beams": 1.5}, "num_beams of .* got 1.5"),
        ({"num_beams": True}, "num_beams of .* got True"),
        ({"temperature": "hot"}, "temperature of .* must be a number, got 'hot'"),
        ({"top_p": float("nan")}, "top_p of .* must be a number, got nan"),
    ],
)
def test_impossible_generation_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        generation_of(request(0, generation=settings))


def test_until_ends_an_answer_early_in_its_own_row_only():
    def requests(until):
        settings = {"generation": {"max_new_tokens": 24, "until": until}}
        questions = (QUESTION, "Is it a dog? Answer yes or no.", "How many?", "Say it.")
        return [request(i, questions[i], (PICTURES[i],), **settings) for i in range(4)]

    plain = said(requests([]))
    stop = "W n"
    hit = [stop in one.text for one in plain]
    assert set(hit) == {True, False}
    for size in (1, 4):
        ended = said(requests([stop, ""]), batch_size=size)
        for before, after, met in zip(plain, ended, hit, strict=True):
            assert after.text == before.text.split(stop)[0]
            assert (after.new_tokens < before.new_tokens) == met
            assert (before.unfinished, after.unfinished) == (True, not met)


def test_generation_stops_when_all_rows_have_ended(monkeypatch):
    text = said([request(0, QUESTION, generation={"max_new_tokens": 24})])[0].text
    stop = text.split()[1]
    model, calls = loaded()[1], []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model),
        "forward",
        lambda self, *args, **kwargs: calls.append(1) or forward(self, *args, **kwargs),
    )
    said([request(0, QUESTION, generation={"max_new_tokens": 1000, "until": stop})])
    assert len(calls) < 24


def test_the_defaults_are_those_of_the_stock_wrapper():
    empty = request(0)
    object.__setattr__(empty, "generation", {"do_sample": True, "unknown": 1})
    assert generation_of(empty) == Generation(1024, 0, None, 1, ())
    generation = {"until": "ASSISTANT:", "max_new_tokens": 16}
    object.__setattr__(empty, "generation", generation)
    assert generation_of(empty) == Generation(16, 0, None, 1, ("ASSISTANT:",))
    object.__setattr__(empty, "generation", {"until": 5})
    with pytest.raises(ValueError, match="until of document 0 of task .* got 5"):
        generation_of(empty)


def test_an_aspect_ratio_counts_where_the_checkpoint_has_none(monkeypatch):
    generation = {"image_aspect_ratio": "original"}
    assert tiny().render("What?", 1, generation).image_view is None
    monkeypatch.delattr(loaded()[1].config, "image_aspect_ratio")
    assert tiny().render("What?", 1, generation).image_view == "original"


def test_prompts_are_the_stock_wrapper_s():
    def question(context: str, images: int) -> str:
        whole = tiny().render(context, images, {}).text
        assert whole.endswith(" ASSISTANT:")
        return whole.split("USER: ")[1].removesuffix(" ASSISTANT:")

    assert question("Is it?", 0) == "Is it?"
    assert question("Is it?", 1) == "<image>\nIs it?"
    assert question("Is it?", 3) == "<image> <image> <image>\nIs it?"
    assert question("See <image>: is it?", 1) == "See <image>: is it?"
    assert question("<image 1> Is it?", 1) == "<image>\n<image 1> Is it?"


def test_images_stand_between_the_tokens_that_the_checkpoint_was_trained_with(monkeypatch):
    monkeypatch.setattr(loaded()[1].config, "mm_use_im_start_end", True)
    text = tiny().render("Is it?", 2, {}).text
    one = "<im_start><image><im_end>"
    assert text.endswith(f"USER: {one} {one}\nIs it? ASSISTANT:")


WORDS = ("yes", "no", "A large dog")


def request_with(word: str, doc_id: int = 0, **others):
    return request(doc_id, QUESTION, kind="loglikelihood", continuation=word, **others)


def encoded(runner, prepared, config):
    """The visual tokens of a prepared request's image, as the engine hands them to a model."""
    runner._need([config])
    pixels = RequestReader(runner.preparer, runner._store, strict=True).load([prepared]).pixels
    runner._encode(LoadedBatch([prepared], pixels, {}), runner.run([], []).counts)
    return tuple(runner._store.take([(prepared.images[0], None)]).values())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.label)
def test_a_loss_is_the_model_s_own_over_the_continuation(config):
    requests = [request_with(word, index=i) for i, word in enumerate(WORDS)]
    found = engine(batch_size=3).run(requests, [config])
    runner = engine()
    model, prepared = runner.model, runner.preparer.prepare(requests[0])
    visual = encoded(runner, prepared, config)
    for word, one in zip(WORDS, requests, strict=True):
        begin = model.token_ids(prepared.prompt)
        ids = model.token_ids(model.render(QUESTION, 1, {}, word))
        labels = ids.clone()
        labels[: len(begin)] = -100
        with torch.no_grad():
            want = loaded()[1](
                input_ids=ids[None],
                labels=labels[None],
                visual=list(visual),
                answer_lengths=[len(ids) - len(begin)],
                pruning=config.pruning,
            )
        answer = found[config, one]
        assert answer.loss == pytest.approx(float(want.loss), abs=1e-4)
        assert answer.new_tokens == len(ids) - len(begin)
        assert answer.text is None
        assert answer.value == (answer.loss, answer.greedy)
        assert answer.candidates == (576,)
    assert len({found[config, one].loss for one in requests}) == 3


def test_what_is_dropped_does_not_depend_on_the_answer(monkeypatch):
    config, model = PruningConfig.make("fastv", schedule="1:0.25"), loaded()[1]
    seen, forward = [], type(model).forward

    def noted(self, *args, **given):
        output = forward(self, *args, **given)
        seen.append([one.tolist() for one in given["trace"].kept[1]])
        return output

    monkeypatch.setattr(type(model), "forward", noted)
    engine().run([request_with(word, index=i) for i, word in enumerate(WORDS)], [config])
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.label)
def test_greedy_is_what_the_model_would_have_said(config):
    runner = engine()
    prepared = runner.preparer.prepare(request(0, QUESTION))
    visual = encoded(runner, prepared, config)
    ids = runner.model.token_ids(prepared.prompt)
    with torch.no_grad():
        output = loaded()[1].generate(
            ids[None], visual=list(visual), pruning=config.pruning, max_new_tokens=5
        )[0]
    answers = output, torch.cat([output[:-1], output[-1:] + 1])
    rows = [ModelInput(torch.cat([ids, one]), visual, (0,), answer=len(output)) for one in answers]
    with torch.no_grad():
        right, other = runner.model.loglikelihood(rows, config.pruning, Trace())
    assert right.greedy
    assert not other.greedy
    assert other.loss > right.loss


def test_likelihoods_need_no_image_and_go_through_the_journal(tmp_path):
    from otprune_lmms.journal import Journal

    requests = [request_with(word, index=i, pictures=()) for i, word in enumerate(WORDS)]
    with Journal(tmp_path) as journal:
        first = engine(journal=journal).run(requests, CONFIGS[:2])
    with Journal(tmp_path) as journal:
        again = engine(journal=journal).run(requests, CONFIGS[:2])
    assert again.counts.generated == 0
    assert [a.value for a in again.values()] == [a.value for a in first.values()]
    assert first[CONFIGS[0], requests[0]].loss == first[CONFIGS[1], requests[0]].loss


def test_a_continuation_that_is_cut_off_is_named(monkeypatch):
    monkeypatch.setattr(loaded()[1].config, "tokenizer_model_max_length", 600, raising=False)
    long = request_with("word " * 30, doc_id=9)
    with pytest.raises(RequestError, match="document 9 of task .* continuation at its end is cut"):
        engine().run([long], [PruningConfig()])


def test_written_tokens_are_counted_without_padding():
    model, trace = tiny(), Trace()
    row = ModelInput(model.token_ids(model.render("Say yes.", 0, {})), (), ())
    (one,) = model.generate([row], None, Generation(max_new_tokens=3), trace)
    assert one.tokens == 3
    assert trace.kept == {}
