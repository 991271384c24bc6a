"""Job scripts: what they tell Slurm, and what they do under a Slurm of straw.

A Slurm of flesh and blood is in scripts/test_slurm.sh.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from helpers import ROOT, wait_until
from otprune_lmms.cli.slurm import slurm
from otprune_lmms.cluster.slurm import SlurmJob, array_script, tables_script, write_scripts

JOB = SlurmJob(name="otprune-x", configs=("configs/a b.yaml",), shards=3, python="./my python")

PYTHON = """\
#!/usr/bin/env bash
# Writes down how it was called, and then behaves as it is told to.
printf '%s\\n' "$@" > called
env > environment
echo start >> starts
{behaviour}
"""


def directives(script):
    return re.findall(r"^#SBATCH (.*)$", script, flags=re.MULTILINE)


@pytest.fixture
def folder(tmp_path):
    """A folder with a space in its name, and programs named sbatch and scontrol."""
    folder = tmp_path / "my folder"
    (folder / "bin").mkdir(parents=True)
    fake = {
        # Slurm ends the script that has itself requeued.
        "scontrol": 'echo "$@" >> scontrol; kill -KILL $PPID',
        "sbatch": 'printf "%s\\n" "$PWD" "$@" -- >> sbatch; echo "$((RANDOM + 1));cluster"',
    }
    for name, line in fake.items():
        program(folder / "bin" / name, f"#!/usr/bin/env bash\n{line}\n")
    return folder


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def run(folder, script="array.sbatch", behaviour="exit 0", after=None, job=JOB, **variables):
    """Run a job script as Slurm does; return (status, output)."""
    program(folder / "my python", PYTHON.format(behaviour=behaviour))
    write_scripts(job, folder / "out put", folder)
    given = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_ARRAY_JOB_ID": "41",
        "SLURM_JOB_ID": "43",
        **variables,
    }
    running = subprocess.Popen(
        ["bash", folder / "out put" / script],
        cwd=folder,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if after is not None:
        wait_until(lambda: (folder / "starts").exists())
        running.send_signal(after)
    said, _ = running.communicate(timeout=60)
    return running.returncode, said


def called(folder):
    return (folder / "called").read_text().splitlines()


def test_an_array_task_answers_its_shard(folder):
    status, said = run(folder)
    assert status == 0, said
    assert "shard 2 of 3: start 0 on" in said
    assert "shard 2 of 3: done" in said
    wanted = "-m otprune_lmms sweep 'configs/a b.yaml' --shard 2/3 --shard-by documents"
    assert called(folder) == shlex.split(wanted)


def test_several_processes_of_a_task_are_torchrun_s(folder):
    job = replace(
        JOB, gpus_per_task=2, cpus_per_task=9, shard_by="configs", arguments=("--limit=4",)
    )
    status, said = run(folder, job=job)
    assert status == 0, said
    wanted = "-m torch.distributed.run --standalone --max-restarts=2 --nproc_per_node=2 -m "
    wanted += "otprune_lmms sweep 'configs/a b.yaml' --limit=4 --shard 2/3 --shard-by configs"
    assert called(folder) == shlex.split(wanted)
    assert "OMP_NUM_THREADS=4" in (folder / "environment").read_text().splitlines()
    alone = replace(job, processes_per_task=1)
    assert "torch.distributed" not in array_script(alone, "out")


def test_the_tables_are_made_by_one_process_without_a_shard(folder):
    status, said = run(folder, "tables.sbatch", job=replace(JOB, gpus_per_task=4))
    assert status == 0, said
    assert called(folder) == ["-m", "otprune_lmms", "sweep", "configs/a b.yaml"]


def test_what_launchers_say_stays_out_of_the_command(folder):
    launchers = {
        name: "7"
        for name in (
            *("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "PMI_RANK", "PMIX_RANK"),
            *("OMPI_COMM_WORLD_SIZE", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"),
        )
    }
    kept = {"SLURM_CONF": "/etc/my.conf", "CUDA_VISIBLE_DEVICES": "3", "MY_MULTI\nLINE": "x y"}
    status, said = run(folder, **launchers, **kept)
    assert status == 0, said
    seen = dict(
        line.split("=", 1)
        for line in (folder / "environment").read_text().splitlines()
        if "=" in line
    )
    left = [name for name in seen if name.startswith(("SLURM_", "PMI", "OMPI", "MASTER"))]
    assert left == ["SLURM_CONF"]
    assert seen["SLURM_CONF"] == "/etc/my.conf"
    assert seen["CUDA_VISIBLE_DEVICES"] == "3"
    assert not seen.keys() & {"RANK", "WORLD_SIZE", "LOCAL_RANK"}


def test_a_task_that_is_killed_goes_back_into_the_queue(folder):
    status, said = run(folder, behaviour="kill -KILL $$")
    assert status == -signal.SIGKILL, "as Slurm ends it"
    assert "killed by signal 9: back into the queue" in said
    assert (folder / "scontrol").read_text() == "requeue 41_2\n", "this task, not the whole array"
    (folder / "scontrol").unlink()
    _, said = run(folder, "tables.sbatch", behaviour="kill -KILL $$")
    assert (folder / "scontrol").read_text() == "requeue 43\n"


def test_a_task_whose_time_is_nearly_up_stops_its_command_and_goes_back(folder):
    waits = "trap 'echo stopped > stopped; exit 143' TERM; while true; do sleep 0.05; done"
    _, said = run(folder, behaviour=waits, after=signal.SIGUSR1)
    assert (folder / "stopped").exists()
    assert "the time limit is near" in said
    assert "stopped before its time limit: back into the queue" in said
    assert (folder / "scontrol").read_text() == "requeue 41_2\n"


def test_a_task_that_is_done_when_its_time_is_up_stays_done(folder):
    waits = "trap 'exit 0' TERM; while true; do sleep 0.05; done"
    status, said = run(folder, behaviour=waits, after=signal.SIGUSR1)
    assert status == 0, said
    assert not (folder / "scontrol").exists()


@pytest.mark.parametrize("code", [1, 2])
def test_a_task_that_fails_is_not_tried_again(folder, code):
    status, said = run(folder, behaviour=f"echo 'error: no such task'; exit {code}")
    assert status == code
    assert "no such task" in said
    assert f"failed with status {code}" in said
    assert not (folder / "scontrol").exists()


def test_a_task_is_not_requeued_for_ever(folder):
    job = replace(JOB, max_restarts=2)
    run(folder, behaviour="kill -KILL $$", job=job, SLURM_RESTART_COUNT="1")
    assert (folder / "scontrol").exists()
    (folder / "scontrol").unlink()
    status, said = run(folder, behaviour="kill -KILL $$", job=job, SLURM_RESTART_COUNT="2")
    assert status == 1
    assert "requeued 2 times already: giving up" in said
    assert not (folder / "scontrol").exists()


def test_setup_lines_come_first_and_a_failing_one_ends_the_task(folder):
    job = replace(JOB, setup=("export FROM_SETUP=yes", 'echo "$FROM_SETUP" > setup'))
    assert run(folder, job=job)[0] == 0
    assert (folder / "setup").read_text() == "yes\n"
    (folder / "called").unlink()
    assert run(folder, job=replace(JOB, setup=("false",)))[0] != 0
    assert not (folder / "called").exists()


def test_submitting_works_from_anywhere_and_the_tables_wait_for_the_array(folder, tmp_path):
    *_, script = write_scripts(JOB, folder / "out put", folder)
    path = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        [script], cwd=tmp_path, env=os.environ | path, capture_output=True, text=True, check=True
    )
    array, tables = (folder / "sbatch").read_text().removesuffix("--\n").split("--\n")
    assert array.splitlines() == [str(folder), "--parsable", "out put/array.sbatch"]
    found = re.fullmatch(
        r"array job (\d+), then tables in job \d+; .* in out put/log\n", done.stdout
    )
    assert found, done.stdout
    assert tables.splitlines() == [
        str(folder),
        "--parsable",
        f"--dependency=afterok:{found[1]}",
        "--kill-on-invalid-dep=yes",
        "out put/tables.sbatch",
    ]
    assert (folder / "out put" / "log").is_dir()


def test_what_slurm_gets():
    job = replace(
        JOB,
        max_parallel=2,
        gpus_per_task=4,
        mem="32G",
        time="1-12:00:00",
        partition="gpu",
        account="me",
        options=("--constraint=a100", "--comment=two words"),
    )
    assert directives(array_script(job, "my folder/50%")) == [
        "--job-name=otprune-x",
        "--array=1-3%2",
        '--output="my folder/50%%/log/%x-%A_%a.out"',
        *("--nodes=1", "--ntasks=1", "--cpus-per-task=4", "--gres=gpu:4", "--mem=32G"),
        *("--time=1-12:00:00", "--partition=gpu", "--account=me"),
        *("--requeue", "--open-mode=append", "--signal=B:USR1@120"),
        *("--constraint=a100", '--comment="two words"'),
    ]
    tables = directives(tables_script(job, "out"))
    assert "--gres=gpu:1" in tables
    assert not [line for line in tables if "array" in line]
    bare = directives(array_script(replace(JOB, gpus_per_task=0), "out"))
    assert not [line for line in bare if "gpu" in line]
    assert "--array=1-3" in bare


def test_directives_come_before_any_command():
    for script in (array_script(JOB, "out"), tables_script(JOB, "out")):
        lines = script.splitlines()
        last = max(i for i, line in enumerate(lines) if line.startswith("#SBATCH"))
        assert all(line.startswith("#") for line in lines[: last + 1])
        assert "@" not in re.sub(r"B:USR1@120|\$@|\[\w\]|@Q|\[@\]", "", script), "a place left open"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shards": 0}, "shards must be >= 1, got 0"),
        ({"gpus_per_task": -1}, "gpus_per_task must be >= 0"),
        ({"max_parallel": 0}, "max_parallel must be >= 1"),
        ({"time": "4h"}, "time must be as 30, 4:00:00 or 1-12:00:00, got '4h'"),
        ({"mem": "32 GB"}, "mem must be as 32G"),
        ({"configs": ()}, "at least one experiment file"),
        ({"partition": 'gpu"\n#SBATCH --x'}, "no quotes or control characters"),
        ({"partition": "gpu\x1b[31m"}, "no quotes or control characters"),
        ({"options": ("--comment='x'",)}, "no quotes or control characters"),
    ],
)
def test_what_slurm_would_not_take_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(JOB, **changes)


def test_a_folder_that_no_directive_can_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="folder must have no quotes"):
        write_scripts(JOB, tmp_path / "it's", tmp_path)


def invoke(*arguments):
    app = typer.Typer()
    app.command()(slurm)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_writes_scripts_that_parse(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write()
    write("two")
    done = invoke(
        "try.yaml", "two.yaml", "--shards", 4, "--sbatch", "--qos=low", "--limit", 2, "--strict"
    )
    assert done.exit_code == 0, done.output
    paths = [tmp_path / line for line in done.stdout.splitlines()]
    assert [path.name for path in paths] == ["array.sbatch", "tables.sbatch", "submit.sh"]
    assert paths[0].parent == tmp_path / "logs" / "slurm" / "try-two"
    for path in paths:
        subprocess.run(["bash", "-n", path], check=True)
    text = paths[0].read_text()
    assert "#SBATCH --qos=low" in text
    command = f"{sys.executable} -m otprune_lmms sweep try.yaml two.yaml --limit=2 --strict\n"
    assert f'  {command}  --shard "$SLURM_ARRAY_TASK_ID/4" --shard-by documents' in text


def test_names_that_look_like_options_are_paths(write, folder, monkeypatch):
    monkeypatch.chdir(folder)
    write().rename(folder / "-try.yaml")
    (folder / "tasks").symlink_to(write().parent / "tasks")
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    done = invoke("--shards", 2, "--dir=-x $(touch no)", "--submit", "--", "-try.yaml")
    assert done.exit_code == 0, done.output
    calls = (folder / "sbatch").read_text().splitlines()
    assert [line for line in calls if line.endswith(".sbatch")] == [
        "./-x $(touch no)/array.sbatch",
        "./-x $(touch no)/tables.sbatch",
    ]
    assert not (folder / "no").exists()
    assert (folder / "-x $(touch no)" / "log").is_dir()
    text = (folder / "-x $(touch no)" / "array.sbatch").read_text()
    assert "otprune_lmms sweep ./-try.yaml\n" in text


def test_the_command_refuses_what_would_fail_on_the_cluster(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write()
    for arguments, message in (
        (["none.yaml", "--shards", 2], "No such file"),
        (["try.yaml", "try.yaml", "--shards", 2], "names of their own"),
        (["try.yaml", "--shards", 2, "--time", "soon"], "time must be as"),
    ):
        done = invoke(*arguments)
        assert done.exit_code == 2
        assert message in done.stderr
        assert not (tmp_path / "logs").exists()


def test_submitting_without_slurm_is_an_error_that_says_so(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    program(tmp_path / "sbatch", "#!/usr/bin/env bash\necho 'no controller' >&2; exit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    done = invoke("try.yaml", "--shards", 2, "--submit")
    assert done.exit_code == 1
    assert "submit.sh ended with status 1" in done.stderr


def test_the_committed_example_is_what_its_page_says(tmp_path, monkeypatch):
    page = (ROOT / "scripts" / "slurm" / "README.md").read_text()
    command = re.search(r"^\.venv/bin/otprune slurm ((?:.*\\\n)*.*)$", page, re.MULTILINE)
    assert command
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(tmp_path / ".venv" / "bin" / "python"))
    done = invoke(*shlex.split(command[1].replace("\\\n", " ")))
    assert done.exit_code == 0, done.output
    paths = done.stdout.split()
    assert len(paths) == 3
    for path in paths:
        assert (tmp_path / path).read_text() == (ROOT / path).read_text(), path
