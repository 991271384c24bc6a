"""lmms-eval's command line, completed before lmms-eval reads it.

lmms-eval's response cache and results identify a model by ``--model_args`` alone. So pruning
settings of the environment are added there, and runs that differ in them are different runs.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.utils import simple_parse_args_string
from loguru import logger as eval_logger

from otprune_lmms.embedded import MINI_TASKS
from otprune_lmms.environment import (
    VARIABLES,
    Environment,
    SettingsError,
    merged,
    read_environment,
)
from otprune_lmms.hub import HubNeed, check_reachable, model_needs, task_needs
from otprune_lmms.images import guard_images
from otprune_lmms.installation import check_installation
from otprune_lmms.launch.guard import end_in_words, end_on_failure
from otprune_lmms.launch.task_files import let_included_tasks_change_ours
from otprune_lmms.limits import MOST_DOCUMENTS
from otprune_lmms.model_arguments import DEFAULT_CHECKPOINT, parse, renamed
from otprune_lmms.processes import end_with_parent
from otprune_lmms.pruning_arguments import without_aliases
from otprune_lmms.stock_wrappers import STOCK_IDS, refusal
from otprune_lmms.terminal_text import degrade_output, printable
from otprune_lmms.yaml_files import YamlError, read_yaml

IDS = ("llava", "otprune", "otprune_llava")
"""Ids of our model, which is of any family; the first replaces lmms-eval's own wrapper."""

_INSTEAD = (
    "without a network run the embedded ones: --model_args pretrained=llava-mini "
    f"--include_path {shlex.quote(str(MINI_TASKS))}, with --tasks of that folder"
)

_PROGRAMS = ("lmms-eval", "lmms_eval")


def prepare_command_line() -> None:
    """Check and complete the command line if this process is lmms-eval's and the model is ours.

    Raises:
        SystemExit: an unknown, impossible or contradictory setting; the message says which. Or the
            hub is needed and cannot be reached.
    """
    if not _is_lmms_eval():
        return
    try:
        options = _options(sys.argv[1:])
        _check_names(options)
        stock = options.model in STOCK_IDS
        if options.model not in IDS and not stock:
            return
        degrade_output()
        environment = read_environment()
        if environment.launched:
            end_with_parent()
        end_on_failure(environment.rank)
        check_installation()
        check_limits(options)
        if options.use_cache is not None and not environment.rank:
            eval_logger.warning(
                "lmms-eval's --use_cache does not notice changed code of otprune, llava or methods "
                "of your own" + ("" if stock else "; journal=FOLDER among --model_args does")
            )
        if options.config is None:
            _complete_arguments(options, environment, stock=stock)
        if not stock:
            guard_images()
            end_in_words(environment.rank, _journals(_options(sys.argv[1:])))
        let_included_tasks_change_ours()
    except (SettingsError, RuntimeError) as error:
        raise SystemExit(printable(f"otprune_lmms: {error}")) from None


def _check_names(options: argparse.Namespace) -> None:
    """Raise `SettingsError` for a wrapper of lmms-eval that is not pruned."""
    for name in (options.model, *(run.get("model") for run in options.runs)):
        reason = refusal(name) if isinstance(name, str) else None
        if reason is not None:
            raise SettingsError(reason)


def _complete_arguments(
    options: argparse.Namespace, environment: Environment, *, stock: bool
) -> None:
    """Add the environment's settings to ``--model_args``."""
    arguments_of(options.gen_kwargs, "gen_kwargs")
    given = merged(_named(options.model_args, stock=stock), environment)
    # Before the arguments' values are checked, which imports the model's package.
    if stock:
        check_reachable(_needs(given, options, None))
    else:
        check_reachable(_needs(given, options, DEFAULT_CHECKPOINT), _INSTEAD)
    sys.argv[1:] = translated(sys.argv[1:], environment, stock=stock)


def check_limits(options: argparse.Namespace) -> None:
    """Check ``--limit``, or ``limit`` of the runs of a configuration file.

    Raises:
        SettingsError: no whole number: lmms-eval takes a share of the first task's documents, and
            then as many of every other task. Or more than `MOST_DOCUMENTS`.
    """
    given = [options.limit, *(run.get("limit") for run in options.runs)]
    for limit in (one for one in given if one is not None):
        try:
            whole = float(limit).is_integer()
        except (TypeError, ValueError):
            continue  # lmms-eval refuses it itself.
        if not whole:
            raise SettingsError(
                f"limit must be a whole number of documents (-1 for all), got {limit}: lmms-eval "
                "would take this share of the first task, and as many documents of every other"
            )
        if float(limit) > MOST_DOCUMENTS:
            raise SettingsError(f"limit must be at most {MOST_DOCUMENTS} documents, got {limit}")


