"""What an experiment file may say, and the messages about what it may not."""

from pathlib import Path

import pytest
import yaml

from otprune_lmms.benchmarks import OTPRUNE_11
from otprune_lmms.experiments.config import ConfigError, load_experiment
from otprune_lmms.results.names import CONTROLS

ROOT = Path(__file__).parents[3]
PLAIN = {
    "name": "try",
    "title": "A try",
    "suite": "mini",
    "models": [{"name": "tiny", "pretrained": "someone/tiny", "batch_size": 2}],
    "tasks": ["gqa", {"id": "pope", "limit": 3}],
    "pruning": {"controls": False, "methods": ["otprune"], "keep_ratios": [0.1, 0.5]},
}
PUBLISHED = {"source": "a", "row": "b", "model": "tiny"}


def written(folder, content):
    path = folder / "try.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def changed(*keys, value):
    """PLAIN with one entry changed."""
    content = yaml.safe_load(yaml.safe_dump(PLAIN))
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return content


def test_a_plain_experiment(tmp_path):
    experiment = load_experiment(written(tmp_path, PLAIN))
    labels = [config.label for config in experiment.pruning.configs()]
    assert labels == ["unpruned", "otprune-0.1", "otprune-0.5"]
    assert experiment.task_limits() == {"gqa": None, "pope": 3}
    assert experiment.java == "required"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_experiment_of_the_repository_is_one(path):
    # The checkpoint of the embedded default is a folder; all else must hold without it.
    folder = path.parent
    text = path.read_text().replace("pretrained: ../", "pretrained: someone/")
    experiment = load_experiment(written_beside(folder, path.name, text))
    assert experiment.name == path.stem
    assert set(experiment.task_limits()) == set(OTPRUNE_11)
    configs = experiment.pruning.configs()
    assert configs[0].method is None
    assert {config.keep_ratio for config in configs[1:]} >= {0.098}


@pytest.fixture(autouse=True)
def _scratch(tmp_path):
    written_beside.folder = tmp_path


def written_beside(_, name, text):
    path = written_beside.folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=str)
def test_every_experiment_of_the_repository_can_be_read(path):
    experiment = load_experiment(path)
    # The study of settings that set themselves leaves captions out.
    few = path.stem in {"gamma-auto", "adaptive"}
    assert len(experiment.task_limits()) == (8 if few else 11)
    assert experiment.pruning.unpruned
    if few:
        assert experiment.name == path.stem
        return
    folder = path.parent.name
    if folder != "configs":
        parts = [path.stem, folder] if folder == "methods" else [folder, path.stem]
        assert experiment.name == "-".join(parts)
        assert (experiment.suite == "mini") == ("mini" in parts)


def test_budgets_may_be_counts_of_tokens(tmp_path):
    text = yaml.safe_dump(changed("pruning", "keep_counts", value=[192, 64]))
    kept = [(c.keep_ratio, c.k) for c in load_experiment(written(tmp_path, text)).pruning.configs()]
    assert {(None, 192), (None, 64)} <= set(kept)
    own = {"method": "divprune", "keep_counts": [7]}
    text = yaml.safe_dump(changed("pruning", "methods", value=[own]))
    configs = load_experiment(written(tmp_path, text)).pruning.configs()
    assert [config.k for config in configs if config.method] == [7]


def test_schedules_follow_budgets_or_stand_as_they_are(tmp_path):
    methods = [
        "otprune",
        {"method": "divprune", "settings": {"match": "kept"}},
        "fastv",
        {"method": "transprune", "own_schedule": True},
        {"method": "transprune", "own_schedule": True, "settings": {"preset": "low"}},
    ]
    choices = {"keep_ratios": [0.5], "match": "average", "methods": methods, "controls": False}
    content = changed("pruning", value=choices)
    configs = load_experiment(written(tmp_path, content)).pruning.configs()
    assert [config.label for config in configs] == [
        "unpruned", "otprune-0.5-average", "divprune-0.5", "fastv-0.5", "transprune",
        "transprune-low",
    ]  # fmt: skip


