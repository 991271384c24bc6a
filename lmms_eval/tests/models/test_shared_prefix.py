"""Prompts that share a prefix: where they are cut, and the answers that whole prompts have."""

import functools
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import PICTURES, crop, request, tiny
from otprune.cost import DecoderShape
from otprune.pruning import ImageTokens, Trace, make_pruning
from otprune_lmms.engine import Engine
from otprune_lmms.journal import Journal
from otprune_lmms.models import ModelSource, load_model
from otprune_lmms.models.protocol import Generation, ModelInput
from otprune_lmms.models.shared_prefix import PrefixRules, shared_beginning
from otprune_lmms.pruning_config import PruningConfig

IMAGE = -200
RULES = PrefixRules(DecoderShape(hidden=8, feed_forward=20, layers=4, heads=2), IMAGE, 1000)
FIRST, SECOND = (ImageTokens(torch.zeros(n, 8)) for n in (300, 200))
MINIS = ("llava-mini", "qwen-mini")
WORDS = ("dog", "snowboard", "very large green car", "cat", "person")


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@functools.cache
def mini(name: str):
    return load_model(ModelSource(name, device="cpu"))


# Where prompts are cut.


def prompt(*ids: int, images=(FIRST,), answer=0) -> ModelInput:
    names = tuple(300 if image is FIRST else 200 for image in images)
    return ModelInput(torch.tensor(ids), tuple(images), names, answer=answer)


def cut(*inputs, pruning=None, together=True):
    return RULES.shared(inputs, pruning, together=together)


def test_questions_about_an_image_share_all_that_they_have_in_common():
    found = cut(prompt(1, IMAGE, 5, 6, 7), prompt(1, IMAGE, 5, 8), prompt(1, IMAGE, 5, 6, 9, 9))
    assert [one.ids.tolist() for one in found.prefixes] == [[1, IMAGE, 5]]
    assert found.prefixes[0].visual == (FIRST,)
    assert found.prefix_of == (0, 0, 0)
    assert [one.tolist() for one in found.suffixes] == [[6, 7], [8], [6, 9, 9]]


def test_an_equal_prompt_keeps_its_last_id_for_the_suffix():
    found = cut(prompt(1, IMAGE, 5), prompt(1, IMAGE, 5))
    assert [one.tolist() for one in found.suffixes] == [[5], [5]]


def test_what_shares_nothing_is_cut_where_the_suffixes_are_not_longer():
    long = prompt(1, IMAGE, *range(2, 12), images=(SECOND,))
    text = prompt(1, 2, images=())
    found = cut(prompt(1, IMAGE, 5, 6, 7), long, text, prompt(1, IMAGE, 8))
    assert found.prefix_of == (0, 1, 2, 0)
    assert [len(one) for one in found.suffixes] == [3, 3, 1, 1]
    assert [len(one.ids) for one in found.prefixes] == [2, 9, 1]


def test_both_images_of_a_prompt_belong_to_the_prefix():
    two = (FIRST, SECOND)
    found = cut(prompt(IMAGE, 3, IMAGE, 5, images=two), prompt(IMAGE, 3, IMAGE, 6, images=two))
    assert found.prefixes[0].ids.tolist() == [IMAGE, 3, IMAGE]
    assert found.prefixes[0].image_ids == (300, 200)
    assert cut(prompt(IMAGE, 3, IMAGE, 5, images=two), prompt(IMAGE, 4, IMAGE, 6, images=two)) is (
        None
    )


def test_what_predicts_a_continuation_is_in_the_suffix():
    found = cut(
        prompt(1, IMAGE, 5, 6, 7, 8, answer=1),
        prompt(1, IMAGE, 5, 6, 7, 9, 9, 9, answer=3),
        together=False,
    )
    assert [one.tolist() for one in found.suffixes] == [[7, 8], [7, 9, 9, 9]]


@pytest.mark.parametrize(
    "inputs",
    [
        [prompt(1, IMAGE, 5)],
        [prompt(1, IMAGE, 5), prompt(1, IMAGE, 6, images=(SECOND,))],
        [prompt(1, 5, images=()), prompt(1, 5, images=())],
        [prompt(1, 5, IMAGE), prompt(1, 5, IMAGE)],
        [prompt(1, IMAGE, *range(800)), prompt(1, IMAGE, 5)],
        [prompt(1, IMAGE, 7, answer=1), prompt(1, IMAGE, 8, answer=1)],
    ],
    ids=["one prompt", "two images", "no image", "an image last", "too long", "only an answer"],
)
def test_nothing_is_shared(inputs):
    assert cut(*inputs) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "divprune", "keep_ratio": 0.9, "layer": 2},
        {"method": "cdpruner", "keep_ratio": 0.9},
        {"method": "fastv"},
        {"method": "divprune", "keep_ratio": 0.9, "compat": "reference"},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_prunings_that_depend_on_more_than_images_share_nothing(settings):
    inputs = prompt(1, IMAGE, 5), prompt(1, IMAGE, 6)
    assert cut(*inputs) is not None
    assert cut(*inputs, pruning=make_pruning(**settings)) is None