def translated(argv: Sequence[str], environment: Environment, *, stock: bool = False) -> list[str]:
    """Return lmms-eval's arguments with the environment's settings in ``--model_args``.

    Raises:
        SettingsError: see `completed`.
    """
    text = _options(argv).model_args
    complete = completed(text, environment, stock=stock)
    if complete == text:
        return list(argv)
    if not environment.rank:
        # lmms-eval shows INFO only once it has read its arguments.
        eval_logger.warning("from the environment: --model_args {}", complete)
    return [*argv, "--model_args", complete]


def completed(text: str, environment: Environment, *, stock: bool = False) -> str:
    """Return the text of ``--model_args`` with the environment's settings appended.

    Args:
        text: as typed.
        environment: what the environment sets.
        stock: of a wrapper of lmms-eval's, which checks its arguments itself.

    Raises:
        SettingsError: an unknown argument, an impossible value, a conflict.
    """
    given = _named(text, stock=stock)
    whole = merged(given, environment)
    if not stock:
        parse(whole)
    elif environment.eval_time:
        eval_logger.warning("EVAL_TIME has no effect: lmms-eval's wrapper takes no times by phase")
    if environment.method is None and environment.settings() and "method" not in whole:
        names = " and ".join(VARIABLES[name] for name in environment.settings())
        eval_logger.warning("BASELINE is not set: nothing is pruned, {} have no effect", names)
    added = [f"{name}={whole[name]}" for name in VARIABLES if name in whole and name not in given]
    return ",".join([text, *added] if text.strip() else added)


def arguments_of(text: str, name: str = "model_args") -> dict[str, Any]:
    """Return ``--model_args`` as lmms-eval reads them.

    Args:
        text: as typed.
        name: of the option, for the message.

    Raises:
        SettingsError: an argument without a value.
    """
    try:
        return simple_parse_args_string(text)
    except ValueError:
        raise SettingsError(f"{name} must be name=value,name=value,...; got {text!r}") from None


def _named(text: str, *, stock: bool) -> dict[str, Any]:
    """Return ``--model_args`` by their first names."""
    given = arguments_of(text)
    return without_aliases(given) if stock else renamed(given)


def _is_lmms_eval() -> bool:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name == "lmms_eval.__main__":
        return True
    return bool(sys.argv) and Path(sys.argv[0]).name in _PROGRAMS


def _options(argv: Sequence[str]) -> argparse.Namespace:
    """Return those of lmms-eval's arguments that are looked at here.

    And ``runs``, the runs of the configuration file.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model")
    parser.add_argument("--model_args", default="")
    parser.add_argument("--gen_kwargs", default="")
    parser.add_argument("--limit")
    parser.add_argument("--use_cache")
    parser.add_argument("--config")
    parser.add_argument("--tasks", default="")
    parser.add_argument("--include_path")
    options, _ = parser.parse_known_args(list(argv))
    options.runs = [] if options.config is None else _runs(Path(options.config))
    if options.model is None:
        models = [run.get("model") for run in options.runs]
        ours = (*IDS, *STOCK_IDS)
        options.model = next((model for model in models if model in ours), None)
    return options


def _journals(options: argparse.Namespace) -> list[str]:
    """Return the folders of finished answers that the runs of our model name, each once."""
    given = [run.get("model_args") for run in options.runs if run.get("model") in IDS]
    found: dict[str, None] = {}
    for one in given or [options.model_args]:
        if isinstance(one, str):
            try:
                one = arguments_of(one)
            except SettingsError:
                continue  # lmms-eval reports this run itself.
        if isinstance(one, dict) and one.get("journal") is not None:
            found[str(one["journal"])] = None
    return list(found)


def _needs(
    given: Mapping[str, Any], options: argparse.Namespace, usual: str | None
) -> list[HubNeed]:
    """Return what lmms-eval's arguments need from the hub.

    Args:
        given: arguments of the model.
        options: of lmms-eval.
        usual: the checkpoint of a model without ``pretrained``; None if that is not known.
    """
    named = [given.get("pretrained") or usual, given.get("model_base")]
    needs = model_needs(one for one in named if isinstance(one, str))
    if Path(options.tasks).is_dir():
        return needs
    own = None if options.include_path is None else Path(options.include_path)
    return needs + task_needs(filter(None, options.tasks.split(",")), own)


def _runs(config: Path) -> list[dict[str, Any]]:
    """Return the runs of a configuration file; none if it cannot be read."""
    try:
        content = read_yaml(config)
    except (OSError, YamlError):
        # lmms-eval reports this itself and ends with its own exit status.
        return []
    runs = content if isinstance(content, list) else [content]
    return [run for run in runs if isinstance(run, dict)]
