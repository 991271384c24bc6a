"""A failed run of lmms-eval ends with exit status 1.

``python -m lmms_eval`` catches every exception of a run, logs it and ends with status 0; of several
processes the others then wait for the failed one for hours. The log message is the only sign of the
failure, so the exit is triggered from the log.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from types import FrameType, SimpleNamespace
from typing import Any

from loguru import logger as eval_logger
from tenacity import RetryError

from otprune_lmms.terminal_text import printable

_PACKAGES = ("otprune_lmms", "llava", "otprune")
_MAIN = "lmms_eval.__main__"
_TRACKER = "lmms_eval.loggers.evaluation_tracker"


def end_on_failure(rank: int | None = None) -> None:
    """From now on, end the process with status 1 as soon as lmms-eval logs a failure.

    Under torchrun or accelerate this ends the other processes too.

    Args:
        rank: number of this process, for the message; None without a launcher.
    """
    name = "lmms_eval" if rank is None else f"lmms_eval, rank {rank}"
    eval_logger.configure(patcher=partial(_listen, name))
    # `python -m lmms_eval` imports its module a second time, by name, and runs that one.
    program = sys.modules.get(_MAIN)
    if program is not None:
        vars(program)["traceback"] = SimpleNamespace(print_exc=_print_unexpected)


def _print_unexpected() -> None:
    """Print the traceback of an error that is no sentence of ours, which needs none.

    lmms-eval prints one of every error, before it logs the error's message.
    """
    error = sys.exception()
    if error is not None and not _in_words(error):
        traceback.print_exc()


def _in_words(error: BaseException) -> bool:
    """Return whether an error is of a class of ours, or a ``ValueError`` that our code raises."""
    if type(error).__module__.partition(".")[0] in _PACKAGES:
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    raised_by = str(frames[-1].f_globals.get("__name__")) if frames else ""
    return type(error) is ValueError and raised_by.partition(".")[0] in _PACKAGES


def end_in_words(rank: int | None, journals: Sequence[str]) -> None:
    """From now on, SIGINT and SIGTERM end the process with a sentence.

    It ends by the signal itself, at once: code that lmms-eval calls catches every exception.

    Args:
        rank: number of this process; of several, the first one speaks.
        journals: folders of finished answers.
    """
    kept = (
        "no answer is kept, since --model_args name no journal=FOLDER"
        if not journals
        else f"finished answers are in {', '.join(journals)}, the same command goes on from there"
    )

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if not rank:
            sys.stderr.write(f"lmms_eval: stopped by {signal.Signals(number).name}: {kept}\n")
            sys.stderr.flush()
        os.kill(os.getpid(), number)

    for one in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, stop)


def _listen(name: str, record: Any) -> None:
    failed = record["name"] == _MAIN and record["level"].name in ("ERROR", "CRITICAL")
    # lmms-eval logs results that could not be written as a warning only.
    lost = record["name"] == _TRACKER and record["message"].startswith("Could not save")
    if not failed and not lost:
        return
    error = sys.exc_info()[1]
    reason = record["message"]
    if isinstance(error, RetryError):
        # Its own text names an object in memory; what failed again and again is inside.
        cause = error.last_attempt.exception()
        reason = f"the data of a task could not be loaded ({type(cause).__name__}: {cause})"
    elif error is not None and str(error) not in reason:
        reason = f"{reason}: {error!r}"
    raise SystemExit(printable(f"{name}: {' '.join(reason.split())}"))
