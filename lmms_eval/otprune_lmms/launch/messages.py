"""Log messages of our packages, sent to lmms-eval's log."""

import logging

from loguru import logger as eval_logger

from otprune_lmms.terminal_text import printable

_PACKAGES = ("otprune_lmms", "llava", "otprune")


class _Forward(logging.Handler):
    """Sends records to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record with the module, function and line that it is from."""

        def placed(message: dict) -> None:
            message.update(name=record.name, function=record.funcName, line=record.lineno)

        # loguru's stubs give the record a type that cannot be imported.
        eval_logger.patch(placed).log(record.levelname, "{}", printable(record.getMessage()))  # type: ignore[arg-type]


def forward_messages(level: int = logging.INFO) -> None:
    """Send our packages' log records of ``level`` and above to loguru, which lmms-eval configures.

    May be called more than once; no record is sent twice.
    """
    for name in _PACKAGES:
        log = logging.getLogger(name)
        if not any(isinstance(handler, _Forward) for handler in log.handlers):
            log.addHandler(_Forward())
        log.setLevel(level)
