"""What the four wheels hold, by their settings; scripts/check_wheels.sh builds and uses them."""

import ast
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers import ROOT
from llava.checkpoint.files import CheckpointFiles
from llava.embedded import EMBEDDED, embedded_folder
from otprune_lmms.cli.app import app
from otprune_lmms.embedded import EXPERIMENTS, MINI_TASKS, experiment_file, experiment_names
from otprune_lmms.experiments.config import load_experiment
from otprune_lmms.scoring.tasks import data_files

PACKAGES = {
    ".": "src/otprune",
    "LLaVA": "llava",
    "lmms_eval": "otprune_lmms",
    "src/otprune-vllm": "otprune_vllm",
}
"""The package's folder by the folder of its settings."""


def settings(folder: str) -> dict:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_wheel_has_the_license(folder):
    project = settings(folder)["project"]
    assert project["license"] == "Apache-2.0"
    assert project["license-files"] == ["LICENSE"]
    assert (ROOT / folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_file_of_a_package_is_in_its_wheel(folder):
    package = ROOT / folder / PACKAGES[folder]
    packed = set()
    for name, patterns in settings(folder)["tool"]["setuptools"]["package-data"].items():
        base = package.joinpath(*name.split(".")[1:])
        for pattern in patterns:
            found = [one for one in base.glob(pattern) if one.is_file()]
            assert found, f"{pattern} of {name} fits no file"
            packed.update(found)
    # Links to folders are followed, as setuptools does; a file in one stands for all of them.
    links = [one for one in package.rglob("*") if one.is_symlink()]
    files = [one for top in (package, *links) for one in top.rglob("*") if one.is_file()]
    missing = {one for one in files if one.suffix not in (".py", ".pyc")} - packed
    names = {one.relative_to(package) for one in missing if one.name != "ruff.toml"}
    assert not {name for name in names if not any(part.startswith(".") for part in name.parts)}


def test_every_entry_point_leads_somewhere():
    points = dict(settings("lmms_eval")["project"]["scripts"])
    for group in settings("lmms_eval")["project"]["entry-points"].values():
        points |= group
    assert set(points) == {"otprune"}
    for target in points.values():
        module, _, name = target.partition(":")
        spec = find_spec(module)  # to import lmms_registry would change this process's lmms-eval
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text())
        found = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        found += [
            ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)
        ]
        assert name in found


def test_embedded_experiments_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"mini", "mini/gamma", "methods/mini", "paper"} <= set(experiment_names())
    assert experiment_file("mini") == EXPERIMENTS / "mini.yaml"
    for name in experiment_names():
        experiment = load_experiment(experiment_file(name))
        if experiment.suite == "mini":
            named = {model.pretrained for model in experiment.models}
            assert named <= {"llava-mini", "qwen-mini"}, "a path leads nowhere in a wheel"
    done = CliRunner().invoke(app, ["slurm", "mini/gamma", "--shards", "2"])
    assert done.exit_code == 0, done.output
    scripts = [one.read_text() for one in tmp_path.rglob("*.sbatch")]
    assert any(str(EXPERIMENTS / "mini" / "gamma.yaml") in script for script in scripts)


def test_a_file_of_one_s_own_comes_before_an_embedded_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mini").mkdir()
    assert experiment_file("mini") == EXPERIMENTS / "mini.yaml"
    assert experiment_file("nothing") == Path("nothing")
    assert experiment_file("../mini") == Path("../mini")
    Path("paper").write_text("name: mine\n")
    assert experiment_file("paper") == Path("paper")
    said = CliRunner().invoke(app, ["run", "minni"]).stderr
    assert "did you mean 'mini'?" in said


def test_the_embedded_model_and_data_are_whole():
    (name,) = EMBEDDED
    folder = embedded_folder(name)
    assert folder is not None
    assert CheckpointFiles(name).json("config.json")["num_hidden_layers"] == 8
    assert (folder / "model.safetensors").stat().st_size > 1 << 20
    for task in MINI_TASKS.glob("*.yaml"):
        assert all(file.is_file() for file in data_files(task.stem, MINI_TASKS)), task


WITHOUT_LMMS_EVAL = """
import contextlib, io, sys
sys.modules["lmms_eval"] = None
from otprune_lmms.cli.app import app
for words in {calls!r}:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            app(words)
    except SystemExit as ended:
        print(repr((ended.code, said.getvalue())))
"""


def test_without_lmms_eval_a_command_says_how_to_install_it(tmp_path):
    """In a process of its own, where nothing has imported lmms-eval before."""
    calls = [[name, "mini"] for name in ("run", "sweep", "status", "bench", "analyze")]
    calls += [["verify", str(ROOT / "results" / "mini")]]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LMMS_EVAL.format(calls=[*calls, ["methods"], ["--help"]])],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    ends = [eval(line) for line in done.stdout.splitlines() if line.startswith("(")]
    assert [code for code, _ in ends] == [2] * len(calls) + [0, 0]
    for _, said in ends[: len(calls)]:
        assert said.endswith("is not installed: pip install --no-deps lmms_eval==0.7.3\n")
        assert said.count("\n") == 1
