"""What is diagnosed is what the model would keep."""

import logging

import pandas as pd
import pytest
import torch
from PIL import Image

from helpers import TINY, TINY_ANYRES, loaded, picture, request, tiny
from llava.images import process_images
from llava.mm_utils import tokenizer_image_token
from otprune.pruning import Trace
from otprune_lmms.engine.prepare import image_hash, image_number
from otprune_lmms.experiments.diagnostics.diagnose import DiagnosticsOptions, diagnose
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.results.diagnostics import COLUMNS, diagnostics_frame

CONFIGS = [
    PruningConfig.make("otprune", keep_ratio=0.098),
    PruningConfig.make("divprune", keep_ratio=0.098),
    PruningConfig.make("random", keep_ratio=0.25, seed=3),
    PruningConfig.make("uniform", k=5),
    PruningConfig.make("first_k", k=4),
    PruningConfig.make("last_k", k=4),
    PruningConfig.make("otprune", keep_ratio=0.098, order="reference"),
    PruningConfig.make("divprune", keep_ratio=0.25, match="flops"),
    PruningConfig.make("fastervlm", k=5),
]


def diagnosed(requests, configs, checkpoint=TINY, **settings):
    options = DiagnosticsOptions(**({"exact": False} | settings))
    lines = diagnose(tiny(checkpoint), requests, configs, model_name="tiny", options=options)
    return diagnostics_frame(lines)


def kept_by_the_model(checkpoint, name, config):
    tokenizer, model, processor, _ = loaded(checkpoint)
    image = picture(name)
    pixels = process_images([image], processor, model.config)
    trace = Trace()
    with torch.inference_mode():
        model.generate(
            tokenizer_image_token("USER: <image>\nWhat?", tokenizer, return_tensors="pt")[None],
            visual=model.encode_visual(pixels, [image.size], config.pruning.needs),
            image_ids=[image_number(image_hash(image))],
            pruning=config.pruning,
            trace=trace,
            max_new_tokens=1,
            do_sample=False,
        )
    return trace.kept[0][0].tolist()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.label)
def test_kept_sets_are_those_of_the_model(config):
    (row,) = diagnosed([request(0)], [config]).to_dict("records")
    assert row["kept"] == kept_by_the_model(TINY, "land.png", config)
    assert (row["n"], row["height"], row["width"]) == (576, 24, 24)
    assert row["seconds"] > 0


@pytest.mark.parametrize("newlines", [False, True])
def test_kept_sets_of_several_tiles_are_those_of_the_model(newlines):
    config = PruningConfig.make("divprune", k=40, keep_newlines=newlines)
    (row,) = diagnosed([request(0)], [config], TINY_ANYRES).to_dict("records")
    assert row["kept"] == kept_by_the_model(TINY_ANYRES, "land.png", config)
    assert (len(row["kept"]) > 40) == newlines
    assert (row["height"], row["width"]) == (0, 0)


def test_known_kept_sets():
    table = diagnosed([request(0)], CONFIGS).set_index("setting")["kept"]
    assert table["first_k-k4"] == [0, 1, 2, 3]
    assert table["last_k-k4"] == [572, 573, 574, 575]
    assert table["uniform-k5"] == [57, 172, 288, 403, 518]


def test_columns_and_measures():
    table = diagnosed([request(0, task="pope")], [*CONFIGS[:3], PruningConfig.make()], exact=True)
    assert list(table.columns) == [*COLUMNS, "seconds"]
    assert list(table["setting"]) == [config.label for config in CONFIGS[:3]]
    assert list(table["row"]) == ["otprune-0.098", "divprune-0.098", "random-0.25"]
    assert table["seed"].tolist()[2] == 3
    assert (table["exact_w2"] >= table["gaussian_w2"]).all()
    assert set(table["task"]) == {"pope"}


