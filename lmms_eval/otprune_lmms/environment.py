"""Settings from environment variables; nothing else in the harness reads the environment.

The released code takes its pruning settings from ``BASELINE``, ``LAYER_INDEX`` and
``SUBSET_RATIO``. Here they become ``method``, ``layer`` and ``keep_ratio``, as in YAML files and
``--model_args``. ``EVAL_TIME`` turns on times by phase, which change no answer, and
``OTPRUNE_VLLM_PYTHON`` says where vLLM is.

Methods are imported only where one is named: every command reads its launcher's variables, and
torch takes seconds.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otprune_lmms.suggestions import did_you_mean

_OURS = {"ours": "otprune"}
_NOTHING = {"orig", "none"}
_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

_LAUNCHERS = re.compile(
    r"(?!SLURM_CONF$)(SLURM|SLURMD|SBATCH|SRUN|PMI|PMIX|OMPI|MV2|MASTER|TORCHELASTIC)_.*"
    r"|(.*_)?RANK|(.*_)?WORLD_SIZE"
)
"""Variables by which launchers connect their processes."""

_DATA = re.compile(r"(HF_|HUGGINGFACE_|LMMS_EVAL_)(?!.*TOKEN)|XDG_CACHE_HOME$|HOME$")
"""Variables that decide where data of the hub is; not those that hold secrets."""

_PLACES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
"""Variables of launchers that hold numbers."""

VARIABLES = {"method": "BASELINE", "layer": "LAYER_INDEX", "keep_ratio": "SUBSET_RATIO"}
"""The variable of each setting."""


class SettingsError(ValueError):
    """An unknown, impossible or contradictory setting; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Settings of the environment; None where a variable is not set.

    Attributes:
        method: name of a method, or "none" for the unpruned model.
        layer: where to prune.
        keep_ratio: share of the visual tokens to keep, in (0, 1].
        rank: number of this process among those of a launcher; None without one.
        eval_time: whether each answer's times by phase are taken.
        launched: whether torchrun or accelerate has started this process and waits for it.
        vllm_python: interpreter of the environment that has vLLM.
    """

    method: str | None = None
    layer: int | None = None
    keep_ratio: float | None = None
    rank: int | None = None
    eval_time: bool | None = None
    launched: bool = False
    vllm_python: str | None = None

    def settings(self) -> dict[str, Any]:
        """Return the pruning settings that are given."""
        known = {name: getattr(self, name) for name in VARIABLES}
        return {name: value for name, value in known.items() if value is not None}


def read_environment() -> Environment:
    """Return the settings of the environment.

    Raises:
        SettingsError: an unknown ``BASELINE``, a ``SUBSET_RATIO`` outside (0, 1], a ``LAYER_INDEX``
            that is no layer's number or comes without ``SUBSET_RATIO``, an ``EVAL_TIME`` that is
            neither yes nor no, variables of a launcher that name no process (`_rank`).
    """
    given = {variable: os.environ.get(variable, "").strip() for variable in VARIABLES.values()}
    method, layer, ratio = given["BASELINE"], given["LAYER_INDEX"], given["SUBSET_RATIO"]
    if layer and not ratio:
        raise SettingsError(
            f"LAYER_INDEX={layer} needs SUBSET_RATIO, the share of visual tokens to keep"
        )
    times = os.environ.get("EVAL_TIME", "").strip()
    return Environment(
        method=method_named(method, "BASELINE") if method else None,
        layer=_layer(layer) if layer else None,
        keep_ratio=_ratio(ratio) if ratio else None,
        rank=_rank({name: os.environ.get(name, "").strip() for name in _PLACES}),
        eval_time=yes_or_no(times, "EVAL_TIME") if times else None,
        launched="TORCHELASTIC_RUN_ID" in os.environ,
        vllm_python=os.environ.get("OTPRUNE_VLLM_PYTHON", "").strip() or None,
    )


def _rank(given: Mapping[str, str]) -> int | None:
    """Return the number of this process; None without a launcher.

    Args:
        given: values of `_PLACES`; "" for one that is not set.

    Raises:
        SettingsError: a number that is none, a process without its number or theirs, or a number
            beyond theirs; torch would end in a traceback, or wait for the others.
    """
    numbers = {name: _number(name, text) for name, text in given.items() if text}
    rank, world = numbers.get("RANK"), numbers.get("WORLD_SIZE")
    for name in ("RANK", "LOCAL_RANK"):
        if name in numbers and world is None:
            raise SettingsError(
                f"{name}={numbers[name]} needs WORLD_SIZE, the number of processes; launchers set "
                f"both: unset {name} to run one process"
            )
    if rank is None and (world or 1) > 1:
        raise SettingsError(
            f"WORLD_SIZE={world} needs RANK, this process's number; launchers set both: unset "
            "WORLD_SIZE to run one process"
        )
    if rank is not None and world is not None and rank >= world:
        raise SettingsError(f"RANK must be below WORLD_SIZE={world}, got {rank}")
    return rank


def _number(variable: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text):
        raise SettingsError(f"{variable} must be a whole number, as launchers set it, got {text!r}")
    return int(text)


def method_named(value: str, source: str) -> str:
    """Return the method of a name, upper or lower case; "none" for no pruning.

    ``OURS`` is OTPrune, ``ORIG`` and ``NONE`` are the unpruned model, as in the released scripts.

    Args:
        value: the name.
        source: variable or argument that it is from, for the message.

    Raises:
        SettingsError: an unknown method.
    """
    name = str(value).strip().lower()
    if name in _NOTHING:
        return "none"
    from otprune import PRUNERS

    name = _OURS.get(name, name)
    if name not in PRUNERS:
        known = ["OURS", "ORIG", *sorted(PRUNERS)]
        raise SettingsError(
            f"{source} must be one of {', '.join(known)} (in any case), got {value!r}"
            f"{did_you_mean(name, PRUNERS)}"
        )
    return name


def yes_or_no(value: object, source: str) -> bool:
    """Return the truth value of true, 1, yes, false, 0 or no, upper or lower case.

    Args:
        value: the word.
        source: variable or argument that it is from, for the message.

    Raises:
        SettingsError: another word.
    """
    word = str(value).strip().lower()
    if word not in _WORDS:
        raise SettingsError(f"{source} must be true or false (1, 0, yes, no), got {value!r}")
    return _WORDS[word]


def merged(arguments: Mapping[str, Any], environment: Environment) -> dict[str, Any]:
    """Return arguments completed by the environment's settings.

    ``LAYER_INDEX`` and ``SUBSET_RATIO`` are ignored if the model is unpruned.

    Args:
        arguments: by the names of `PruningConfig`'s fields.
        environment: what the environment sets.

    Raises:
        SettingsError: both give one setting with different values; the environment's method needs
            a budget, and neither gives one.
    """
    given = dict(environment.settings())
    arguments = _with_times(arguments, environment)
    argument = arguments.get("method")
    if argument is not None:
        argument = method_named(argument, "method")
        arguments = {**arguments, "method": argument}
    for name, value in given.items():
        theirs = arguments.get(name)
        if theirs is not None and theirs != value:
            raise SettingsError(
                f"{VARIABLES[name]} in the environment says {name}={value}, model_args say "
                f"{name}={theirs}: give one of them"
            )
    method = given.get("method") or argument
    if method in (None, "none"):
        given = {"method": method} if given.get("method") else {}
    elif given.get("method") and not _budget({**arguments, **given}) and not _scheduled(method):
        raise SettingsError(
            f"BASELINE={method} needs SUBSET_RATIO, the share of visual tokens to keep, in (0, 1]"
        )
    if "keep_ratio" in given and arguments.get("k") is not None:
        raise SettingsError(
            f"SUBSET_RATIO in the environment says keep_ratio={given['keep_ratio']}, model_args "
            f"say k={arguments['k']}: give one of them"
        )
    return {**arguments, **given}


def _with_times(arguments: Mapping[str, Any], environment: Environment) -> Mapping[str, Any]:
    times, argument = environment.eval_time, arguments.get("eval_time")
    if times is None:
        return arguments
    if argument is not None and yes_or_no(argument, "eval_time") != times:
        raise SettingsError(
            f"EVAL_TIME in the environment says {times}, model_args say eval_time={argument}: "
            "give one of them"
        )
    return {**arguments, "eval_time": times}


def _budget(arguments: Mapping[str, Any]) -> bool:
    return arguments.get("keep_ratio") is not None or arguments.get("k") is not None


def _scheduled(method: str) -> bool:
    """Return whether a method has a schedule, which needs no budget."""
    from otprune import PRUNERS, LayerPruner

    return issubclass(PRUNERS[method], LayerPruner)


def _layer(text: str) -> int:
    from otprune.budget import check_layer

    try:
        return check_layer(int(text) if text.isdecimal() else text, VARIABLES["layer"])
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _ratio(text: str) -> float:
    from otprune.budget import check_keep_ratio

    try:
        ratio: object = float(text)
    except ValueError:
        ratio = text
    try:
        return check_keep_ratio(ratio, VARIABLES["keep_ratio"])
    except ValueError as error:
        raise SettingsError(str(error)) from None


def child_environment() -> dict[str, str]:
    """Return the environment for a process that starts its own launcher.

    The variables of Slurm, MPI and other launchers are left out: accelerate and lmms-eval would
    take them for their own and wait for processes that do not exist.
    """
    return {name: value for name, value in os.environ.items() if not _LAUNCHERS.fullmatch(name)}


def data_caches(usual: Path) -> tuple[Path, ...]:
    """Return the folders in which `datasets` and lmms-eval keep data of the hub.

    Args:
        usual: the one that they use if no variable names another.
    """
    named = [os.environ.get(one, "") for one in ("HF_DATASETS_CACHE", "LMMS_EVAL_DATASETS_CACHE")]
    return (usual, *(Path(one).expanduser() for one in named if one.strip()))


def data_variables() -> dict[str, str]:
    """Return the variables by which the hub's libraries and lmms-eval find data."""
    return {name: value for name, value in sorted(os.environ.items()) if _DATA.match(name)}
