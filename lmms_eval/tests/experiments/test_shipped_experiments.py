"""Every experiment that comes with the package can be read, and its methods run in its models."""

import pytest

from otprune_lmms.embedded import EXPERIMENTS, experiment_names
from otprune_lmms.experiments.config import load_experiment


@pytest.mark.parametrize("name", experiment_names())
def test_it_is_an_experiment(name):
    experiment = load_experiment(EXPERIMENTS / f"{name}.yaml")
    configs = experiment.pruning.configs()
    assert len(set(configs)) == len(configs) > 1
    assert experiment.name not in ("", None)


@pytest.mark.parametrize("name", [one for one in experiment_names() if one.startswith("models/")])
def test_an_experiment_of_a_model_is_called_like_it(name):
    experiment = load_experiment(EXPERIMENTS / f"{name}.yaml")
    (model,) = experiment.models
    assert model.name == name.removeprefix("models/")
    assert model.family is None
    # What needs signals, or layers that a family may not have, is a choice of who runs it.
    assert all(
        not config.pruning.needs for config in experiment.pruning.configs() if config.pruning
    )