def own(**settings):
    """PLAIN with a method on its own schedule."""
    return changed("pruning", "methods", value=[{"own_schedule": True, **settings}])


def test_the_mini_experiment_compares_what_the_front_page_says(tmp_path):
    text = (ROOT / "configs" / "mini.yaml").read_text().replace(": ../LLaVA", ": someone")
    configs = load_experiment(written(tmp_path, text)).pruning.configs()
    assert len(configs) == 1 + 3 * (6 + 3)
    methods = {config.method for config in configs}
    assert methods == {None, "otprune", "divprune", "w2greedy", *CONTROLS}
    assert {config.keep_ratio for config in configs} == {None, 0.098, 0.2, 0.4}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("pruning", "keep_ratios", value=[1.5]), r"pruning.keep_ratios.0: .*1.*got 1.5"),
        (changed("pruning", "keep_ratios", value=[0]), r"pruning.keep_ratios.0"),
        (changed("pruning", "keep_ratios", value=[]), r"pruning.keep_ratios"),
        (changed("pruning", "keep_ratios", value=[0.5, 0.5]), r"keep_ratios must be distinct.*0.5"),
        (changed("pruning", "keep_ratios", value=["0.5"]), r"keep_ratios.0.*got '0.5'"),
        (changed("pruning", "layers", value=[-1]), r"pruning.layers.0.*got -1"),
        (
            changed("pruning", "methods", value=["otprun"]),
            r"pruning.methods.0: method must be one of",
        ),
        (changed("pruning", "methods", value=["otprune", "otprune"]), r"settings must be distinct"),
        (changed("pruning", value={}), r"pruning: must name methods"),
        (changed("title", value="a\x1b[31m"), r"title: String should match pattern"),
        (changed("tasks", value=["pope\x07"]), r"tasks.0.id: String should match pattern"),
        *(
            (changed("pruning", "keep_counts", value=[count]), "less than or equal to 1000000")
            for count in (10**30, 10**7)
        ),
        (
            changed("pruning", "methods", value=[{"method": "random", "seeds": [2**63]}]),
            r"pruning.methods.0.seeds.0: .*less than 9223372036854775808",
        ),
        (changed("name", value="a" * 101), r"name: .*at most 100 characters"),
        (changed("title", value="a" * 1001), r"title: .*at most 1000 characters"),
        (changed("suite", value="./" + "a" * 300), r"suite: no folder"),
        (changed("suite", value="./a\0"), r"suite: .*pattern"),
        (changed("limit", value=10**10), r"limit: .*less than or equal to 1000000000"),
        (
            changed("published", value=[{**PUBLISHED, "scores": {"pope": float("nan")}}]),
            r"published.0.scores.pope: .*finite number, got nan",
        ),
        (
            changed("pruning", "methods", value=[{"method": "otprune", "settings": {"gama": 1}}]),
            r"unknown setting 'gama' of pruner otprune",
        ),
        *(
            (
                changed("pruning", "methods", value=[{"method": "otprune", "settings": settings}]),
                rf"methods.0: {name} belongs in {place}, not in settings",
            )
            for settings, name, place in (
                ({"keep_ratio": 0.5}, "keep_ratio", "keep_ratios"),
                ({"k": 3}, "k", "keep_counts"),
                ({"layer": 2}, "layer", "layers"),
            )
        ),
        (
            changed("pruning", "methods", value=[{"method": "otprune", "seeds": [1]}]),
            r"unknown setting 'seed' of pruner otprune",
        ),
        (
            changed("pruning", "methods", value=[{"method": "random", "seeds": [1, 1]}]),
            r"seeds must be distinct",
        ),
        (
            changed("pruning", "methods", value=[{"method": "random", "settings": {"seed": 1}}]),
            r"seed belongs in seeds",
        ),
        (
            own(method="otprune"),
            r"own_schedule is for layer pruners, and otprune is none: it needs a budget",
        ),
        (own(method="fastv", keep_counts=[5]), r"without keep_counts; for both list the method"),
        (own(method="fastv", layers=[0]), r"own_schedule uses fastv unchanged, without layers"),
        (own(method="fastv", settings={"match": "flops"}), r"unchanged, without match"),
        (own(method="fastv", settings={"keep_ratio": 0.5}), r"unchanged, without keep_ratio"),
        (own(method="fastv", settings={"schedule": 152}), r"schedule of fastv must be text, in q"),
        (own(method="dart", settings={"preset": 192}), r"preset of dart must be text, in quotes"),
        (
            changed("pruning", value={"methods": ["fastv"], "layers": [0, 2]}),
            r"layer must be 0 for FastV, whose schedule names its layers; got 2",
        ),
        (changed("pruning", "match", value="cost"), r"pruning.match: .*got 'cost'"),
        (changed("pruning", value={"unpruned": False}), r"pruning must hold at least one method"),
        (changed("models", value=[]), r"models"),
        (changed("models", 0, "dtype", value="float8"), r"models.0.dtype: .*got 'float8'"),
        (changed("models", 0, "batch_size", value=0), r"models.0.batch_size: .*got 0"),
        (changed("models", 0, "batch_size", value=True), r"models.0.batch_size"),
        (
            changed("models", 0, "chat_template", value="x"),
            r"chat_template must be one of .*got 'x'",
        ),
        (changed("models", 0, "chat_template", value=""), r"chat_template must be one of .*got ''"),
        (changed("models", 0, "conversation", value="x"), r"key is called chat_template now"),
        (PLAIN | {"cells": PLAIN["pruning"]}, r"key is called pruning now"),
        (changed("models", 0, "name", value="a/b"), r"models.0.name: .*got 'a/b'"),
        (changed("models", value=PLAIN["models"] * 2), r"models must be distinct, got tiny"),
        (changed("models", 0, "pretrained", value="./none"), r"pretrained of tiny: no folder"),
        (changed("tasks", value=["gqa", "gqa"]), r"tasks must be distinct, got gqa"),
        (changed("tasks", value=["otprune_11", "pope"]), r"tasks must be distinct, got pope"),
        (changed("tasks", value=[]), r"tasks"),
        (changed("limit", value=0), r"limit: .*got 0"),
        (changed("suite", value="paper"), r"suite: .*got 'paper'"),
        (changed("keep_ratio", value=0.1), r"keep_ratio: unknown key"),
        (changed("pruning", "ratios", value=[0.1]), r"pruning.ratios: unknown key"),
        (changed("name", value="../x"), r"name: .*got '../x'"),
        (changed("seed_video", value="some"), r"seed_video: .*got 'some'"),
        (
            changed(
                "published",
                value=[{**PUBLISHED, "model": "other", "scores": {"gqa": 1.0}}],
            ),
            r"model must be one of the models, got 'other'",
        ),
        ({"name": "x"}, r"title: Field required"),
        ("- a\n- b\n", r"must hold keys and values, got list"),
        ("a: [", r"is no YAML"),
    ],
)
def test_impossible_experiments_are_named(content, message, tmp_path):
    with pytest.raises(ConfigError, match=message) as caught:
        load_experiment(written(tmp_path, content))
    assert "try.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml: No such file"):
        load_experiment(tmp_path / "none.yaml")


def test_seeds_layers_and_own_ratios_make_configs(tmp_path):
    methods = [
        {"method": "random", "seeds": [0, 1, 2], "keep_ratios": [0.25]},
        {"method": "divprune", "layers": [2], "settings": {"positions": "compact"}},
    ]
    experiment = load_experiment(written(tmp_path, changed("pruning", "methods", value=methods)))
    labels = [config.label for config in experiment.pruning.configs()]
    assert labels[:4] == ["unpruned", "random-0.25", "random-0.25-seed1", "random-0.25-seed2"]
    assert labels[4:] == ["divprune-0.1-layer2-compact", "divprune-0.5-layer2-compact"]


def test_mme_s_pairs_stay_together(tmp_path):
    content = changed("tasks", value=["mme", "gqa"]) | {"limit": 5}
    assert load_experiment(written(tmp_path, content)).task_limits() == {"mme": 6, "gqa": 5}
