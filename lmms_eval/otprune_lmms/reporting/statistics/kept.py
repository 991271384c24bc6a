"""How many visual tokens documents keep under each setting: ``kept.csv``."""

import pandas as pd

from otprune_lmms.results.frames import Frame

QUARTILES = {
    "lowest": 0.0,
    "lower_quartile": 0.25,
    "median": 0.5,
    "upper_quartile": 0.75,
    "highest": 1.0,
}
"""Columns of the counts, and which share of the documents keeps at most so many tokens."""


def kept_counts(samples: Frame) -> Frame:
    """Return the quartiles of the documents' kept tokens, one line a model and row.

    Documents without an image are left out. Seeds of a row, and its tasks, are taken together.

    Args:
        samples: with model, row, kept and candidates; kept tokens are those of all images of a
            document after the last pruning.
    """
    shown = samples[samples["candidates"] > 0]
    lines = [
        {"model": model, "row": row, "samples": len(kept)}
        | {name: float(kept.quantile(share)) for name, share in QUARTILES.items()}
        for (model, row), kept in shown.groupby(["model", "row"], sort=False)["kept"]
    ]
    return pd.DataFrame(lines, columns=["model", "row", "samples", *QUARTILES])
