"""Experiment files: an impossible value under each key, and files that are no experiment."""

from pathlib import Path
from random import Random
from typing import Any

import yaml

from attack.commands import otprune
from attack.doors.case import PLACES, Case, write_raw
from attack.warm import MINI

_LONG = "x" * 400
_NO_TEXT: tuple[Any, ...] = ("", None, 5, [1], {"a": "b"}, "a\0b", True)
_NO_NAME: tuple[Any, ...] = (*_NO_TEXT, "a/b", "../x", _LONG, " ", "-x", "é", "a\nb")
_NO_COUNT: tuple[Any, ...] = (0, -1, 1.5, "many", 10**30, True, [], float("nan"), "²")
_NO_LIST: tuple[Any, ...] = ([], None, 5, [5], [None], [[[]]], {"a": 1})
_NO_FLAG: tuple[Any, ...] = ("maybe", 2, None, [])
_NO_RATIO: tuple[Any, ...] = ([9.8], [0], [-0.1], ["x"], [float("nan")], [True], [0.2, 0.2], 0.2)

BAD: dict[str, tuple[Any, ...]] = {
    "name": _NO_NAME,
    "title": _NO_TEXT,
    "suite": (*_NO_TEXT, "nowhere", "./nothing", "mini/", "/etc", "./try.yaml"),
    "models": (*_NO_LIST, "mini", [{}], [{"name": "m"}], [{"pretrained": "x"}]),
    "models.0.name": _NO_NAME,
    "models.0.pretrained": (*_NO_TEXT, "./nothing", "./try.yaml", "/nothing/at/all", "a b"),
    "models.0.batch_size": (*_NO_COUNT, 10**9),
    "models.0.device": ("gpu", "cuda:99", "", "tpu", 5, "cuda:-1", "cpu:x", "cuda"),
    "models.0.dtype": ("float8", 5, "", "torch.float32", []),
    "models.0.family": ("nobody", "", 5, None),
    "models.0.chat_template": ("nobody", "", 5),
    "models.0.attn_implementation": ("flash_attention_2", "nobody", "", 5),
    "models.0.model_base": ("", 5, []),
    "models.0.batchsize": (1, None),
    "tasks": (*_NO_LIST, ["nothing"], ["pope", "pope"], "pope", ["pope", "otprune_11"], [""]),
    "tasks.0": ({"id": "pope", "limit": 0}, {"id": "nothing"}, {"limit": 1}, {"id": "gqa", "x": 1}),
    "pruning": ({}, None, [], "otprune", {"keep_ratios": [0.1]}),
    "pruning.keep_ratios": (*_NO_RATIO, []),
    "pruning.keep_counts": ([0], [-1], [1.5], ["x"], [2, 2], [10**30], [10**7], 5),
    "pruning.methods": (
        ["nobody"], [5], ["otprun"], [""], [None], ["otprune", "otprune"],
        [{"method": "otprune", "settings": {"gama": 1}}],
        [{"method": "otprune", "settings": {"gamma": "x"}}],
        [{"method": "otprune", "settings": {"gamma": float("nan")}}],
        [{"method": "otprune", "settings": {"gamma": [1]}}],
        [{"method": "otprune", "keep_ratio": 0.2}],
        [{"method": "random", "seeds": [-1]}], [{"method": "random", "seeds": [2**64]}],
        [{"method": "otprune", "seeds": [1]}], [{"method": "otprune", "own_schedule": True}],
        [{"settings": {}}], [{"method": ["otprune"]}], "otprune",
    ),
    "pruning.layers": ([-1], [99], [1.5], ["x"], [1, 1], [10**30], 5),
    "pruning.layer": ([0],),
    "limit": _NO_COUNT,
    "java": ("maybe", True, 5),
    "seed_video": ("last_frame", "", 5),
    "workers": (*_NO_COUNT, 10**9),
    "strict": _NO_FLAG,
    "picture": _NO_FLAG,
    "published": (
        5, [5], [{}], "x",
        [{"source": "s", "row": "r", "model": "nobody", "scores": {"pope": 1.0}}],
        [{"source": "s", "row": "r", "model": "mini", "scores": {"pope": float("nan")}}],
        [{"source": "s", "row": "r", "model": "mini", "scores": {}}],
    ),
    "task": (["pope"],),
    "keep_ratios": ([0.1],),
    _LONG: (1,),
}  # fmt: skip
"""Values that are impossible, by key; a number in a key is a place in a list."""

FILES: dict[str, bytes] = {
    "nothing": b"",
    "a list": b"- name: try\n",
    "a text": b"try",
    "no UTF-8": b"name: \xff\xfe\n",
    "UTF-16": "name: try\n".encode("utf-16"),
    "zeros": bytes(5000),
    "a tab": b"name:\ttry\n\ttitle: x\n",
    "an open bracket": b"name: [try\n",
    "an alias of nothing": b"name: *x\n",
    "an alias of itself": b"name: &a [*a]\n",
    "a tag": b"name: !!python/object/apply:os.system ['touch hacked']\n",
    "an unknown tag": b"name: !mine x\n",
    "two documents": b"name: a\n---\nname: b\n",
    "a key twice": b"name: a\nname: b\n",
    "a list as a key": b"? [a, b]\n: 1\n",
    "a date that is none": b"name: 2026-99-99\n",
    "deep": b"name: " + b"[" * 5000,
    "large": b"name: " + b"x" * (2 << 20),
    "an alias bomb": b"a0: &a0 [x, x]\n"
    + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40)),
    "many keys": b"".join(b"key%d: 1\n" % n for n in range(20000)),
    "a merge of nothing": b"<<: 5\nname: x\n",
}
"""Contents that are no experiment."""

COMMANDS = (
    *(["run"], ["sweep"], ["sweep", "--shard", "1/2"], ["status"], ["bench"], ["analyze"]),
    ["slurm", "--shards", "2"],
)


def case(draw: Random, folder: Path) -> Case:
    """Return an experiment with one fault, and a command that is given it."""
    command = draw.choice(COMMANDS)
    path = folder / "try.yaml"
    way, key = draw.random(), ""
    if way < 0.25:
        what = draw.choice(list(FILES))
        write_raw(path, FILES[what])
    elif way < 0.3:
        what = draw.choice(list(PLACES))
        PLACES[what](path)
    else:
        key = draw.choice(list(BAD))
        value = draw.choice(BAD[key])
        what = f"{key[:40]} = {value!r:.60}"
        content = _with(key, value)
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
    work = otprune(folder, command[0], "try.yaml", *command[1:])
    named = ("try.yaml", *(part[:40] for part in key.split(".") if len(part) > 1))
    # These load no model here: Slurm's jobs run elsewhere, on what is installed there.
    elsewhere = ("models.0.attn_implementation", "models.0.device")
    may_work = command[0] in ("slurm", "status") and key in elsewhere
    return Case(f"{' '.join(command)}: {what}", work, (*named, "unknown task"), may_work)


def _with(key: str, value: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": "try",
        "title": "A try",
        "suite": "mini",
        "models": [{"name": "mini", "pretrained": str(MINI), "device": "cpu"}],
        "tasks": ["pope"],
        "pruning": {"controls": False, "keep_ratios": [0.25], "methods": ["otprune"]},
        "limit": 2,
    }
    *places, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    owner: Any = content
    for place in places:
        owner = owner[place]
    owner[last] = value
    return content
