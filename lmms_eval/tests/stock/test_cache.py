"""Runs that differ in a pruning setting never share an answer, and say which setting they had."""

from itertools import combinations

import pytest
from lmms_eval.caching.response_cache import ResponseCache
from lmms_eval.models import MODEL_REGISTRY_V2
from lmms_eval.models.registry_v2 import ModelManifest

from fake_wrapper import FakeStock
from helpers import Done, command, pope_rows, write_task
from otprune_lmms import stock_wrappers
from otprune_lmms.launch import command_line
from otprune_lmms.stock import classes
from otprune_lmms.stock_wrappers import Kinds
from tiny_checkpoints import write_checkpoint

DOCUMENTS = 4
HALF = "method=divprune,keep_ratio=0.5"
SETTINGS = [
    "", HALF, "method=divprune,keep_ratio=0.25", "method=otprune,keep_ratio=0.5",
    "method=divprune,k=32", f"{HALF},layer=1", f"{HALF},unit=sample", f"{HALF},positions=original",
    "method=otprune,keep_ratio=0.5,gamma=0.5",
    "method=random,k=9,seed=1", "method=random,k=9,seed=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    write_checkpoint(folder, "llava")
    return folder


@pytest.fixture
def run(main, monkeypatch, tmp_path, checkpoint):
    """lmms-eval's command line, which knows our fake wrapper as one of its own."""
    monkeypatch.setitem(stock_wrappers.WRAPPERS, "fake", Kinds(simple=True, chat=False))
    for module in (stock_wrappers, command_line):
        monkeypatch.setattr(module, "STOCK_IDS", ("otprune_fake",))
    registry = [MODEL_REGISTRY_V2._manifests, MODEL_REGISTRY_V2._alias_to_model_id]
    for names in registry:
        for name in ("fake", "otprune_fake"):
            monkeypatch.setitem(names, name, None)
            monkeypatch.delitem(names, name)
    paths = {"fake": "fake_wrapper.FakeStock", "otprune_fake": "otprune_lmms.stock.simple.fake"}
    for name, path in paths.items():
        MODEL_REGISTRY_V2.register_manifest(ModelManifest(name, simple_class_path=path))
    # The cache also knows answers by the commit of the repository that it is installed in.
    monkeypatch.setattr("lmms_eval.utils.get_git_commit_hash", lambda: "one")
    write_task(tmp_path / "tasks", "pope", "test", pope_rows(DOCUMENTS))
    count = iter(range(100))

    def run(settings="", *more, model="otprune_fake", **variables):
        """Answers of a run, the hits of the cache, and the whole result."""
        output = tmp_path / f"run{next(count)}"
        arguments = ",".join(filter(None, [f"pretrained={checkpoint}", settings]))
        given = command(tmp_path / "tasks", output, arguments, *more, model=model)
        said = main(*given[3:], "--use_cache", str(tmp_path / "cache"), **variables)
        done = Done(0, said, output)
        return done.answers("pope"), int(said.split("ResponseCache stats: ")[1].split()[0]), done

    yield run
    classes.pruned_class.cache_clear()


def test_no_run_takes_another_setting_s_answers_from_the_cache(run):
    found = {}
    for settings in ("", HALF, "method=divprune,keep_ratio=0.25"):
        answers, hits, _ = run(settings)
        assert hits == 0
        found[settings] = answers
    assert all(one != other for one, other in combinations(found.values(), 2))
    assert run(HALF)[:2] == (found[HALF], DOCUMENTS)
    # Nor does the stock wrapper, though it would answer alike.
    assert run(model="fake")[:2] == (found[""], 0)


def test_the_environment_s_settings_are_in_the_cache_and_in_the_results(run, checkpoint):
    answers, _, done = run(HALF)
    assert done.results["config"]["model_args"] == f"pretrained={checkpoint},{HALF}"
    assert done.results["config"]["model"] == "otprune_fake"
    assert done.results["throughput"]["avg_visual_tokens_kept"] == 32
    assert "divprune-0.5: kept 32.0 of 64.0 visual tokens" in done.text
    variables = {"BASELINE": "DIVPRUNE", "SUBSET_RATIO": "0.5"}
    again, hits, done = run(**variables)
    assert (again, hits) == (answers, DOCUMENTS)
    assert done.results["config"]["model_args"] == f"pretrained={checkpoint},{HALF}"
    assert run(BASELINE="DIVPRUNE", SUBSET_RATIO="0.25")[1] == 0


def fingerprint(folder, model, model_args=""):
    cache = ResponseCache.create(str(folder), model=model, model_args=model_args)
    cache.close()
    return cache._model_fingerprint_hash


def test_every_setting_is_in_the_cache_s_key(tmp_path):
    texts = [",".join(filter(None, ["pretrained=here", one])) for one in SETTINGS]
    found = [fingerprint(tmp_path, "otprune_qwen2_5_vl", text) for text in texts]
    assert len(set(found)) == len(SETTINGS)
    assert found == [fingerprint(tmp_path, "otprune_qwen2_5_vl", text) for text in texts]
    assert fingerprint(tmp_path, "qwen2_5_vl", texts[0]) not in found


def test_so_it_is_where_lmms_eval_is_given_a_model_and_no_text(tmp_path, checkpoint):
    Pruned = classes.subclass(FakeStock, "fake")
    found = []
    for settings in SETTINGS:
        text = ",".join(filter(None, [f"pretrained={checkpoint}", settings]))
        found.append(fingerprint(tmp_path, Pruned.create_from_arg_string(text)))
    assert len(set(found)) == len(SETTINGS)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("method=divprune,keep_ratio=9.8", "keep_ratio must be in (0, 1], got 9.8"),
        ("method=divprun,k=3", "did you mean 'divprune'?"),
        ("method=divprune,k=3,colour=red", "unknown argument 'colour' in model_args"),
        ("method=divprune", "keep_ratio"),
    ],
)
def test_a_bad_setting_ends_lmms_eval_with_a_sentence_and_no_answer(run, settings, said):
    with pytest.raises(SystemExit) as caught:
        run(settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code not in (0, None)
