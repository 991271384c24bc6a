"""A run: the same answers whatever the batch, the order and the journal."""

import random
from io import BytesIO

import pytest
import torch
from PIL import Image, ImageFile

from helpers import PICTURES, TINY_ANYRES, loaded, picture, request, tiny
from otprune_lmms.engine import Engine, RequestError
from otprune_lmms.journal import Journal
from otprune_lmms.pruning_config import PruningConfig

CONFIGS = [
    PruningConfig(),
    PruningConfig.make("otprune", 0.098),
    PruningConfig.make("random", 0.2),
    PruningConfig.make("divprune", 0.25, layer=2),
]
QUESTIONS = (
    "What is in this image?",
    "Is it a dog? Answer yes or no.",
    "How many are there, and of what colour is the largest of them?",
)


def many():
    """Questions about single images, several images, and none."""
    pictures = [["land.png"], ["wide.png"], ["land.png", "port.png"], []]
    return [
        request(10 * i + j, question, names)
        for i, names in enumerate(pictures)
        for j, question in enumerate(QUESTIONS)
    ]


def engine(model=None, **settings) -> Engine:
    given = {"model_name": "tiny", "workers": 0, "progress": False, **settings}
    return Engine(model or tiny(), **given)


def texts(answers) -> dict:
    return {(c.label, r.doc_id): (a.text, a.kept, a.candidates) for (c, r), a in answers.items()}


@pytest.fixture(scope="module")
def alone():
    """Answers of a run without batches, threads or journal."""
    return engine(batch_size=1).run(many(), CONFIGS)


def test_the_answers_say_what_was_kept(alone):
    requests = {one.doc_id: one for one in many()}
    two, none = requests[20], requests[30]
    assert alone[CONFIGS[0], two].kept == alone[CONFIGS[0], two].candidates == (576, 576)
    assert alone[CONFIGS[1], two].kept == (56, 56)
    assert alone[CONFIGS[3], two].kept == (144, 144)
    assert alone[CONFIGS[3], two].candidates == (576, 576)
    assert alone[CONFIGS[1], none].kept == ()
    assert alone[CONFIGS[1], none].text == alone[CONFIGS[0], none].text
    assert len({alone[config, two].text for config in CONFIGS}) == 4
    assert all(0 < answer.new_tokens <= 6 for answer in alone.values())


@pytest.mark.parametrize(("size", "workers"), [(4, 2), (12, 1)])
def test_neither_batch_nor_order_nor_threads_decide_an_answer(alone, size, workers):
    requests = many()
    random.Random(size).shuffle(requests)
    answers = engine(batch_size=size, workers=workers).run(requests, CONFIGS[::-1])
    assert texts(answers) == texts(alone)
    assert [key[1] for key in answers][: len(requests)] == requests


def test_each_image_is_encoded_once_for_all_configs_and_requests(alone):
    assert alone.counts.images == 3
    assert alone.counts.encoded == 3
    assert alone.counts.generated == alone.counts.requests == len(many()) * len(CONFIGS)


def test_two_requests_about_one_document_are_two():
    requests = [request(0, question) for question in QUESTIONS]
    answers = engine(batch_size=3).run(requests, [PruningConfig()])
    for one in requests:
        assert (
            answers[PruningConfig(), one].text
            == engine().run([one], [PruningConfig()])[PruningConfig(), one].text
        )
    assert answers.counts.generated == 3
    again = request(0, QUESTIONS[0], generation={"max_new_tokens": 1})
    with pytest.raises(RequestError, match="document 0 of task .* other generation settings"):
        engine().run([*requests, again], [PruningConfig()])


def test_equal_requests_are_answered_once():
    requests = [request(i, QUESTIONS[0]) for i in range(3)] + [request(0, QUESTIONS[0])]
    answers = engine().run(requests, [PruningConfig()])
    assert answers.counts.generated == 1
    assert len({answers[PruningConfig(), one].text for one in requests}) == 1


def test_a_second_run_takes_everything_from_the_journal(alone, tmp_path):
    with Journal(tmp_path) as journal:
        first = engine(journal=journal, batch_size=4).run(many(), CONFIGS[:2])
    assert first.counts.generated == 24
    with Journal(tmp_path) as journal:
        again = engine(journal=journal).run(many(), CONFIGS[:3])
        assert (again.counts.reused, again.counts.generated) == (24, 12)
        assert texts(again) == {key: v for key, v in texts(alone).items() if "layer" not in key[0]}
        settings = [one.settings for one in journal if one.config == CONFIGS[1].answer_key]
        assert settings[0] == {"method": "otprune", "keep_ratio": 0.098}
        assert len(settings) == 12
    with Journal(tmp_path) as journal:
        last = engine(journal=journal).run(many(), CONFIGS[:3])
    assert (last.counts.generated, last.counts.encoded) == (0, 0)


