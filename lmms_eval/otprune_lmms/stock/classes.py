"""Subclasses of lmms-eval's wrappers that prune."""

import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from lmms_eval.api.instance import Instance
from lmms_eval.models.model_utils.gen_metrics import get_logged_metrics_history, log_metrics

from otprune.hf import pruned
from otprune.pruning import Pruning, Trace
from otprune_lmms.environment import SettingsError, read_environment
from otprune_lmms.launch import forward_messages
from otprune_lmms.launch.command_line import arguments_of, completed
from otprune_lmms.stock.arguments import parameters_of, parse
from otprune_lmms.stock.calls import CallCounts, Function, ImageNumbers, PrunedCallError, watched
from otprune_lmms.stock_wrappers import WRAPPERS

logger = logging.getLogger(__name__)

Answer = Callable[[Sequence[Instance]], list[Any]]


@functools.cache
def pruned_class(wrapper: str, kind: Literal["simple", "chat"]) -> type:
    """Return the pruned subclass of a wrapper.

    Args:
        wrapper: lmms-eval's id of it.
        kind: which of its classes.

    Raises:
        AttributeError: there is no such class.
        SettingsError: a package that the wrapper imports is not installed.
    """
    if wrapper not in WRAPPERS or not getattr(WRAPPERS[wrapper], kind):
        raise AttributeError(f"no {kind} wrapper {wrapper!r}; known: {', '.join(WRAPPERS)}")
    from lmms_eval.models import MODEL_REGISTRY_V2

    try:
        stock = MODEL_REGISTRY_V2.get_model_class(wrapper, force_simple=kind == "simple")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"lmms-eval's wrapper {wrapper} needs the package {error.name}, which is not installed"
        ) from error
    return subclass(stock, wrapper)


def subclass(stock: Any, wrapper: str) -> type:
    """Return a subclass of a stock wrapper that takes pruning settings and prunes.

    Args:
        stock: the class.
        wrapper: its id, for messages.
    """

    class Pruned(stock):
        """A stock wrapper of lmms-eval that answers inside `otprune.hf.pruned`.

        Args:
            **given: the stock wrapper's arguments and the pruning settings.

        Attributes:
            pruning_arguments: the arguments, checked.
            call_counts: what the last call of a method of lmms-eval's kept.

        Raises:
            SettingsError: an unknown argument, an impossible value, before anything is loaded; or
                settings that the loaded model cannot be pruned by.
        """

        def __init__(self, **given: Any) -> None:
            forward_messages()
            self.pruning_arguments = parse(given, wrapper, parameters_of(stock))
            self.call_counts = CallCounts()
            super().__init__(**self.pruning_arguments.stock)
            _check_model(self)

        @classmethod
        def create_from_arg_string(
            cls, arg_string: str, additional_config: dict[str, Any] | None = None
        ) -> "Pruned":
            """Return the model that ``--model_args`` describe; they win over other options.

            Raises:
                SettingsError: see the class; or the environment has pruning settings that
                    ``--model_args`` lack, where lmms-eval's cache and results would not show them.
            """
            complete = completed(arg_string, read_environment(), stock=True)
            if complete != arg_string:
                raise SettingsError(
                    "lmms-eval's cache and results show the settings of model_args only; the "
                    f"environment has others, so give model_args {complete!r}"
                )
            others = {k: v for k, v in (additional_config or {}).items() if v is not None}
            return cls(**{**others, **arguments_of(arg_string)})

        def __repr__(self) -> str:
            """Return all that decides the answers; lmms-eval's cache identifies a model by this."""
            return f"{type(self).__module__}.{type(self).__name__}({self.pruning_arguments})"

        def generate_until(self, requests: Sequence[Instance]) -> list[Any]:
            return _answered(self, "generate", super().generate_until, requests)

        def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[Any]:
            return _answered(self, "generate", super().generate_until_multi_round, requests)

        def loglikelihood(self, requests: Sequence[Instance]) -> list[Any]:
            return _answered(self, "forward", super().loglikelihood, requests)

    Pruned.__name__ = Pruned.__qualname__ = f"Pruned{stock.__name__}"
    return Pruned


def _check_model(lm: Any) -> None:
    """Check that a loaded model can be pruned as its arguments say.

    Raises:
        SettingsError: it cannot; the message says why.
    """
    config = lm.pruning_arguments.config
    if lm.rank == 0:
        logger.info("pruning: %s (%s)", config.label, config.as_dict())
    if config.pruning is None:
        return
    try:
        with _block(lm, config.pruning):
            pass
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _block(
    lm: Any, pruning: Pruning, numbers: ImageNumbers | None = None
) -> AbstractContextManager[Trace]:
    """Return the block in which a wrapper's model is pruned."""
    processor = getattr(lm, "processor", None) or lm.tokenizer
    unit = lm.pruning_arguments.unit
    return pruned(lm.model, pruning, unit=unit, tokenizer=processor, image_ids=numbers)


def _answered(lm: Any, function: Function, answer: Answer, requests: Sequence[Instance]) -> Any:
    """Return a stock wrapper's answers, with its model pruned.

    Raises:
        Exception: what a call of the model raises, also where the stock wrapper would go on.
    """
    pruning = lm.pruning_arguments.config.pruning
    if pruning is None:
        return answer(requests)
    counts, numbers = CallCounts(), ImageNumbers()
    lm.call_counts = counts
    records = len(get_logged_metrics_history())
    try:
        with (
            _block(lm, pruning, numbers) as trace,
            watched(lm.model, function, trace, counts, numbers),
        ):
            answers = answer(requests)
    except PrunedCallError as error:
        raise (error.__cause__ or error) from None
    _report(lm, counts, new=len(get_logged_metrics_history()) == records)
    return answers


def _report(lm: Any, counts: CallCounts, *, new: bool) -> None:
    """Write what was kept into lmms-eval's results and into the log.

    Args:
        lm: the wrapper.
        counts: of its calls.
        new: whether the stock wrapper has not reported tokens and seconds itself.
    """
    seconds, tokens = (counts.seconds, counts.new_tokens) if new else (0.0, 0)
    log_metrics(
        total_elapsed_time=seconds,
        total_gen_tokens=tokens,
        avg_speed=tokens / seconds if seconds else 0.0,
        additional_metrics={
            "visual_tokens_kept": counts.kept_each,
            "visual_tokens": counts.visual_each,
        },
    )
    if lm.rank == 0:
        logger.info(
            "%s: kept %.1f of %.1f visual tokens an image, the mean over %s images in %s calls",
            lm.pruning_arguments.config.label,
            counts.kept_each,
            counts.visual_each,
            counts.images,
            counts.calls,
        )
