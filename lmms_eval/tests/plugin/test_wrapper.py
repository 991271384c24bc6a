"""Our class under lmms-eval's contract, beside lmms-eval's own."""

import copy
import logging
import warnings
from importlib.metadata import entry_points

import pytest
import torch
from lmms_eval.api.instance import Instance
from lmms_eval.models import get_model
from lmms_eval.models.registry_v2 import ModelRegistryV2
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from helpers import PICTURES, TINY, TINY_ANYRES, picture
from otprune_lmms.engine import RequestError, requests_from
from otprune_lmms.environment import SettingsError
from otprune_lmms.lmms_model import PrunedModel
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.scoring import java

DOCUMENTS = [[name] for name in PICTURES] + [["land.png", "port.png"], []]
QUESTIONS = (
    "What is in this image?\nAnswer the question using a single word or phrase.",
    "<image 1> Which is larger?",
)


def instances(split="test", task="task", **generation):
    return [
        Instance(
            request_type="generate_until",
            arguments=(
                question,
                copy.deepcopy({"max_new_tokens": 5, **generation}),
                lambda doc: [picture(name) for name in doc],
                number,
                task,
                split,
            ),
            idx=0,
            metadata={"task": task, "doc_id": number, "repeats": 1},
        )
        for number in range(len(DOCUMENTS))
        for question in QUESTIONS
    ]


def ours(**settings) -> PrunedModel:
    model = PrunedModel(**{"pretrained": str(TINY), "device": "cpu", **settings})
    model.task_dict = {"task": {"test": DOCUMENTS}}
    return model


@pytest.mark.parametrize(
    "checkpoint",
    [TINY, pytest.param(TINY_ANYRES, marks=pytest.mark.long)],
    ids=lambda path: path.name,
)
def test_unpruned_answers_are_those_of_the_stock_wrapper(checkpoint):
    with warnings.catch_warnings():
        # The module switches warnings off for the whole process.
        from lmms_eval.models.simple.llava import Llava as Stock
    stock = Stock(pretrained=str(checkpoint), device="cpu", device_map="auto", batch_size=1)
    stock.task_dict = {"task": {"test": DOCUMENTS}}
    # An image of 1.6 is up to 2880 tokens: the last documents only.
    asked = instances(max_new_tokens=3)[0 if checkpoint == TINY else 6 :: 2]
    want = stock.generate_until(asked)
    found = ours(pretrained=str(checkpoint)).generate_until(asked)
    assert found == want
    assert len(set(want)) > 2
    batched = ours(pretrained=str(checkpoint), batch_size=5)
    assert batched.generate_until(asked) == want


def test_pruned_answers_are_those_of_the_stock_wrapper_around_a_pruned_model():
    with warnings.catch_warnings():
        from lmms_eval.models.simple.llava import Llava as Stock
    stock = Stock(pretrained=str(TINY), device="cpu", device_map="auto", batch_size=1)
    stock.task_dict = {"task": {"test": DOCUMENTS}}
    stock.model.pruning = PruningConfig.make("otprune", 0.098).pruning
    model = ours(method="otprune", keep_ratio=0.098, layer=0)
    assert model.generate_until(instances()[::2]) == stock.generate_until(instances()[::2])


def test_the_settings_of_the_environment_are_the_model_s(monkeypatch):
    monkeypatch.setenv("BASELINE", "OURS")
    monkeypatch.setenv("SUBSET_RATIO", "0.098")
    monkeypatch.setenv("LAYER_INDEX", "0")
    model = ours()
    assert model.config == PruningConfig.make("otprune", 0.098)
    text = f"pretrained={TINY}"
    with pytest.raises(SettingsError, match="here give model_args .*keep_ratio=0.098"):
        PrunedModel.create_from_arg_string(text, {"device": "cpu"})
    whole = f"{text},method=otprune,keep_ratio=0.098,layer=0"
    assert PrunedModel.create_from_arg_string(whole, {"device": "cpu"}).config == model.config
    assert "otprune" in repr(model)
    assert "0.098" in repr(model)


def test_what_lmms_eval_asks_a_model():
    model = ours(batch_size=3)
    assert (model.rank, model.world_size, model.batch_size) == (0, 1, 3)
    assert model.device == torch.device("cpu")
    assert model.accelerator.num_processes == 1
    assert PrunedModel.is_simple
    with pytest.raises(NotImplementedError, match="task has requests of several rounds"):
        model.generate_until_multi_round(instances()[:1])
    model.clean()
    with pytest.raises(RuntimeError, match=r"freed by clean\(\)"):
        model.generate_until(instances())