def test_a_journal_says_what_wrote_it_and_that_the_code_has_changed(tmp_path, monkeypatch, caplog):
    generated = []
    for source in ("one", "one", "two"):
        monkeypatch.setattr("otprune_lmms.engine.engine.source_of", lambda _, s=source: s)
        assert "other source code" not in caplog.text
        with Journal(tmp_path) as journal:
            runner = engine(journal=journal)
            asked = [request(0), request(len(journal.sessions))]
            generated.append(runner.run(asked, [PruningConfig()]).counts.generated)
            header = journal.header
    assert "other source code" in caplog.text
    assert generated == [1, 0, 1]
    assert header["models"] == {runner.model.fingerprint: "tiny"}
    assert header["versions"]["torch"] == torch.__version__
    assert (header["device"], header["dtype"]) == ("cpu", "torch.float32")
    with Journal(tmp_path, readonly=True) as journal:
        sources = [list(one["sources"].values()) for one in journal.sessions]
        assert sources == [["one"], ["two"]]


def test_another_model_template_or_video_rule_takes_nothing_from_the_journal(tmp_path):
    asked = [request(1, pictures=("land.png", "port.png"), video=True)]

    def reused(model=None, **settings) -> int:
        with Journal(tmp_path) as journal:
            runner = engine(model, journal=journal, **settings)
            return runner.run(asked, [PruningConfig()]).counts.reused

    assert reused() == 0
    assert reused() == 1
    assert reused(tiny(chat_template="llava_v1")) == 0
    assert reused(seed_video="all_frames") == 0
    weight = loaded()[1].model.layers[0].mlp.up_proj.weight
    before = weight[0, 0].item()
    with torch.no_grad():
        weight[0, 0] += 1
    assert reused() == 0
    with torch.no_grad():
        weight[0, 0] = before
    assert reused() == 1


def test_videos_are_their_first_frame_unless_asked_otherwise():
    frames = request(1, pictures=("land.png", "port.png", "square.png"), video=True)
    images = request(2, pictures=("land.png", "port.png", "square.png"))
    first = engine().run([frames, images], [PruningConfig()])
    assert first[PruningConfig(), frames].candidates == (576,)
    assert first[PruningConfig(), images].candidates == (576, 576, 576)
    alone = engine().run([request(3, pictures=("land.png",))], [PruningConfig()])
    assert [a.text for a in alone.values()] == [first[PruningConfig(), frames].text]
    every = engine(seed_video="all_frames").run([frames, images], [PruningConfig()])
    assert every[PruningConfig(), frames].text == first[PruningConfig(), images].text


def test_anyres_images_of_several_shapes_go_together():
    requests = [request(i, pictures=(name,)) for i, name in enumerate(("port.png", "wide.png"))]
    configs = [PruningConfig(), PruningConfig.make("otprune", 0.1, keep_newlines=True)]
    one = engine(tiny(TINY_ANYRES)).run(requests, configs)
    assert texts(
        engine(tiny(TINY_ANYRES), batch_size=4, workers=2).run(requests, configs)
    ) == texts(one)
    assert len({one[configs[0], r].candidates for r in requests}) > 1


def test_the_released_forks_mistakes_do_not_reach_a_neighbour():
    config = PruningConfig.make("otprune", 0.1, compat="reference")
    requests = [request(i, pictures=(name,)) for i, name in enumerate(PICTURES)]
    one, several = engine().run(requests, [config]), engine(batch_size=4).run(requests, [config])
    assert texts(one) == texts(several)


def test_drawn_answers_depend_on_the_request_alone():
    hot = {"temperature": 1.5, "max_new_tokens": 8}
    requests = [request(i, QUESTIONS[i], generation=hot) for i in range(3)]
    repeats = [request(0, QUESTIONS[0], generation=hot, repeat=n) for n in (1, 2)]
    one = engine().run(requests + repeats, [PruningConfig()])
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    several = engine(batch_size=3).run((requests + repeats)[::-1], [PruningConfig()])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {r.key: one[PruningConfig(), r].text for r in requests + repeats} == {
        r.key: several[PruningConfig(), r].text for r in requests + repeats
    }
    assert len({one[PruningConfig(), r].text for r in [requests[0], *repeats]}) == 3


