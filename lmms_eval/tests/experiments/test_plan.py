"""What several experiments ask, put together."""

from collections import Counter
from pathlib import Path

import pytest

from otprune_lmms.experiments.config import ConfigError, Experiment
from otprune_lmms.experiments.plan import Source, plan_of
from otprune_lmms.experiments.shard import Shard

HERE = Path("/configs")
MODEL = {"name": "m", "pretrained": "some/model", "batch_size": 4}
OTHER = {"name": "other", "pretrained": "other/model"}


def source(name, configs, tasks=("pope", "gqa"), models=(MODEL,), folder=HERE, **more):
    content = {"name": name, "title": name, "suite": "mini", "models": list(models)}
    content |= {"tasks": list(tasks), "pruning": {"controls": False, **configs}, **more}
    return Source(Experiment.model_validate(content), folder)


RATIOS = source("ratios", {"methods": ["otprune"], "keep_ratios": [0.098, 0.2]})
METHODS = source("methods", {"methods": ["otprune", "divprune"], "keep_ratios": [0.098]})
SMALL = source("small", {"methods": ["otprune"], "keep_ratios": [0.098]}, ["gqa", "mme"], limit=3)


def counted(plans):
    """How often each (model, task, limit, config) is requested."""
    return Counter(
        (one.model.name, task, limit, config.label)
        for one in plans
        for part in one.groups
        for task, limit in part.tasks
        for config in part.configs
    )


def test_experiments_that_ask_alike_are_one_group_with_all_their_configs():
    (one,) = plan_of([RATIOS, METHODS])
    (part,) = one.groups
    assert part.tasks == (("pope", None), ("gqa", None))
    labels = [config.label for config in part.configs]
    assert labels == ["unpruned", "otprune-0.098", "otprune-0.2", "divprune-0.098"]
    assert one.names == ("ratios", "methods")
    assert not one.strict
    (one,) = plan_of([RATIOS, source("strict", {"methods": []}, strict=True)])
    assert one.strict


def test_everything_is_requested_and_nothing_twice():
    found = counted(plan_of([RATIOS, METHODS, SMALL]))
    alone = counted(plan_of([RATIOS])) + counted(plan_of([METHODS])) + counted(plan_of([SMALL]))
    assert set(found) == set(alone)
    assert set(found.values()) == {1}
    assert found["m", "mme", 4, "unpruned"] == 1, "a pair of questions is not split"


def test_data_of_other_folders_is_another_group(tmp_path):
    configs = {"methods": []}
    here = source("here", configs, suite="./tasks")
    there = source("there", configs, suite="./tasks", folder=tmp_path)
    stock = source("stock", configs, suite="hub")
    (one,) = plan_of([here, there, stock])
    folders = [part.folder for part in one.groups]
    assert folders == [HERE / "tasks", (tmp_path / "tasks").resolve(), None]
    video = source("video", configs, suite="hub", seed_video="all_frames")
    (one,) = plan_of([stock, video])
    assert [part.seed_video for part in one.groups] == ["first_frame", "all_frames"]


def test_a_model_under_two_names_is_one_and_its_other_settings_are_the_first_s():
    again = MODEL | {"name": "again", "batch_size": 1}
    two = source("two", {"methods": []}, models=[again, OTHER], workers=7)
    plans = plan_of([RATIOS, two])
    assert [one.model.name for one in plans] == ["m", "other"]
    assert (plans[0].model.batch_size, plans[0].workers) == (4, 7)
    half = MODEL | {"name": "half", "dtype": "float16"}
    plans = plan_of([RATIOS, source("half", {"methods": []}, models=[half])])
    assert [one.model.name for one in plans] == ["m", "half"], "another dtype answers otherwise"


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_shards_by_configs_share_no_config_through_all_experiments(count):
    both = source("both", {"methods": ["random"]}, models=[MODEL, OTHER])
    sources = [RATIOS, METHODS, SMALL, both]
    shards = [plan_of(sources, Shard(i + 1, count, "configs")) for i in range(count)]
    assert sum((counted(shard) for shard in shards), Counter()) == counted(plan_of(sources))
    pairs = [{(key[0], key[3]) for key in counted(shard)} for shard in shards]
    assert sum(map(len, pairs)) == len(set().union(*pairs)) == 7
    assert all(part.configs for shard in shards for one in shard for part in one.groups)


def test_shards_by_documents_ask_everything():
    assert plan_of([RATIOS], Shard(2, 3)) == plan_of([RATIOS])


def test_names_that_stand_for_two_things_are_refused():
    with pytest.raises(ConfigError, match="names of their own, got ratios twice"):
        plan_of([RATIOS, METHODS, RATIOS])
    other = source("other", {"methods": []}, models=[MODEL | {"dtype": "float16"}])
    with pytest.raises(ConfigError, match="share a name must be the same, got m for some/model"):
        plan_of([RATIOS, other])
    local = MODEL | {"pretrained": "./model"}
    one = source("one", {"methods": []}, models=[local])
    moved = source("two", {"methods": []}, models=[local], folder=HERE / "sub")
    with pytest.raises(ConfigError, match="in two, for /configs/sub/model"):
        plan_of([one, moved])