def test_lmms_eval_finds_our_class_under_its_own_id():
    assert get_model("llava") is PrunedModel
    assert get_model("otprune_llava", force_simple=True) is PrunedModel
    registry = ModelRegistryV2()
    registry.load_entrypoint_manifests()
    assert registry.get_manifest("llava").simple_class_path == "otprune_lmms.lmms_model.PrunedModel"
    assert [one.name for one in entry_points(group="lmms_eval.models")] == ["otprune"]


def test_what_lmms_eval_clones_to_fill_a_rank_is_answered_and_journalled_once(tmp_path):
    padded = instances()[:3]
    clone = copy.copy(padded[-1])
    clone.metadata = {**clone.metadata, "__padding_only__": True}
    clone.resps = []
    model = ours(journal=str(tmp_path))
    answers = model.generate_until([*padded, clone, clone])
    assert answers[2:] == [answers[2]] * 3
    assert model.answers is not None
    assert model.answers.counts.generated == 3
    (part,) = tmp_path.glob("part-*.jsonl")
    assert len(part.read_text().splitlines()) == 1 + 3
    model.clean()


def test_repeated_samples_are_drawn_anew_and_greedy_ones_are_not():
    one = instances(temperature=2.0, max_new_tokens=8)[0]
    same = instances()[0]
    drawn = ours().generate_until([one, one, one])
    assert len(set(drawn)) > 1
    model = ours()
    assert len(set(model.generate_until([same, same, same]))) == 1


def test_loglikelihoods_are_losses_and_flags():
    arguments = instances()[0].arguments
    asked = [
        Instance(
            "loglikelihood",
            (arguments[0], target, *arguments[2:]),
            number,
            {"task": "task", "doc_id": 0, "repeats": 1},
        )
        for number, target in enumerate(("yes", lambda doc: doc[0]))
    ]
    found = ours().loglikelihood(asked)
    assert [type(part) for pair in found for part in pair] == [float, bool] * 2
    assert all(loss > 0 for loss, _ in found)


def test_other_kinds_of_requests_are_refused():
    one = instances()[0]
    for kind, arguments in (
        ("generate_until_agentic", one.arguments),
        ("loglikelihood", ("", "an answer", lambda doc: [], 0, 0, "task", "test")),
    ):
        bad = Instance(kind, arguments, 0, one.metadata)
        with pytest.raises(RequestError, match=kind):
            requests_from([bad], {"task": {"test": DOCUMENTS}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "gpu7"}, "device must be cpu, cuda, cuda:N or mps, got 'gpu7'"),
        ({"foo": 1}, "unknown argument 'foo'"),
        ({"method": "otprune", "keep_ratio": 0.1, "layer": 40}, r"layer must be in 0\.\."),
        ({"method": "otprune", "keep_ratio": 3}, r"keep_ratio must be in \(0, 1\]"),
    ],
)
def test_mistakes_are_found_before_anything_is_loaded(monkeypatch, settings, message):
    def loading(*args, **kwargs):
        raise AssertionError("loaded")

    monkeypatch.setattr("otprune_lmms.lmms_model.load_model", loading)
    with pytest.raises(SettingsError, match=message):
        ours(**settings)


def test_an_editable_lmms_eval_is_refused(monkeypatch):
    import importlib.machinery
    import importlib.util

    found = importlib.machinery.ModuleSpec("lmms_eval", None)
    found.submodule_search_locations = ["lmms_eval"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(RuntimeError, match="must be installed from its wheel, found lmms_eval"):
        ours()


@pytest.mark.parametrize("kind", ["generate_until", "loglikelihood"])
def test_a_model_whose_logits_are_not_finite_answers_nothing(kind):
    model = ours()
    with torch.no_grad():
        next(model._engine.model.model.model.layers.parameters())[0, 0] = float("inf")
    one = instances()[0]
    second = "yes" if kind == "loglikelihood" else one.args[1]
    asked = [Instance(kind, (one.args[0], second, *one.args[2:]), 0, one.metadata)]
    with pytest.raises(RequestError, match="document 0 of .* under unpruned: .*finite"):
        getattr(model, kind)(asked)


@pytest.mark.skipif(java() is None, reason="no Java")
def test_a_line_break_in_a_caption_moves_no_other_where_lmms_eval_scores():
    ours()
    captions = {
        0: [{"caption": "two\rcats"}],
        1: [{"caption": "a\u2028dog"}],
        2: [{"caption": "x"}],
    }
    assert PTBTokenizer().tokenize(captions) == {0: ["two cats"], 1: ["a dog"], 2: ["x"]}


def test_prompts_that_are_cut_are_counted_and_warned_of(caplog):
    model = ours()
    model._engine.model.model.config.tokenizer_model_max_length = 600
    logging.getLogger("otprune_lmms").setLevel(logging.WARNING)
    asked = instances()[:1]
    asked[0].arguments = ("word " * 40, *asked[0].args[1:])
    model.generate_until(asked)
    assert "1 of 1 prompts are longer than the model takes, and cut" in caplog.text