def test_generation_settings_of_a_task_stay_with_it():
    requests = [
        request(0, generation={"max_new_tokens": 2}, task="short"),
        request(1, QUESTIONS[1], generation={"max_new_tokens": 5, "num_beams": 2}, task="beams"),
        request(2, QUESTIONS[2], task="plain"),
    ]
    together = engine(batch_size=8).run(requests, [PruningConfig()])
    for one in requests:
        assert (
            engine().run([one], [PruningConfig()])[PruningConfig(), one].text
            == together[PruningConfig(), one].text
        )
    assert together[PruningConfig(), requests[0]].new_tokens <= 2


def test_an_aspect_ratio_that_a_task_asks_for_does_not_stay(monkeypatch):
    wide = {"pictures": ("wide.png",)}
    square = request(0, generation={"image_aspect_ratio": "square"}, task="a", **wide)
    padded = request(1, generation={"image_aspect_ratio": "pad"}, task="b", **wide)
    neither = request(2, task="c", **wide)
    own = engine().run([square, padded, neither], [PruningConfig()])
    assert len({answer.text for answer in own.values()}) == 1, "the checkpoint's own rule holds"
    monkeypatch.delattr(loaded()[1].config, "image_aspect_ratio")
    answers = engine().run([padded, square, neither], [PruningConfig()])
    assert answers[PruningConfig(), padded].text == own[PruningConfig(), neither].text
    assert answers[PruningConfig(), square].text == answers[PruningConfig(), neither].text
    assert answers[PruningConfig(), square].text != answers[PruningConfig(), padded].text
    assert answers.counts.encoded == 3


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (lambda: [Image.open(BytesIO(content()[:2000]))], "runcated"),
        (lambda: [Image.open(BytesIO(b"nothing"))], "cannot identify image file"),
        (lambda: [picture("land.png"), "a path"], "image 1 must be a PIL image, got str"),
        (lambda: [picture("none.png")], "none.png"),
    ],
)
def test_a_broken_image_is_named(images, reason):
    assert ImageFile.LOAD_TRUNCATED_IMAGES, "lmms-eval lets truncated images pass"
    bad = request(7, task="pope")
    object.__setattr__(bad, "images", images)
    for workers in (0, 2):
        with pytest.raises(RequestError, match=rf"document 7 of pope \(test\): .*{reason}"):
            engine(workers=workers).run([request(1), bad], [PruningConfig()])
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("error", [MemoryError, lambda: RuntimeError("can't allocate memory")])
def test_an_image_that_takes_too_much_memory_is_left_out_alone(error, monkeypatch):
    model = tiny()
    plain = model.preprocess

    def preprocess(image, view=None):
        if image.size == picture("wide.png").size:
            raise error()
        return plain(image, view)

    monkeypatch.setattr(model, "preprocess", preprocess)
    asked = [request(0), request(1, pictures=("wide.png",))]
    answers = engine(model, batch_size=2).run(asked, [PruningConfig()], lambda failed: ())
    assert list(answers.requests) == asked[:1]
    assert [one.reason for one in answers.failed] == ["its images do not fit into memory"]
    with pytest.raises(RequestError, match=r"document 1 of task \(test\): its images do not fit"):
        engine(model).run(asked, [PruningConfig()])


def content() -> bytes:
    """A whole image file."""
    with BytesIO() as file:
        picture("land.png").save(file, "PNG")
        return file.getvalue()


def test_a_context_that_places_other_images_is_named():
    bad = request(3, "<image> and <image>", ("land.png",), task="mmmu_val")
    with pytest.raises(RequestError, match="document 3 of mmmu_val .* places 2 images"):
        engine().run([bad], [PruningConfig()])
    placed = request(4, "Look at <image> well.")
    assert engine().run([placed], [PruningConfig()])[PruningConfig(), placed].candidates == (576,)


def test_a_context_that_is_no_text_is_named():
    bad = request(5, None)
    with pytest.raises(RequestError, match="document 5 of .* context must be a text, got NoneType"):
        engine().run([bad], [PruningConfig()])


def test_a_layer_that_the_model_lacks_is_refused_before_any_answer(tmp_path):
    with Journal(tmp_path) as journal, pytest.raises(ValueError, match="layer must be in 0"):
        engine(journal=journal).run(
            [request(1)], [PruningConfig(), PruningConfig.make("otprune", 0.1, layer=99)]
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"workers": -1}, "workers >= 0"),
        ({"seed_video": "last"}, "seed_video must be first_frame or all_frames"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        engine(**settings)