def test_more_than_there_are_keeps_all():
    (row,) = diagnosed([request(0)], [PruningConfig.make("otprune", k=9999)]).to_dict("records")
    assert row["kept"] == list(range(576))
    assert row["coverage"] == 0
    assert row["gaussian_w2"] == pytest.approx(0, abs=1e-6)
    assert row["effective_rank"] == pytest.approx(1)


def test_each_image_is_encoded_once(monkeypatch):
    model = loaded(TINY)[1]
    seen, plain = [], model.encode_visual
    monkeypatch.setattr(model, "encode_visual", lambda *a, **k: seen.append(1) or plain(*a, **k))
    requests = [
        request(0, task="a"),
        request(1, "another question", task="a"),
        request(0, task="b"),
        request(1, task="b", pictures=("port.png", "land.png")),
        request(2, "text only", task="b", pictures=()),
    ]
    table = diagnosed(requests, [PruningConfig.make("first_k", k=2)])
    assert len(seen) == 2
    places = set(zip(table["task"], table["image"], table["cluster"], strict=True))
    assert len(places) == len(table) == 4
    assert set(table.loc[table["task"] == "a", "doc_id"]) < {0, 1}
    assert list(table["task"].unique()) == ["a", "b"]


def test_no_more_images_than_asked_for():
    names = ("land.png", "port.png", "square.png", "wide.png")
    requests = [request(i, task=t, pictures=(names[i],)) for t in "ab" for i in range(4)]
    table = diagnosed(requests, [PruningConfig.make("first_k", k=2)], images=2)
    assert list(table.groupby("task")["cluster"].nunique()) == [2, 2]
    again = diagnosed(requests, [PruningConfig.make("first_k", k=2)], images=2)
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), again.drop(columns="seconds"))
    with pytest.raises(ValueError, match="images must be at least 1"):
        diagnosed(requests, CONFIGS, images=0)


def test_what_the_question_decides_is_left_out_and_said(caplog):
    configs = [
        PruningConfig.make("otprune", keep_ratio=0.1, layer=1),
        PruningConfig.make("otprune", keep_ratio=0.1, compat="reference"),
        PruningConfig.make("tome", keep_ratio=0.1),
        PruningConfig.make("cdpruner", keep_ratio=0.1, relevance="llm"),
        PruningConfig.make("fastv", schedule="1:0.5/3:0.25"),
        PruningConfig.make("first_k", k=1),
    ]
    with caplog.at_level(logging.INFO):
        table = diagnosed([request(0)], configs)
    assert list(table["setting"]) == ["first_k-k1"]
    assert "otprune-0.1-layer1 is not diagnosed: it prunes at layer 1" in caplog.text
    assert "compat='reference'" in caplog.text
    assert "tome-0.1 is not diagnosed: it merges tokens" in caplog.text
    assert "relevancellm is not diagnosed: its selection depends on the question" in caplog.text
    assert "is not diagnosed: it prunes at layer 1, 3, on hidden states" in caplog.text
    assert diagnosed([request(0)], configs[:-1]).empty


def test_a_layer_that_the_model_lacks_does_not_matter_and_text_has_no_rows():
    assert diagnosed([request(0, pictures=())], [PruningConfig.make("first_k", k=1)]).empty


def test_a_broken_image_is_skipped_and_named(caplog):
    broken = request(7)

    def fail():
        raise OSError("truncated")

    object.__setattr__(broken, "images", fail)
    table = diagnosed([broken, request(8)], [PruningConfig.make("first_k", k=1)])
    assert set(table["doc_id"]) == {8}
    assert "document 7 of task (test): truncated" in caplog.text


def test_a_seeded_method_goes_by_the_content_of_the_image():
    config = PruningConfig.make("random", k=9, seed=1)
    first = diagnosed([request(0), request(1, pictures=("port.png",))], [config])
    assert len(set(map(tuple, first["kept"]))) == 2
    alone = diagnosed([request(5)], [config])
    assert alone["kept"][0] in list(first["kept"])
    assert isinstance(picture("land.png"), Image.Image)
