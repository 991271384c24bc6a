"""The files of a results folder and their formats: the contract between experiments and reporting.

`records` (one line a metric), `samples` (one row a document), `manifest` (where all of it comes
from), `diagnostics` (distances of kept tokens), `costs` (measured times and memory). No torch.
"""

DERIVED = (
    *("averages.csv", "intervals.csv", "pairs.csv", "statistics.md"),
    *("table.md", "table.csv", "table.tex", "table.html", "kept_patches.png"),
    *("analysis.csv", "analysis.md", "report.html", "figures"),
)
"""Files and folders that reporting makes of the others; never newer than what they are made of."""
