"""The controls that an experiment has unless it leaves them out."""

import pytest
import yaml

from helpers import TINY
from otprune_lmms.experiments.config import ConfigError, load_experiment

SELECTING = ["random", "random", "random", "uniform"]
ALL = [*SELECTING, "pooling", "downsample"]
LLAVA = {"name": "a", "pretrained": "someone/llava", "family": "llava"}


def loaded(folder, models=(LLAVA,), **pruning):
    content = {
        "name": "try",
        "title": "A try",
        "suite": "mini",
        "models": list(models),
        "tasks": ["gqa"],
        "pruning": {"methods": ["otprune"]} | pruning,
    }
    path = folder / "try.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_experiment(path)


def methods(experiment):
    return [one.method for one in experiment.pruning.configs()]


def test_they_come_after_the_methods_at_every_budget(tmp_path):
    experiment = loaded(tmp_path, keep_ratios=[0.1, 0.3], keep_counts=[20])
    budgets = ["-0.1", "-0.3", "-k20"]
    labels = [config.label for config in experiment.pruning.configs()]
    assert labels[:4] == ["unpruned", *(f"otprune{one}" for one in budgets)]
    random = [f"random{one}{seed}" for one in budgets for seed in ("", "-seed1", "-seed2")]
    assert set(labels[4:]) == {
        *random,
        *(f"{name}{one}" for name in ("uniform", "pooling", "downsample") for one in budgets),
    }


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (LLAVA, ALL),
        ({"name": "a", "pretrained": "llava-mini"}, ALL),
        ({"name": "a", "pretrained": str(TINY)}, ALL),
        ({"name": "a", "pretrained": "qwen-mini"}, SELECTING),
        ({"name": "a", "pretrained": "someone/llava"}, SELECTING),
        ({"name": "a", "pretrained": "llava-mini", "backend": "vllm"}, SELECTING),
        ({"name": "a", "pretrained": "qwen-mini", "family": "transformers"}, SELECTING),
    ],
)
def test_those_that_merge_are_for_models_known_to_be_llava(model, expected, tmp_path):
    assert methods(loaded(tmp_path, [model])) == [None, "otprune", *expected]


def test_all_models_must_run_them(tmp_path):
    models = [LLAVA, {"name": "b", "pretrained": "qwen-mini"}]
    assert methods(loaded(tmp_path, models)) == [None, "otprune", *SELECTING]


def test_what_the_file_lists_stays_as_it_is(tmp_path):
    listed = [{"method": "random", "seeds": [7]}, "otprune", "pooling"]
    found = loaded(tmp_path, methods=listed)
    assert methods(found) == [None, "random", "otprune", "pooling", "uniform", "downsample"]
    assert found.pruning.configs()[1].label.endswith("seed7")


def test_they_are_left_out_on_demand(tmp_path):
    assert methods(loaded(tmp_path, controls=False)) == [None, "otprune"]


@pytest.mark.parametrize(
    "listed", [[], [{"method": "fastv", "own_schedule": True}]], ids=["none", "own schedule"]
)
def test_without_a_budget_there_are_none(listed, tmp_path):
    expected = [None, *(one["method"] for one in listed)]
    assert methods(loaded(tmp_path, methods=listed)) == expected


def test_budgets_of_a_method_of_its_own_count_too(tmp_path):
    listed = [{"method": "divprune", "keep_ratios": [0.2]}, {"method": "dpp", "keep_counts": [9]}]
    configs = loaded(tmp_path, methods=listed).pruning.configs()
    assert {(one.keep_ratio, one.k) for one in configs[1:]} == {(0.2, None), (None, 9)}
    assert sum(one.method == "uniform" for one in configs) == 2


def test_they_prune_before_the_language_model_and_match_what_the_others_do(tmp_path):
    configs = loaded(tmp_path, layers=[2, 3], match="average", keep_ratios=[0.5]).pruning.configs()
    layers = [one.pruning.stages[0].layer for one in configs[1:]]
    assert layers == [2, 3, *[0] * len(ALL)]
    assert {one.pruning.target for one in configs[1:]} == {configs[1].pruning.target}


def test_a_label_that_is_also_a_control_s_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"controls: .*labels must be distinct.*controls: false"):
        loaded(tmp_path, methods=[{"method": "otprune", "label": "Random"}])
    listed = [{"method": "otprune", "label": "Random"}]
    assert methods(loaded(tmp_path, methods=listed, controls=False)) == [None, "otprune"]