def test_it_is_done_where_it_spares_enough_positions():
    inputs = prompt(1, IMAGE, 5), prompt(1, IMAGE, 6)
    # Whole: 2 x (k + 2) positions; cut: k + 1, and two suffixes of one.
    for k, spared in ((126, False), (127, True)):
        assert (cut(*inputs, pruning=make_pruning("divprune", k=k)) is not None) == spared
    few = make_pruning("divprune", k=100)
    assert cut(*inputs, inputs[0], pruning=few) is not None
    # Beside an image of its own every prompt of the batch is padded to the longer one.
    other = prompt(1, IMAGE, 5, images=(SECOND,))
    assert cut(*inputs, other, pruning=few) is None
    assert cut(*inputs, inputs[0], other, pruning=few) is not None


@given(data=st.data())
def test_prefix_and_suffix_are_the_prompt(data):
    rows = []
    for _ in range(data.draw(st.integers(2, 6))):
        images = data.draw(st.sampled_from([(), (FIRST,), (SECOND,), (FIRST, SECOND)]))
        text = st.lists(st.integers(1, 3), max_size=3)
        ids = [one for _ in images for one in [*data.draw(text), IMAGE]]
        rows.append(
            prompt(*ids, *data.draw(st.lists(st.integers(1, 3), min_size=1)), images=images)
        )
    found = cut(*rows)
    if found is None:
        return
    for row, number, suffix in zip(rows, found.prefix_of, found.suffixes, strict=True):
        prefix = found.prefixes[number]
        assert torch.equal(torch.cat([prefix.ids, suffix]), row.ids)
        assert prefix.visual == row.visual
        assert len(suffix) >= 1
        assert IMAGE not in suffix
        assert len(prefix.ids) >= 1
    assert len(found.prefixes) < len(rows)
    assert {shared_beginning(row.ids, row.ids) for row in rows} == {len(row.ids) for row in rows}


# What models answer.


@functools.cache
def encoded(name: str, *seeds: int) -> tuple:
    model = mini(name)
    return tuple(model.encode([model.preprocess(crop(seed)) for seed in seeds], frozenset()))


def asked(name: str, images: tuple[int, ...], words=WORDS, answer: str | None = None):
    model, visual = mini(name), encoded(name, *images)
    rows = []
    for word in words:
        context = f"Is there a {word} in the image?"
        ids = model.token_ids(model.render(context, len(images), {}), visual)
        tail = 0
        if answer is not None:
            open_ended = ids
            ids = model.token_ids(model.render(context, len(images), {}, answer), visual)
            tail = len(ids) - shared_beginning(open_ended, ids)
        rows.append(ModelInput(ids, visual, images, answer=tail))
    return rows


def mixed(name: str) -> list[ModelInput]:
    """Groups of three and two, two images in a prompt, one question alone, and none."""
    text = mini(name).render("Say yes.", 0, {})
    return [
        *asked(name, (0,), WORDS[:3]),
        *asked(name, (1,), WORDS[2:4]),
        *asked(name, (2, 3), WORDS[:2]),
        *asked(name, (4,), WORDS[4:]),
        ModelInput(mini(name).token_ids(text), (), ()),
    ]


@contextmanager
def calls(model):
    """What enters the first decoder layer and what comes out as last logits, call by call."""
    lengths, logits = [], []
    family = getattr(model, "calls", None)
    decoder = model.model.model if family is None else family.family.decoder
    hooks = [
        decoder.layers[0].register_forward_pre_hook(
            lambda module, args, kwargs: lengths.append(
                tuple((args[0] if args else kwargs["hidden_states"]).shape[:2])
            ),
            with_kwargs=True,
        ),
        model.model.lm_head.register_forward_hook(lambda *args: logits.append(args[2][:, -1])),
    ]
    try:
        yield lengths, logits
    finally:
        for hook in hooks:
            hook.remove()


