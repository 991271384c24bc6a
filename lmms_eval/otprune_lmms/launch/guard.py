"""A failed run ends with a status that says so.

``python -m lmms_eval`` catches every exception of a run, logs it and ends with 0; with several
processes the others then wait for the failed one for hours. What it logs is the one sign of it, so
that is where this listens.
"""

import sys
from functools import partial
from typing import Any

from loguru import logger as eval_logger

_MAIN = "lmms_eval.__main__"
_TRACKER = "lmms_eval.loggers.evaluation_tracker"


def end_on_failure(rank: int | None = None) -> None:
    """Let the process end with status 1 as soon as lmms-eval's command line logs a failure.

    Under torchrun or accelerate that ends the other processes too; ``rank`` says in the message
    which one it was.
    """
    name = "lmms_eval" if rank is None else f"lmms_eval, rank {rank}"
    eval_logger.configure(patcher=partial(_listen, name))


def _listen(name: str, record: Any) -> None:
    failed = record["name"] == _MAIN and record["level"].name in ("ERROR", "CRITICAL")
    # Results that could not be written are a warning there.
    lost = record["name"] == _TRACKER and record["message"].startswith("Could not save")
    if not failed and not lost:
        return
    error = sys.exc_info()[1]
    reason = record["message"]
    if error is not None and str(error) not in reason:
        reason = f"{reason}: {error!r}"
    raise SystemExit(f"{name}: {reason}")
