"""Read a results folder with pandas: neither torch nor a model is needed.

    .venv/bin/python examples/read_results.py [FOLDER]

The folder is results/mini unless you name another. lmms_eval/README.md lists its files.
"""

import json
import sys
from pathlib import Path

import pandas as pd

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results/mini")

# Where the numbers come from.
origin = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["origin"]
print(f"{folder}: commit {origin['commit']}, torch {origin['torch']}, {origin['hardware']}\n")

# One row a setting: tokens, scores of all benchmarks, averages with 95 % intervals.
table = pd.read_csv(folder / "table.csv")
score = "mean of ratios"
print(
    table[["name", "tokens", score, f"{score} low", f"{score} high"]]
    .round(1)
    .to_string(index=False)
)

# One row a setting and metric, every metric of every benchmark, without any rounding.
records = pd.read_csv(folder / "records.csv")
smallest = records[records["keep_ratio"] == records["keep_ratio"].min()]
pope = smallest[smallest["metric"] == "pope_accuracy"]
print(f"\nPOPE accuracy at {smallest['kept_tokens'].iloc[0]:.0f} tokens")
print(pope.groupby("method", sort=False)["value"].mean().mul(100).round(1).to_string())
