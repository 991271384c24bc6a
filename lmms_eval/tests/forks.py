"""A process that has everything loaded and forks others: to kill one of those costs no import.

Started by `fork_server.py`. Reads a job from each line of standard input, as JSON, and answers with
a line: what each of its processes said until it ended. Alone in a mount namespace of its own where
that is allowed, so that a job may have a small or a read-only disk.
"""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch

torch.set_num_threads(1)

# E402: what is imported below uses the path and the threads that are set above.
# F401: commands import these only when they run, here they are there before the first fork.
import otprune_lmms.experiments.diagnostics.diagnose  # noqa: E402, F401
import otprune_lmms.experiments.run  # noqa: E402, F401
import otprune_lmms.reporting.statistics.write  # noqa: E402, F401
import otprune_lmms.reporting.tables  # noqa: E402, F401
from helpers import PICTURES, request, tiny  # noqa: E402
from otprune_lmms.cli.app import app  # noqa: E402
from otprune_lmms.engine import Engine  # noqa: E402
from otprune_lmms.journal import Journal, writer  # noqa: E402
from otprune_lmms.models import llava  # noqa: E402
from otprune_lmms.pruning_config import PruningConfig  # noqa: E402

CONFIGS = [PruningConfig.make(), PruningConfig.make("random", 0.02)]
SHORT = {"generation": {"max_new_tokens": 2}}


def requests() -> list:
    """36 questions, most of them without an image, which is the quicker."""
    about = [request(i, f"What is number {i}?", PICTURES[:1], **SHORT) for i in range(6)]
    return about + [request(i, f"What is number {i}?", (), **SHORT) for i in range(6, 36)]


def main() -> None:
    """Serve jobs until standard input ends."""
    fingerprint = tiny().fingerprint
    llava.model_fingerprint = lambda *_: fingerprint  # of the same weights every time
    say({"ready": True})
    for line in sys.stdin:
        job = json.loads(line)
        say(watched([start(job, number) for number in range(job.get("processes", 1))], job))


def say(content: object) -> None:
    """Answer."""
    sys.__stdout__.write(json.dumps(content) + "\n")
    sys.__stdout__.flush()


def start(job: dict, number: int) -> tuple[int, int]:
    """Fork a process that does a job; return its id and the end of the pipe that it speaks into."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    code = 1
    try:
        os.close(read)
        torch.set_num_threads(1)  # else two threads may do after the fork what one must do
        work = {"engine": run_engine, "command": run_command, "lmms_eval": run_lmms_eval}
        work[job["do"]](job, number, write)
        code = 0
    finally:
        if code:
            error = sys.exception()
            tell(write, {"error": f"{type(error).__name__}: {error}"})
        os._exit(code)


def watched(children: list[tuple[int, int]], job: dict) -> list[dict]:
    """Return what each process said; those that have used up their time are killed on the way."""
    pipes = {read: (pid, bytearray()) for pid, read in children}
    allowed = dict(zip((pid for pid, _ in children), job.get("cpu", []), strict=False))
    open_pipes = set(pipes)
    while open_pipes:
        for read in select.select(open_pipes, [], [], 0.0005 if allowed else None)[0]:
            said = os.read(read, 1 << 16)
            pipes[read][1].extend(said)
            if not said:
                open_pipes.remove(read)
        for pid, seconds in list(allowed.items()):
            if spent(pid) >= seconds:
                os.kill(pid, signal.SIGKILL)
                del allowed[pid]
    return [outcome(pid, bytes(said)) for pid, said in pipes.values()]


def spent(pid: int) -> float:
    """Return the processor time of another process, seconds."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # Linux's name for that clock
    except OSError:
        return float("inf")


def outcome(pid: int, said: bytes) -> dict:
    """Return what a process said, and how it ended: a signal's number, or its status."""
    _, status = os.waitpid(pid, 0)
    found: dict = {"died": -os.waitstatus_to_exitcode(status), "finished": []}
    for line in said.split(b"\n")[:-1]:  # of a line that was cut off nothing is known
        content = json.loads(line)
        found["finished"] += content.pop("finished", [])
        found |= content
    return found


def tell(pipe: int, content: dict) -> None:
    """Speak to the parent."""
    os.write(pipe, json.dumps(content).encode() + b"\n")


class Reporting(Journal):
    """Says which answers are finished, once they are."""

    pipe = -1

    def append(self, *records) -> None:
        super().append(*records)
        tell(self.pipe, {"finished": [[one.config, one.request, one.text] for one in records]})


def run_engine(job: dict, number: int, pipe: int) -> None:
    """Answer all requests, or a share of them, into a journal; say every answer at the end."""
    Reporting.pipe = pipe
    if "torn" in job:
        tear(*job["torn"])
    if "disk" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["disk"], job["disk"]))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    asked = requests()[number :: job["processes"]] if job.get("share") else requests()
    with Reporting(job["journal"]) as journal:
        engine = Engine(
            tiny(), model_name="tiny", batch_size=3, workers=1, journal=journal, progress=False
        )
        answers = engine.run(asked, CONFIGS)
    said = {f"{c.label} {r.doc_id}": answers[c, r].text for c, r in answers}
    tell(pipe, {"counts": vars(answers.counts)})
    tell(pipe, {"answers": said})


def tear(line: int, size: int) -> None:
    """Let the writing of one line be the end of the process, after some of its bytes."""
    before, count = os.write, [0]

    def write(descriptor: int, content) -> int:
        count[0] += 1
        if count[0] < line:
            return before(descriptor, content)
        before(descriptor, content[:size])
        return os.kill(os.getpid(), signal.SIGKILL) or 0

    class Os:
        """The module, but for one function."""

        def __getattr__(self, name: str):
            return write if name == "write" else getattr(os, name)

    writer.os = Os()


def run_command(job: dict, number: int, pipe: int) -> None:
    """Run the command line as a user would; say its status and what it printed."""
    for options, folder in job.get("mounts", []):
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", *options, folder], check=True)
    sys.path[:0] = job.get("path", [])
    run_program(job, number, pipe, lambda: app(job["arguments"], prog_name="otprune"))


def run_lmms_eval(job: dict, number: int, pipe: int) -> None:
    """Run lmms-eval's command line; say its status and what it printed."""

    def program() -> None:
        from lmms_eval.__main__ import cli_evaluate

        from otprune_lmms.launch import prepare_command_line

        prepare_command_line()
        cli_evaluate()

    sys.argv = ["lmms-eval", *job["arguments"]]
    run_program(job, number, pipe, program)


def run_program(job: dict, number: int, pipe: int, program: Callable[[], object]) -> None:
    """Run a program in a folder and an environment; say how it ended and what it printed."""
    os.chdir(job["folder"])
    os.environ.update(job.get("variables", {}))
    if job.get("ranks"):
        rank, world = str(number), str(job["processes"])
        os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, LOCAL_WORLD_SIZE=world)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(job["port"]))
    with tempfile.TemporaryFile() as printed:
        for descriptor in (1, 2):
            os.dup2(printed.fileno(), descriptor)
        status = 0
        try:
            program()
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
            sys.stderr.write("" if error.code is None else f"{error.code}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        printed.seek(0)
        text = printed.read().decode()
    tell(pipe, {"status": status, "text": text, "left": left(job.get("look"))})


def left(folder: str | None) -> dict[str, int]:
    """Return size of each file in a folder, which other processes may not see."""
    if folder is None:
        return {}
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    main()
