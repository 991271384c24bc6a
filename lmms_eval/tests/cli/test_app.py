"""The command ``otprune`` as a whole: what it offers, what it imports, what it refuses at once."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from helpers import PARITY, TINY
from otprune import PRUNERS
from otprune_lmms.cli.app import app
from otprune_lmms.suggestions import did_you_mean

LAND = PARITY / "images" / "land.png"
HEAVY = {"torch", "pandas", "lmms_eval", "transformers", "datasets", "otprune", "llava", "numpy"}
COMMANDS = [one.callback.__name__ for one in app.registered_commands if one.callback]


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def test_help_version_completion_and_slips_import_nothing_heavy(tmp_path):
    """They answer in a fraction of a second; in one process, since each start costs as much."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    calls = [["--help"], ["--version"], ["--show-completion", "bash"], ["runn"]]
    calls += [[command, "--help"] for command in ("sweep", "prune", "bench")]
    calls += [
        [command, "nowhere.yaml"] for command in ("run", "sweep", "status", "bench", "analyze")
    ]
    calls += [["run", str(broken)], ["slurm", "nowhere.yaml", "--shards", "2"]]
    calls += [["prune", "nowhere.png"], ["prune", str(LAND), "--model", "./nowhere"]]
    calls += [["prune", str(LAND), "--model", str(TINY), "--method", "otprune:gamma=["]]
    code = f"""
import sys
from typer.testing import CliRunner
from otprune_lmms.cli.app import app
for words in {calls!r}:
    done = CliRunner().invoke(app, words)
    wanted = 0 if words[-1].startswith("--") or "bash" in words else 2
    assert done.exit_code == wanted, (words, done.output)
    loaded = {HEAVY!r} & set(sys.modules)
    assert not loaded, (words, loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


LITTLE = """
import resource, sys
from otprune_lmms.cli.app import app
resource.setrlimit(resource.RLIMIT_AS, (3 << 29, 3 << 29))
app(sys.argv[1:])
"""


def test_too_little_address_space_is_a_sentence_before_anything_heavy_waits_for_more(tmp_path):
    path = tmp_path / "try.yaml"
    path.write_text("name: try\nsuite: mini\n")
    for words in (["run", path], ["prune", LAND, "--model", TINY], ["verify", tmp_path]):
        done = subprocess.run(
            [sys.executable, "-c", LITTLE, *map(str, words)],
            **{"capture_output": True, "text": True, "check": False, "timeout": 60},
        )
        assert "1536 MiB of address space (ulimit -v), and models with their libraries need" in (
            done.stderr
        )
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.returncode == (2 if words[0] == "prune" else 1)


def test_memory_that_ends_is_a_sentence(monkeypatch, capsys):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr("otprune_lmms.cli.methods.say", full)
    monkeypatch.setattr("otprune_lmms.cli.terminal.Listing.show", full)
    with pytest.raises(SystemExit) as ended:
        app(["methods"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: the memory that this process may use is not enough\n"


def test_the_version_is_said():
    done = invoke("--version")
    assert done.exit_code == 0
    assert done.output.startswith("otprune 0.")
    assert "torch 2." in done.output
    assert "lmms_eval 0.7.3" in done.output


def test_all_methods_are_listed():
    done = invoke("methods")
    assert done.exit_code == 0
    listed = {line.split()[0]: line for line in done.output.splitlines() if line}
    assert PRUNERS.keys() <= listed.keys()
    assert "selector" in listed["otprune"]
    assert "merger" in listed["tome"]
    assert "layer pruner" in listed["fastv"]


def test_a_method_is_described():
    done = invoke("methods", "--describe", "FastV")
    assert "arXiv 2403.06764" in done.output
    assert '  schedule: "2:0.5"' in done.output
    assert "  preset k3: schedule " in done.output
    done = invoke("methods", "--describe", "fastvv")
    assert done.exit_code == 2
    assert "did you mean 'fastv'?" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_no_text_of_help_is_read_as_markup(command):
    """Square brackets would vanish: `pip install 'otprune[transport]'`."""
    (one,) = [c for c in app.registered_commands if c.callback and c.callback.__name__ == command]
    assert "[" not in (one.callback.__doc__ or "").split("Args:")[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("runn", "x"), "Did you mean 'run'"),
        (("run", "--limt", "3", "x"), "--limit"),
        (("run", "try.yml"), "try.yml: No such file or directory; did you mean 'try.yaml'?"),
        (("run", "try.yaml", "--journal", ""), "it must name a file or folder, got nothing"),
        (("sweep", "try.yaml", "--output-dir", " "), "it must name a file or folder"),
        (("run", ""), "it must name a file or folder, got nothing"),
        (("run", "x" * 300), "File name too long"),
        (("bench", "x" * 300), "File name too long"),
        (("status", "x" * 300), "File name too long"),
        (("status", ""), "it must name a file or folder, got nothing"),
        (("analyze", " "), "it must name a file or folder, got nothing"),
        (("bench", ""), "it must name a file or folder, got nothing"),
        (("table", ""), "it must name a file or folder, got nothing"),
        (("plot", ""), "it must name a file or folder, got nothing"),
        (("report", ""), "it must name a file or folder, got nothing"),
        (("verify", ""), "it must name a file or folder, got nothing"),
        (("prune", ""), "it must name a file or folder, got nothing"),
        (("run", "try.yaml", "--batch-size", "1000000000"), "less than or equal to 4096"),
        (("run", "gpu.yaml"), "models.0: device must be cpu, cuda, cuda:N or mps"),
        (("run", "none.yaml"), "device must be cpu, cuda, cuda:N or mps, got ''"),
        (("run", "far.yaml"), "far: device of tiny must be"),
        (("sweep", "far.yaml"), "far: device of tiny must be"),
        (("bench", "far.yaml"), "far: device of tiny must be"),
        (("analyze", "far.yaml"), "far: device of tiny must be"),
        (("run", "key.yaml"), "key.yaml: limt: unknown key; did you mean 'limit'?"),
        (("run", "method.yaml"), "got 'fastvv'; did you mean 'fastv'?"),
        *(
            ((command, where), f"it must be a folder that is there, got '{where}'")
            for command in ("table", "plot", "report", "verify")
            for where in ("no/folder", "try.yaml")
        ),
        (("report", ".", "--tasks", "try.yaml"), "'--tasks': it must be a folder"),
        (("verify", ".", "--config-dir", ""), "it must name a file or folder"),
        (("prune", LAND, "--device", "gpu"), "--device must be cpu, cuda, cuda:N or mps"),
        (("prune", LAND, "--device", "cuda:99"), "--device must be"),
        (("prune", LAND, "--method", "otprune:gamma=["), "got '[' for gamma"),
        (("prune", LAND, "--method", "otprune:gamma=2001-02-30"), "for gamma"),
    ],
)
def test_a_slip_is_a_sentence(words, message, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write()
    model = {"name": "tiny", "pretrained": str(TINY)}
    write("gpu", models=[{**model, "device": "gpu"}])
    write("none", models=[{**model, "device": ""}])
    write("far", models=[{**model, "device": "cuda:99"}])
    write("key", limt=3)
    write("method", {"methods": ["fastvv"]})
    words = (*words, "--model", TINY) if words[0] == "prune" else words
    done = invoke(*words)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())


def test_status_and_slurm_take_experiments_for_devices_of_other_machines(
    write, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write("far", models=[{"name": "tiny", "pretrained": str(TINY), "device": "cuda:7"}])
    assert invoke("slurm", "far.yaml", "--shards", "2").exit_code == 0
    assert invoke("status", "far.yaml").exit_code == 0


def test_the_nearest_name_is_suggested_and_nothing_far():
    assert did_you_mean("PoPe", ["pope", "gqa"]) == "; did you mean 'pope'?"
    assert did_you_mean("otprun", ["otprune", "w2greedy"]) == "; did you mean 'otprune'?"
    assert did_you_mean("xyz", ["pope", "gqa"]) == ""
    assert did_you_mean("", []) == ""
    assert did_you_mean("p" * 10**6, ["pope"]) == ""
