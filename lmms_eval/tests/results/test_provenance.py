"""What results say about where they come from is true, and can be run."""

import importlib.util
import json
import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from helpers import ROOT
from otprune_lmms import provenance
from otprune_lmms.cli.app import app


def loaded_from(file: Path):
    """The module, as an installation at another place has it."""
    spec = importlib.util.spec_from_file_location("installed_provenance", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_a_repository_around_an_installation_is_not_its_origin(tmp_path):
    installed = f"installed version {version('otprune-lmms')}"
    place = tmp_path / ".venv" / "site-packages" / "otprune_lmms"
    place.mkdir(parents=True)
    file = place / "provenance.py"
    file.write_text(Path(provenance.__file__).read_text())
    module = loaded_from(file)
    assert module.commit() == installed, "no repository at all"
    git(tmp_path, "init", "-q")
    (tmp_path / "theirs.txt").write_text("1")
    git(tmp_path, "add", "theirs.txt")
    git(tmp_path, "commit", "-qm", "theirs")
    assert module.commit() == installed, "a repository that does not hold it"
    git(tmp_path, "add", "-f", ".venv")
    git(tmp_path, "commit", "-qm", "ours")
    assert module.commit() == git(tmp_path, "rev-parse", "--short=12", "HEAD")
    file.write_text(file.read_text() + "\n")
    assert module.commit().endswith(" + changes")


def commands():
    """Every command that a committed file of results names."""
    found = set()
    for path in sorted((ROOT / "results").glob("*/*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for one in (content, content.get("origin", {}), *content.get("runs", ())):
            found |= {one["command"]} if "command" in one else set()
    return sorted(found)


@pytest.mark.parametrize("command", commands())
def test_a_committed_command_can_be_run(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(command)
    if program == "otprune":
        group = typer.main.get_command(app)
        assert isinstance(group, typer.core.TyperGroup)
        name, *words = words
        group.commands[name].make_context(name, list(words))  # raises where options are unknown
    else:
        assert program in ("python", "bash")
    named = [word for word in words if "/" in word or word.endswith((".yaml", ".py", ".sh"))]
    assert named
    assert [word for word in named if not Path(word).exists()] == []
