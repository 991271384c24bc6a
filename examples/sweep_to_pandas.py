"""A small sweep from Python: two methods at two budgets on two benchmarks, as a DataFrame.

    .venv/bin/python examples/sweep_to_pandas.py

Each image is encoded once for all settings. Embedded model and data; for a hub model give its id
to `ModelSource`, for the hub's data leave out `MINI_TASKS`.
"""

import pandas as pd
from otprune_lmms.embedded import MINI_TASKS
from otprune_lmms.engine import Engine, requests_of
from otprune_lmms.models import ModelSource, load_model
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.scoring import TaskScorer, load_tasks

TASKS = {"gqa": "exact_match", "pope": "pope_accuracy"}
"""Benchmarks, and the metric to show of each."""
LIMIT = 8
"""Documents of each; None for all."""

configs = [PruningConfig()]  # the unpruned model
configs += [
    PruningConfig.make(method, keep_ratio=ratio)
    for method in ("otprune", "random")
    for ratio in (0.1, 0.4)
]
engine = Engine(load_model(ModelSource("llava-mini")), model_name="llava-mini", batch_size=8)

rows = []
for name, task in load_tasks(list(TASKS), MINI_TASKS).items():
    requests = requests_of(task, name, limit=LIMIT)
    answers = engine.run(requests, configs)
    scorer = TaskScorer(task, name, limit=LIMIT)
    for config in configs:
        texts = {request.doc_id: [answers[config, request].text] for request in requests}
        score = scorer.score(texts).metrics[TASKS[name]]
        rows.append({"setting": config.label, "benchmark": name, "score": 100 * score})

scores = pd.DataFrame(rows).pivot_table(
    index="setting", columns="benchmark", values="score", sort=False
)
scores["mean"] = scores.mean(axis=1)
print(scores.round(1).to_string())
