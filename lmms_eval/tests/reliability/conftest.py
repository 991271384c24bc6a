"""Processes that can be killed, for all tests of this folder."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers import environment

ALONE = ["unshare", "--mount", "--map-root-user", "--propagation", "private"]


class Forks:
    """Runs jobs in processes forked from one that has everything loaded; see `forks.py`."""

    def __init__(self) -> None:
        self.mounts = _allowed([*ALONE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        script = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("forks.py"))]
        self._process = subprocess.Popen(
            [*(ALONE if self.mounts else []), *script],
            env=environment(COLUMNS="200"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._said() == {"ready": True}

    def run(self, **job: Any) -> list[dict[str, Any]]:
        """What each process of a job said until it ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job, default=str) + "\n")
        self._process.stdin.flush()
        return self._said()

    def engine(self, journal: Path, **job: Any) -> list[dict[str, Any]]:
        """The engine, on one journal."""
        return self.run(do="engine", journal=journal, **job)

    def command(self, folder: Path, *arguments: object, **job: Any) -> dict[str, Any]:
        """The command ``otprune``, started in a folder."""
        given = [str(one) for one in arguments]
        (said,) = self.run(do="command", folder=folder, arguments=given, **job)
        assert "error" not in said, said
        return said

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def _said(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that forks has ended"
        return json.loads(line)


def _allowed(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def forks():
    running = Forks()
    yield running
    running.close()


@pytest.fixture
def mounts(forks):
    """Jobs with a disk of their own."""
    if not forks.mounts:
        pytest.skip("no mounts in a namespace of one's own here")
    return forks