def answered(model, inputs, pruning, tokens=3):
    """Return answers with and without sharing, and check that all else is equal."""
    found = []
    for share in (False, True):
        trace = Trace()
        with calls(model) as (lengths, logits):
            written = model.generate(
                inputs, pruning, Generation(max_new_tokens=tokens), trace, share_prefix=share
            )
        found.append((written, trace, lengths, logits))
    (whole, one, _, _), (shared, other, _, _) = found
    assert whole == shared
    assert (one.visual, one.lengths, one.truncated) == (
        other.visual,
        other.lengths,
        other.truncated,
    )
    assert sorted(one.kept) == sorted(other.kept)
    for layer in one.kept:
        assert [k.tolist() for k in one.kept[layer]] == [k.tolist() for k in other.kept[layer]]
    return found


PRUNINGS = {
    "unpruned": None,
    "otprune": make_pruning("otprune", keep_ratio=0.3),
    "original": make_pruning("divprune", keep_ratio=0.2, positions="original"),
    "random": make_pruning("random", keep_ratio=0.5, seed=3),
    "merged": make_pruning("pooling", k=64),
}


@pytest.mark.parametrize("pruning", PRUNINGS)
@pytest.mark.parametrize("name", MINIS)
def test_answers_and_logits_are_those_of_whole_prompts(name, pruning):
    model = mini(name)
    if name == "qwen-mini" and pruning == "merged":
        pytest.skip("merging does not go with deepstack features")
    inputs = mixed(name)
    (_, _, before, expected), (_, _, after, found) = answered(model, inputs, PRUNINGS[pruning])
    assert after[0][0] == 5, "five different beginnings"
    assert after[1][0] == before[0][0] == len(inputs)
    assert sum(rows * length for rows, length in after) < sum(rows * n for rows, n in before)
    # The call that reads the prefixes has logits of its own where the whole model makes it.
    expected, found = torch.stack(expected), torch.stack(found[len(found) - len(expected) :])
    # These models' logits reach 26, a float32 of which has steps of 2e-6.
    assert float((expected - found).abs().max()) <= 1e-6 * float(expected.abs().max())


@pytest.mark.parametrize("name", MINIS)
def test_a_method_that_reads_the_question_runs_as_before(name):
    model = mini(name)
    for pruning in (
        make_pruning("fastv"),
        make_pruning("divprune", keep_ratio=0.5, layer=2, positions="original"),
    ):
        (_, _, before, _), (_, _, after, _) = answered(model, asked(name, (0,)), pruning)
        assert before == after


def test_beams_draws_and_models_without_a_cache_run_as_before(monkeypatch):
    model, inputs = mini("llava-mini"), asked("llava-mini", (0,))
    settings = [Generation(max_new_tokens=2, num_beams=2), Generation(1, temperature=1.0)]
    for one in settings:
        with calls(model) as (lengths, _):
            model.generate(inputs, None, one, Trace(), share_prefix=True)
        assert lengths[0] == (len(inputs) * one.num_beams, max(map(len, padded(inputs))))
    monkeypatch.setattr(model, "use_cache", False)
    with calls(model) as (lengths, _):
        model.generate(inputs, None, Generation(1), Trace(), share_prefix=True)
    assert len(lengths) == 1


def padded(inputs):
    return [range(len(one.ids) - 1 + len(one.visual[0])) for one in inputs]


@pytest.mark.parametrize("name", MINIS)
def test_a_stop_text_in_the_question_ends_no_answer(name):
    model, inputs = mini(name), asked(name, (0,))
    settings = Generation(max_new_tokens=4, until=("image",))
    whole = model.generate(inputs, None, settings, Trace())
    assert model.generate(inputs, None, settings, Trace(), share_prefix=True) == whole
    assert all(one.text for one in whole)
    stop = Generation(max_new_tokens=4, until=(whole[0].text[-1],))
    cut_short = model.generate(inputs, None, stop, Trace(), share_prefix=True)
    assert cut_short == model.generate(inputs, None, stop, Trace())
    assert cut_short[0].text == whole[0].text[: whole[0].text.index(whole[0].text[-1])]


@pytest.mark.parametrize("pruning", ["unpruned", "original"])
@pytest.mark.parametrize("name", MINIS)
def test_likelihoods_are_those_of_whole_prompts(name, pruning):
    model, inputs = mini(name), []
    for answer in ("yes", "no", "a snowboard on snow"):
        inputs += asked(name, (0,), WORDS[:2], answer)
    inputs += asked(name, (1,), WORDS[:2], "yes")
    one, other = Trace(), Trace()
    whole = model.loglikelihood(inputs, PRUNINGS[pruning], one)
    with calls(model) as (lengths, _):
        shared = model.loglikelihood(inputs, PRUNINGS[pruning], other, share_prefix=True)
    assert [rows for rows, _ in lengths] == [2, len(inputs)]
    for expected, found in zip(whole, shared, strict=True):
        assert found.loss == pytest.approx(expected.loss, abs=1e-4)
        assert (found.greedy, found.tokens, found.finite) == (
            expected.greedy, expected.tokens, expected.finite,
        )  # fmt: skip
    assert (one.visual, one.lengths) == (other.visual, other.lengths)
    assert list(map(len, one.kept.get(0, []))) == list(map(len, other.kept.get(0, [])))


