"""The command ``otprune`` as a whole: what it offers, what it imports, what it refuses at once."""

import dataclasses
import importlib.metadata
import inspect
import json
import shlex
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import tiny_vlms
from helpers import PARITY, TINY
from otprune import BUILT_IN, PRUNERS, Selector
from otprune_lmms.cli.app import app
from otprune_lmms.cli.method_sources import built_in_methods
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
    calls += [["serve", "--help"], ["serve", "./nowhere"], ["serve", "some/model"]]
    calls += [["methods"], ["methods", "--json"]]
    calls += [["models", "--family", "nothing"], ["models", "--family", "llava", "--json"]]
    code = f"""
import sys
from typer.testing import CliRunner
from otprune_lmms.cli.app import app
for words in {calls!r}:
    done = CliRunner().invoke(app, words)
    good = words[-1].startswith("--") or "bash" in words or words == ["methods"]
    wanted = 0 if good else 2
    assert done.exit_code == wanted, (words, done.output)
    loaded = {HEAVY!r} & set(sys.modules)
    assert not loaded, (words, loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_an_experiment_is_checked_without_models_and_frames(tmp_path):
    """A mistake in one is told, and scripts for a cluster are written, once torch is there."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: 7\nlimt: 3\nmodels: [{name: m, pretrained: llava-mini}]\n")
    calls = [(["run", str(broken)], 2), (["sweep", str(broken), "--shard", "1/2"], 2)]
    calls += [(["slurm", "mini", "mini/table1", "--shards", "2"], 0)]
    code = f"""
import sys
from typer.testing import CliRunner
from otprune_lmms.cli.app import app
for words, wanted in {calls!r}:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == wanted, (words, done.output)
    loaded = {HEAVY - {"torch", "numpy", "otprune", "llava"}!r} & set(sys.modules)
    assert not loaded, (words, loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_serve_prints_the_command_that_it_would_run(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["Qwen3VLForConditionalGeneration"]}')
    done = invoke("serve", tmp_path, "--method", "otprune:gamma=0.05", "--keep-ratio", 0.2,
                  "--", "--port", 8001)  # fmt: skip
    assert done.exit_code == 0, done.output
    words = shlex.split(done.output)
    assert words[:3] == ["vllm", "serve", str(tmp_path)]
    assert words[5:] == ["--trust-request-mm-kwargs", "--port", "8001"]
    assert json.loads(words[words.index("--hf-overrides") + 1]) == {
        "architectures": ["OTPruneQwen3VLForConditionalGeneration"],
        "otprune": {"method": "otprune", "keep_ratio": 0.2, "gamma": 0.05},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "fastv"], "fastv drops tokens inside the language model"),
        (["--method", "cdpruner"], "cdpruner reads the question"),
        (["--keep-ratio", "9.8"], "keep_ratio must be in (0, 1], got 9.8"),
        (["--architecture", "FuyuForCausalLM"], "got 'FuyuForCausalLM'"),
        (["--run"], "--run needs vLLM and otprune-vllm in this environment"),
    ],
)
def test_serve_refuses_in_a_sentence_what_no_server_can_do(tmp_path, words, message):
    (tmp_path / "config.json").write_text('{"architectures": ["LlavaForConditionalGeneration"]}')
    done = invoke("serve", tmp_path, *words)
    assert done.exit_code == 2
    assert message in done.output


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

    assert "arXiv 1207.6083" in listed["dpp"]
    assert "Gonzalez 1985" in listed["farthest_point"]
    kinds = [one["kind"] for one in json.loads(invoke("methods", "--json").stdout)]
    assert kinds == sorted(kinds, key=["selector", "merger", "layer pruner"].index)


def test_the_list_from_the_source_is_that_of_the_classes():
    read = {one.name: (one.kind, one.text) for one in built_in_methods()}
    listed = {one["name"]: one for one in json.loads(invoke("methods", "--json").stdout)}
    assert list(read) == list(BUILT_IN)
    for name, (kind, text) in read.items():
        assert kind == listed[name]["kind"]
        assert text == inspect.getdoc(BUILT_IN[name])


def test_methods_of_other_packages_are_listed_and_described(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Mine(Selector):
        """Keep mine.

        Source: Somebody 2026, in a talk.
        """

        weight: float
        parts: tuple[str, ...] = ("a", "b")

    Mine.__module__ = "my_package.mine"
    monkeypatch.setattr(Mine, "__abstractmethods__", frozenset())
    monkeypatch.setitem(PRUNERS, "mine", Mine)
    line = next(one for one in invoke("methods").output.splitlines() if one.startswith("mine "))
    assert " ".join(line.split()) == "mine selector Somebody 2026 my_package Keep mine"
    said = invoke("methods", "--describe", "mine").output
    assert "  weight: float, required" in said
    assert '  parts: tuple[str, ...], default ["a", "b"]' in said
    assert "Models of transformers: not run, since the method is of another package" in said
    assert "they may depend on settings that have no default" in said


def test_a_method_is_described():
    done = invoke("methods", "--describe", "FastV")
    assert "arXiv 2403.06764" in done.output
    assert '  schedule: str, default "2:0.5"' in done.output
    assert "  preset k3: schedule " in done.output
    done = invoke("methods", "--describe", "otprune")
    assert '  variant: "code" or "paper", default "code"' in done.output
    assert "with these defaults: none" in done.output
    done = invoke("methods", "--describe", "tome")
    assert "with these defaults: cls_attention, encoder_keys, features\n" in done.output
    assert "no CLS token: encoder_keys, features, received_attention\n" in done.output
    # What its stage before the language model needs.
    done = invoke("methods", "--describe", "tops")
    assert "with these defaults: cls_attention\n" in done.output
    assert "  refused in " in done.output
    described = json.loads(invoke("methods", "--describe", "tops", "--json").stdout)
    assert set(described["families"]["no"].popitem()[1]) < set(tiny_vlms.FAMILIES)
    done = invoke("methods", "--describe", "fastvv")
    assert done.exit_code == 2
    assert "did you mean 'fastv'?" in done.stderr


def test_models_are_listed_with_what_runs_in_them():
    done = invoke("models")
    assert done.exit_code == 0
    columns = {}
    for line in done.output.splitlines():
        if line[1:3] == ": ":
            columns |= dict.fromkeys(
                line[3:].split(", "), "ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(line[0])
            )
    rows = {line.split()[0]: line.split()[1:] for line in done.output.splitlines() if line}
    found = json.loads(invoke("models", "--json").stdout)["families"]
    assert list(found) == list(tiny_vlms.FAMILIES)
    for family, answers in found.items():
        assert list(answers) == sorted(BUILT_IN)
        for method, answer in answers.items():
            assert rows[family][columns[method]] == answer["answer"]
            assert ("why" in answer) == (answer["answer"] == "no")


def test_one_family_or_method_is_told_with_reasons(monkeypatch):
    said = invoke("models", "--family", "QWEN2_5_VL").output
    assert "fastervlm selector no (" in " ".join(said.split())
    assert "FasterVLM needs cls_attention, which the family does not give: its vision" in said
    assert 'original: with positions="original"' in said
    said = invoke("models", "--method", "fastv", "--family", "llava").output
    assert [line.split() for line in said.splitlines() if line.startswith("llava")] == [
        ["llava", "fastv", "layer", "pruner", "yes"]
    ]
    assert "original" not in said
    other = importlib.metadata.EntryPoint("mine", "my_package:Mine", "otprune.methods")
    monkeypatch.setattr("otprune_lmms.cli.models.entry_points", lambda group: [other])
    done = invoke("models", "--method", "mine")
    assert done.exit_code == 2
    assert done.stderr == (
        "error: --method mine is of another package, whose methods were not run\n"
    )


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
        (("models", "--family", "qwen25_vl"), "got 'qwen25_vl'; did you mean 'qwen2_5_vl'?"),
        (("models", "--method", "fastvv"), "got 'fastvv'; did you mean 'fastv'?"),
        (("methods", "--describe", "fastvv", "--json"), "did you mean 'fastv'?"),
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
