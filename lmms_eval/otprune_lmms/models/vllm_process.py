"""A process with vLLM, which has an environment of its own, and the messages to and from it."""

import logging
import os
import signal
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from otprune_lmms.environment import child_environment

logger = logging.getLogger(__name__)

_WORKER = "otprune_vllm.worker"
_SHOWN = 1500
"""Letters of what the process said last, in an error."""


class VLLMError(RuntimeError):
    """vLLM has ended, or could not be started; the message has what it said last."""


class VLLMProcess:
    """A running engine of vLLM; it ends with this object, or with this process.

    Args:
        python: interpreter of the environment that has vLLM and otprune-vllm.
        settings: the first message to `otprune_vllm.worker`.
        devices: ``CUDA_VISIBLE_DEVICES`` of the process; None for this process's own.

    Attributes:
        about: what `otprune_vllm.worker` says of the engine.

    Raises:
        ValueError: no such interpreter, or vLLM cannot load the model with these settings.
    """

    def __init__(
        self, python: str, settings: Mapping[str, Any], devices: str | None = None
    ) -> None:
        # It lives as long as the process, which writes into it.
        self._log = tempfile.NamedTemporaryFile("w+", prefix="otprune-vllm-", suffix=".log")  # noqa: SIM115 (closed by _end)
        ours, theirs = socket.socketpair()
        environment = child_environment()
        if devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = devices
        command = [python, "-m", _WORKER, str(theirs.fileno())]
        with theirs:
            try:
                # A group of its own, so that all processes of the engine can be ended together.
                self._process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise ValueError(f"python must be an interpreter, got {python}: {error}") from error
        self._connection = Connection(ours.detach())
        self._end = weakref.finalize(self, _end, self._process, self._connection, self._log)
        logger.info("vLLM is starting; it writes to %s", self._log.name)
        try:
            self.about: Mapping[str, Any] = self._said(dict(settings))
        except VLLMError as error:
            self.close()
            raise ValueError(f"vLLM could not be started with {python}: {error}") from error

    def ask(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the engine's answers to requests, see `otprune_vllm.worker`.

        Raises:
            ValueError: the engine refuses one of them.
            VLLMError: it has ended.
        """
        return self._said(list(requests))

    def close(self) -> None:
        """End the process."""
        self._end()

    def _said(self, message: Any) -> Any:
        try:
            self._connection.send(message)
            found = self._connection.recv()
        except (EOFError, OSError) as error:
            raise VLLMError(f"vLLM has ended: {self._last()}") from error
        if isinstance(found, dict) and "error" in found:
            raise ValueError(f"vLLM: {found['error']}")
        return found

    def _last(self) -> str:
        """Return what the process said last."""
        text = Path(self._log.name).read_text(errors="replace").strip()
        return text[-_SHOWN:] or "it said nothing"


def _end(process: subprocess.Popen, connection: Connection, log: Any) -> None:
    """End a process and all that it has started."""
    connection.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        logger.warning("vLLM does not end by itself and is killed")
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # The folder of temporary files may be gone already, at the end of a command.
    with suppress(FileNotFoundError):
        log.close()
