"""A new family of models is a file and a line: everything else finds it by its name."""

import sys
from types import ModuleType

import pytest
from typer.testing import CliRunner

from helpers import TINY
from otprune_lmms import models
from otprune_lmms.cli.app import app
from otprune_lmms.experiments.config import ConfigError
from otprune_lmms.model_arguments import SettingsError, parse
from otprune_lmms.models import llava, llava_source
from runs import run


@pytest.fixture
def loaded(monkeypatch):
    """What was loaded as a family "other": LLaVA under another name."""
    found = []
    module = ModuleType("other_family")

    def load(source):
        found.append(source)
        return llava.load(source)

    module.load, module.check_source = load, llava_source.check_source
    monkeypatch.setitem(sys.modules, "other_family", module)
    monkeypatch.setitem(models.FAMILIES, "other", "other_family")
    return found


def test_an_experiment_names_it(source, loaded, tmp_path):
    entry = {"name": "tiny", "pretrained": str(TINY), "family": "other", "batch_size": 4}
    one = source(models=[entry], tasks=["gqa"], limit=1)
    outcome = run(one, tmp_path / "journal", tmp_path / "results")
    assert [given.family for given in loaded] == ["other"]
    assert len(outcome.records)


def test_model_args_name_it(loaded):
    assert parse({"pretrained": str(TINY), "family": "other"}).source().family == "other"
    assert parse({"pretrained": str(TINY)}).source().family is None


def test_prune_names_it(loaded, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), "red").save("image.png")
    arguments = ["prune", "image.png", "--model", str(TINY), "--family", "other", "--k", "5"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert [given.family for given in loaded] == ["other"]


def test_an_unknown_one_is_refused_with_the_known_ones(source):
    message = "family must be one of llava, transformers; got 'lava'"
    with pytest.raises(ConfigError, match=message):
        source(models=[{"name": "tiny", "pretrained": str(TINY), "family": "lava"}])
    with pytest.raises(SettingsError, match=message):
        parse({"pretrained": str(TINY), "family": "lava"})
