"""This process and those that it starts: how they are stopped, and that nothing of them stays.

A process that is killed (kill -9, out of memory) cannot clean up after itself. So its children are
tied to it by the kernel, and its temporary folder by a shell that waits for its end.
"""

import ctypes
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

_SET_DEATH_SIGNAL = 1
"""Number of Linux's PR_SET_PDEATHSIG for `prctl`."""

_TIED = (
    "import ctypes, os, sys; "
    f"getattr(ctypes.CDLL(None), 'prctl', max)({_SET_DEATH_SIGNAL}, {int(signal.SIGKILL)}); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); "
    "os.execvp(sys.argv[2], sys.argv[2:])"
)

_WAITING = """
trap '' PIPE
mkdir -m 700 -- "$1" || exit
echo made
read -r _
rm -rf -- "$1"
"""
"""A shell script: makes a folder; the end of the process that holds its input removes it."""

LEAST_ADDRESS_SPACE = 2 << 30
"""Bytes of address space below which no model is loaded; the smallest one takes 2.8 GiB."""

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """The process was asked to stop.

    Args:
        number: of the signal.

    Attributes:
        status: exit status of a process that a signal has ended, as a shell has it: 130 after
            SIGINT, 143 after SIGTERM.
        name: of the signal.
    """

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        super().__init__(self.name)
        self.status = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """In this context SIGINT, SIGTERM and SIGHUP raise `Stopped` in the main thread.

    So blocks are left as on an error: children end, temporary files go. A second signal ends the
    process at once. Signals that the process was started to ignore (nohup, a job in the background)
    stay ignored. Elsewhere than in the main thread this does nothing.
    """

    def stop(number: int, _: FrameType | None) -> None:
        for one in replaced:
            signal.signal(one, signal.SIG_DFL)
        raise Stopped(number)

    replaced = {}
    with suppress(ValueError):  # not the main thread
        for one in _STOPPING:
            if signal.getsignal(one) != signal.SIG_IGN:
                replaced[one] = signal.signal(one, stop)
    try:
        yield
    finally:
        for one, before in replaced.items():
            signal.signal(one, before)


def tied(command: Sequence[str]) -> list[str]:
    """Return a command whose process is killed as soon as the thread that starts it ends.

    This holds whatever ends it, kill -9 included; on systems other than Linux it does not. Costs
    some 30 ms a start. The process's id is that of the command.
    """
    return [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]


def check_address_space(least: int = LEAST_ADDRESS_SPACE) -> None:
    """Raise ``RuntimeError`` where this process may map too little memory for models.

    Some libraries do not fail there but wait for ever, while they are imported.

    Args:
        least: bytes that are needed.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit not in (-1, resource.RLIM_INFINITY) and limit < least:
        raise RuntimeError(
            f"this process may use {limit >> 20} MiB of address space (ulimit -v), and models with "
            f"their libraries need {least >> 20} MiB at least"
        )


def end_with_parent() -> None:
    """Let the kernel kill this process as soon as the one that has started it ends (Linux)."""
    # `max` takes the arguments too, where there is no such call.
    getattr(ctypes.CDLL(None), "prctl", max)(_SET_DEATH_SIGNAL, int(signal.SIGKILL))


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """In this context temporary files are made in a folder that goes with this process.

    It is `tempfile`'s folder, so that files of libraries are in it too. It is removed at the end
    of the context, or at the end of the process, whatever ends it: a shell makes it and waits for
    that, so that there is no moment at which nobody would remove it. Where there is no shell,
    kill -9 leaves the folder.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.gettempdir()) / f"otprune-{secrets.token_hex(8)}"
        if not stack.enter_context(_made_and_removed(folder)):
            folder = Path(tempfile.mkdtemp(prefix="otprune-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(setattr, tempfile, "tempdir", tempfile.tempdir)
        tempfile.tempdir = str(folder)
        yield folder


@contextmanager
def _made_and_removed(folder: Path) -> Iterator[bool]:
    """In this context there is a folder that a shell has made and removes, unless it yields False.

    The shell waits for the end of the context, or of this process.
    """
    try:
        waiting = subprocess.Popen(
            ["/bin/sh", "-c", _WAITING, "sh", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a signal to our group must not end it before us
        )
    except FileNotFoundError:
        yield False
        return
    with waiting:  # which closes its input at the end, and waits for it
        yield waiting.stdout is not None and waiting.stdout.readline() == b"made\n"
