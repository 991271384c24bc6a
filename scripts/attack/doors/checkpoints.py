"""Checkpoints: an odd value in a configuration, damaged weights and tokenizers, missing files."""

import json
from pathlib import Path
from random import Random

from attack.commands import chat, otprune, write_experiment
from attack.doors.case import PLACES, Case, damaged, odd_json, write_raw
from attack.doors.images import _image
from attack.warm import MINI

CONFIGURATIONS = ("config.json", "generation_config.json", "tokenizer_config.json")
OTHERS = ("model.safetensors", "tokenizer.model", "special_tokens_map.json")


def case(draw: Random, folder: Path) -> Case:
    """Return a command that loads the embedded checkpoint with one file changed."""
    copy = folder / "checkpoint"
    copy.mkdir()
    for file in MINI.iterdir():
        (copy / file.name).symlink_to(file)
    name = draw.choice([*CONFIGURATIONS[:1] * 6, *CONFIGURATIONS, *OTHERS, *OTHERS])
    path = copy / name
    way = draw.random()
    if name in CONFIGURATIONS and way < 0.8:
        what, text = odd_json(path.read_text(), draw)
        write_raw(path, text)
    elif way < 0.9:
        what, content = damaged(path.read_bytes(), draw)
        write_raw(path, content)
    else:
        what = draw.choice([*PLACES, "an index"])
        path.unlink()
        if what in PLACES:
            PLACES[what](path)
        else:
            files = draw.choice([5, None, [], {"a": 5}, {"a": "../x"}, {"a": "/etc/passwd"}])
            index = copy / "model.safetensors.index.json"
            index.write_text(json.dumps({"weight_map": files}))
    # What the message may name: the file, or the key of a configuration.
    named = ("checkpoint", name, what.split(" ")[0])
    write_raw(folder / "image.png", _image("PNG", draw))
    programs = {
        "prune": lambda: otprune(folder, "prune", "image.png", "--model", "./checkpoint"),
        "chat": lambda: chat(
            folder, "./checkpoint", "What?", "--image", "image.png", "--max-new-tokens", "2",
            "--device", "cpu",
        ),
        "run": lambda: otprune(folder, "run", "try.yaml", "--quiet"),
    }  # fmt: skip
    program = draw.choice(list(programs))
    model = {"name": "mini", "pretrained": "./checkpoint", "device": "cpu"}
    write_experiment(folder / "try.yaml", ["pope"], limit=2, models=[model])
    return Case(f"{program}: {name}: {what}", programs[program](), named, may_work=True)
