"""``--model_args`` and other arguments of lmms-eval's command line."""

from pathlib import Path
from random import Random

from otprune_lmms.experiments.config import TASKS

from attack.commands import lmms_eval
from attack.doors.case import Case, write_raw
from attack.warm import MINI

_NO_NUMBER = ("x", "-1", "0", "1.5", "²", "1e9", "99999999999999999999", "nan", "[1]")

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "pretrained": ("./nothing", "", "/nothing/at/all", "file", "a b", "5"),
    "family": ("nobody", "5"),
    "model_base": ("./nothing", ""),
    "chat_template": ("nobody", "5"),
    "device": ("gpu", "cuda:99", "tpu", "5", "cuda:x"),
    "device_map": ("nobody", "cuda:99", "5"),
    "dtype": ("float8", "5", "half", "nan"),
    "attn_implementation": ("nobody", "flash_attention_2", "5"),
    "batch_size": (*_NO_NUMBER, "auto:x", "auto:"),
    "max_batch_size": _NO_NUMBER,
    "seed_video": ("last", "5", "True"),
    "journal": ("", "file", "file/below", "/proc/nothing"),
    "workers": ("x", "-1", "1.5", "10000000000"),
    "load_4bit": ("maybe", "2"),
    "load_8bit": ("maybe", "2"),
    "use_cache": ("maybe", "2"),
    "revision": ("",),
    "eval_time": ("maybe", "2"),
    "method": ("nobody", "otprun", "5", "", "True", "[otprune]"),
    "keep_ratio": ("9.8", "0", "-1", "nan", "x", "inf"),
    "k": ("0", "-1", "1.5", "x", "True"),
    "layer": ("-1", "99", "1.5", "x", "99999999999999999999"),
    "positions": ("nobody", "5"),
    "match": ("nobody", "5"),
    "compat": ("nobody", "5"),
    "gamma": ("x", "nan", "inf", "-1", "[1]"),
    "preset": ("nobody", "5"),
    "gama": ("1",),
    "customized_config": ("x",),
    "nothing": ("1", ""),
    "=": ("1", "="),
}
"""Impossible values, by argument."""

OPTIONS: tuple[tuple[str, str], ...] = (
    *(("--limit", value) for value in ("x", "-1", "0.02", "nan", "1e99")),
    *(("--batch_size", value) for value in ("x", "-1", "0", "1000000000")),
    *(("--tasks", value) for value in ("nothing", "", "pope,nothing", "pope pope")),
    *(("--gen_kwargs", value) for value in ("max_new_tokens=x", "temperature=hot", "nothing")),
    *(("--device", value) for value in ("gpu", "cuda:99")),
    *(("--include_path", value) for value in ("nothing", "file")),
    *(("--output_path", value) for value in ("file", "file/below")),
    *(("--num_fewshot", value) for value in ("x", "-1")),
    *(("--model", value) for value in ("nothing",)),
)


def words(model_args: str, *more: str) -> list[str]:
    """Return lmms-eval's command line on the embedded data."""
    return [
        *("--model", "llava", "--model_args", model_args, "--tasks", "pope", "--limit", "2"),
        *("--include_path", str(TASKS / "mini"), "--batch_size", "1", "--device", "cpu", *more),
    ]


def case(draw: Random, folder: Path) -> Case:
    """Return lmms-eval's command line with one impossible argument."""
    write_raw(folder / "file", "no folder\n")
    plain = f"pretrained={MINI}"
    if draw.random() < 0.25:
        option, value = draw.choice(OPTIONS)
        line, named = (
            words(plain, option, value),
            (option.lstrip("-"), value or option, value.partition("=")[0]),
        )
        # lmms-eval's own options: some odd values mean something there.
        return Case(f"{option} {value}", lmms_eval(folder, *line), named, may_work=True)
    name = draw.choice(list(ARGUMENTS))
    value = draw.choice(ARGUMENTS[name])
    given = f"{name}={value}"
    pruned = "method=otprune,keep_ratio=0.2"
    if name in ("method", "keep_ratio", "k", "pretrained"):
        pruned = {"method": "keep_ratio=0.2", "pretrained": "method=otprune,k=5"}.get(
            name, "method=otprune"
        )
    head = "" if name == "pretrained" else f"{plain},"
    line = words(f"{head}{pruned},{given}")
    # Words that are no values are the same as leaving the argument out.
    may_work = value == "" or given in ("seed_video=True", "use_cache=2")
    named = (name.replace("=", "unknown argument"), value or name)
    return Case(given, lmms_eval(folder, *line), named, may_work)
