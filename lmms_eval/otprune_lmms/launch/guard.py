"""A failed run of lmms-eval ends with exit status 1.

``python -m lmms_eval`` catches every exception of a run, logs it and ends with status 0; of several
processes the others then wait for the failed one for hours. The log message is the only sign of the
failure, so the exit is triggered from the log.
"""

import sys
from functools import partial
from typing import Any

from loguru import logger as eval_logger

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


def _listen(name: str, record: Any) -> None:
    failed = record["name"] == _MAIN and record["level"].name in ("ERROR", "CRITICAL")
    # lmms-eval logs results that could not be written as a warning only.
    lost = record["name"] == _TRACKER and record["message"].startswith("Could not save")
    if not failed and not lost:
        return
    error = sys.exc_info()[1]
    reason = record["message"]
    if error is not None and str(error) not in reason:
        reason = f"{reason}: {error!r}"
    raise SystemExit(f"{name}: {reason}")
