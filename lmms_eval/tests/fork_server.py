"""Processes that can be killed, and that need no time to import anything."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

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
        (said,) = self.commands(folder, *arguments, **job)
        return said

    def commands(self, folder: Path, *arguments: object, **job: Any) -> list[dict[str, Any]]:
        """The command ``otprune`` in several processes; with ``ranks`` as of a launcher."""
        given = [str(one) for one in arguments]
        found = self.run(do="command", folder=folder, arguments=given, **_launched(job))
        assert not any("error" in said for said in found), found
        return found

    def lmms_eval(self, folder: Path, *arguments: object, **job: Any) -> list[dict[str, Any]]:
        """lmms-eval's command line, likewise."""
        given = [str(one) for one in arguments]
        found = self.run(do="lmms_eval", folder=folder, arguments=given, **_launched(job))
        assert not any("error" in said for said in found), found
        return found

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def _said(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that forks has ended"
        return json.loads(line)


def _launched(job: dict[str, Any]) -> dict[str, Any]:
    """A job with the port at which its ranks meet."""
    if not job.get("ranks"):
        return job
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {**job, "port": free.getsockname()[1]}


def _allowed(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