# What the engine writes.


def requests():
    """Three questions about each of two images, one about a third, and one without an image."""
    questions = [f"Is there a {word} here?" for word in WORDS[:3]]
    rows = [(name, question) for name in PICTURES[:2] for question in questions]
    rows += [(PICTURES[2], questions[0])]
    found = [request(i, question, (name,)) for i, (name, question) in enumerate(rows)]
    likely = [
        request(20 + i, "Is it?", (PICTURES[0],), kind="loglikelihood", continuation=word)
        for i, word in enumerate(WORDS[:3])
    ]
    return [*found, request(10, questions[0], ()), *likely]


CONFIGS = [
    PruningConfig.make("otprune", 0.4),
    PruningConfig.make("divprune", 0.4, layer=2),
    PruningConfig(),
]


def run(configs=CONFIGS, **settings):
    engine = Engine(tiny(), model_name="tiny", workers=0, progress=False, **settings)
    return engine.run(requests(), configs)


def without_times(answers):
    return {
        (config.label, asked.key): (
            a.text, a.kept, a.candidates, a.new_tokens, a.truncated, a.greedy,
            None if a.loss is None else pytest.approx(a.loss, abs=1e-5),
        )
        for (config, asked), a in answers.items()
    }  # fmt: skip


def records(folder):
    with Journal(folder, readonly=True) as journal:
        return {
            (one.config, one.request): (
                one.text, one.kept, one.candidates, one.new_tokens, one.settings, one.doc_id,
                None if one.loss is None else pytest.approx(one.loss, abs=1e-5),
            )
            for one in journal
        }  # fmt: skip


def test_journals_are_the_same_and_so_are_answers_at_every_batch_size(tmp_path):
    with calls(tiny()) as (lengths, _), Journal(tmp_path / "whole") as journal:
        expected = run(batch_size=8, journal=journal, share_prefix=False)
        before = sum(rows * length for rows, length in lengths)
    with calls(tiny()) as (lengths, _), Journal(tmp_path / "shared") as journal:
        found = run(batch_size=8, journal=journal)
        after = sum(rows * length for rows, length in lengths)
    assert after < 0.75 * before
    assert without_times(found) == without_times(expected)
    assert records(tmp_path / "shared") == records(tmp_path / "whole")
    found = run(CONFIGS[:1], batch_size=3)
    assert without_times(found).items() <= without_times(expected).items()


def test_times_by_phase_are_taken_of_whole_prompts():
    with calls(tiny()) as (expected, _):
        run(CONFIGS[:1], batch_size=8, share_prefix=False)
    with calls(tiny()) as (found, _):
        answers = run(CONFIGS[:1], batch_size=8, eval_time=True)
    assert found == expected
    assert all(answer.phases for answer in answers.values())


def test_what_does_not_fit_into_memory_is_halved_and_shared_again(monkeypatch):
    model, tried = tiny(), []
    read = type(model)._continued

    def continued(self, shared, *rest):
        tried.append(len(shared.suffixes))
        if len(shared.suffixes) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return read(self, shared, *rest)

    expected = run(CONFIGS[:1], batch_size=8)
    monkeypatch.setattr(type(model), "_continued", continued)
    found = run(CONFIGS[:1], batch_size=8)
    assert found.counts.halvings >= 1
    assert {8, 4} <= set(tried)
    assert without_times(found) == without_times(expected)


def test_logits_that_are_not_finite_are_seen_behind_a_shared_prefix():
    model = mini("llava-mini")
    inputs = asked("llava-mini", (0,))
    broken = [
        ModelInput(one.ids, (ImageTokens(one.visual[0].tokens * float("inf")),), one.image_ids)
        for one in inputs[:1]
    ]
    rows = [ModelInput(one.ids, broken[0].visual, one.image_ids) for one in inputs]
    with calls(model) as (lengths, _):
        found = model.generate(rows, None, Generation(2), Trace(), share_prefix=True)
    assert lengths[0][0] == 1
    assert not any(one.finite for one in found)
