"""Hand-made diagnostics, samples and records."""

import json

import numpy as np
import pandas as pd

from otprune_lmms.reporting.statistics.headlines import resampled
from otprune_lmms.results.columns import SETTING
from otprune_lmms.results.diagnostics import COLUMNS, QUANTITIES
from otprune_lmms.results.records import COLUMNS as RECORD_COLUMNS
from otprune_lmms.results.samples import COLUMNS as SAMPLE_COLUMNS

METRICS = {
    "gqa": "exact_match",
    "mmmu_val": "mmmu_acc",
    "pope": "pope_f1_score",
    "mme": "mme_perception_score",
    "coco2017_cap_val": "coco_CIDEr",
}


def setting(method, seed=None, ratio=0.1, layer=0, model="tiny"):
    """The columns of a setting; methods need not exist."""
    plain = dict.fromkeys(SETTING) | {"layer": layer, "settings": "{}", "changed_settings": "{}"}
    if method is None:
        about = {"setting": "unpruned", "row": "unpruned", "keep_ratio": np.nan}
    else:
        row = f"{method}-{ratio:g}" + (f"-layer{layer}" if layer else "")
        label = row + (f"-seed{seed}" if seed else "")
        about = {"setting": label, "row": row, "keep_ratio": ratio, "match": "kept"}
    return {
        "model": model, **plain, **about, "name": about["row"], "method": method, "k": np.nan,
        "keep_newlines": False, "seed": np.nan if seed is None else float(seed),
    }  # fmt: skip


def samples_of(task, method, values, clusters=None, answers=None, details=None, **named):
    """One setting's samples: documents 0, 1, ..."""
    n = len(values)
    clusters = [f"{task} image {i}" for i in range(n)] if clusters is None else clusters
    found = pd.DataFrame(
        {
            **setting(method, **named),
            "task": task,
            "doc_id": np.arange(n),
            "cluster": clusters,
            "prompt": "?",
            "target": "!",
            "answers": [["a"]] * n,
            "answer": [str(v) for v in values] if answers is None else answers,
            "value": np.asarray(values, dtype=float),
            "detail": ["{}"] * n if details is None else [json.dumps(one) for one in details],
            "kept": 3,
            "candidates": 9,
            "new_tokens": 1,
            "requests": [["r"]] * n,
            "truncated": 0,
            "unfinished": False,
            "options": None,
            "probabilities": None,
            "right_option": None,
        }
    )
    return found[list(SAMPLE_COLUMNS)]


def diagnostics_of(task, method, distances, clusters=None, seconds=0.001, **named):
    """One setting's diagnostics: every quantity is the distance, except the last, its opposite."""
    n = len(distances)
    clusters = [f"{task} image {i}" for i in range(n)] if clusters is None else clusters
    distances = np.asarray(distances, dtype=float)
    measured = {one.column: -one.better * distances for one in QUANTITIES}
    found = pd.DataFrame(
        {
            **setting(method, **named),
            "cluster": clusters,
            "task": task,
            "doc_id": np.arange(n),
            "image": 0,
            "height": 3,
            "width": 3,
            "kept": [[0, 1, 2]] * n,
            "n": 9,
            **measured,
            "seconds": seconds,
        }
    )
    return found[[*COLUMNS, "seconds"]]


def records_of(samples):
    """The records that belong to samples."""
    lines = []
    for (model, _, task), some in samples.groupby(["model", "setting", "task"], sort=False):
        first = some.iloc[0]
        scale = 1 if task == "mme" else 100
        value = float(resampled(task, some, np.ones((1, len(some)), dtype=int))[0]) / scale
        lines.append(
            dict.fromkeys(RECORD_COLUMNS)
            | {"experiment": "try", "suite": "mini", "model": model, "task": task}
            | {name: first[name] for name in SETTING}
            | {"metric": METRICS[task], "value": value, "documents": len(some)}
            | {"kept_tokens": 3.0, "visual_tokens": 9.0}
        )
    return pd.DataFrame(lines, columns=RECORD_COLUMNS)


def together(*parts):
    return pd.concat(parts, ignore_index=True)
