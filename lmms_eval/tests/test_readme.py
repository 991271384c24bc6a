"""The harness's README, and docs/compare.md, do what they say."""

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from helpers import ROOT, TINY
from otprune_lmms.experiments.config import load_experiment
from suites import make_suite

PAGE = (Path(__file__).parents[1] / "README.md").read_text()
COMPARE = (ROOT / "docs" / "compare.md").read_text()


def block(language, with_text=""):
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.S)
    return next(one for one in blocks if with_text in one)


def test_the_example_experiment_is_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(block("yaml", "suite:"))
    experiment = load_experiment(path)
    assert experiment.task_limits() == {"pope": None, "gqa": 2000}
    labels = [config.label for config in experiment.pruning.configs()]
    assert len(labels) == len(set(labels)) == 1 + 2 * 3 * (1 + 1 + 3) + 3
    assert "otprune-0.098-layer2-gamma0.05" in labels


def test_the_python_runs(tmp_path, capsys):
    suite = make_suite(tmp_path / "suite", ["pope"])
    code = block("python").replace('"liuhaotian/llava-v1.5-7b"', repr(str(TINY)))
    code = code.replace('load_tasks(["pope"])', f'load_tasks(["pope"], Path({str(suite)!r}))')
    code = code.replace("limit=100", "limit=2").replace("keep_ratio=0.098", "keep_ratio=0.25")
    exec(compile(code, "README.md", "exec"), {"Path": Path})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["unpruned", "otprune-0.25"]
    assert all(0 <= float(line.split()[1]) <= 1 for line in lines)


def test_its_commands_exist():
    from otprune_lmms.__main__ import app

    named = set(re.findall(r"^(?:EVAL_TIME=true )?otprune (\w+) ", PAGE, flags=re.M))
    named |= set(re.findall(r"`otprune (\w+)", PAGE))
    known = {one.callback.__name__ for one in app.registered_commands if one.callback}
    assert {"run", "sweep", "status", "verify", "bench", "slurm"} <= named <= known


def test_the_experiment_of_the_page_about_comparing_is_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", COMPARE, flags=re.S)[0])
    experiment = load_experiment(path)
    assert experiment.task_limits() == {"pope": None, "gqa": 500}
    # The even stride joins as a control.
    assert len(experiment.pruning.configs()) == 1 + 2 * (2 + 3 + 1)


def test_the_commands_of_the_page_about_comparing_exist():
    lines = re.findall(r"^\.venv/bin/otprune (\w+) (\S+)", COMPARE, flags=re.M)
    assert {"run", "sweep", "status", "verify", "leaderboard"} <= {name for name, _ in lines}
    for _, given in lines:
        if given.endswith(".yaml"):
            load_experiment(ROOT / given)


@pytest.mark.parametrize(
    "page",
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.*")],
    ids=lambda page: page.name,
)
def test_commands_that_pages_name_exist_with_their_options(page):
    from otprune_lmms.__main__ import app

    commands = get_command(app).commands
    code = re.findall(r"(?:^|`|/bin/)otprune ([a-z]\w*)([^`\n]*)", page.read_text(), flags=re.M)
    for name, rest in code:
        assert name in commands, f"otprune {name}"
        known = {word for one in commands[name].params for word in (*one.opts, *one.secondary_opts)}
        for option in re.findall(r" (--[\w-]+)", rest.partition("#")[0]):
            assert option in {*known, "--help", "--json"}, f"otprune {name} {option}"


def test_its_model_arguments_are_those_that_are_read():
    import dataclasses

    from otprune_lmms.model_arguments import Arguments

    named = set(re.findall(r"`(\w+)`", PAGE.split("| `--model_args`")[1].split("\n\n")[0]))
    fields = {field.name for field in dataclasses.fields(Arguments)} - {"config"}
    assert fields - {"max_batch_size"} <= named


def test_the_yaml_of_the_page_is_yaml():
    assert yaml.safe_load(block("yaml", "suite:"))["suite"] == "hub"


def test_the_models_of_the_page_are_entries_of_an_experiment():
    from otprune_lmms.experiments.config import ModelChoice

    models = yaml.safe_load(block("yaml", "qwen3-vl"))["models"]
    assert [ModelChoice(**one).name for one in models] == ["qwen3-vl-4b", "llava-mini"]
