"""The files of a results folder and their formats, which experiments write and reporting reads.

`records` (one line a metric), `samples` (one row a document), `manifest` (the run and its origin),
`diagnostics` (distances of kept tokens), `kept_image` (kept patches of one image), `costs` (measured
times and memory), `times` (of answers and selections, apart from all else). No torch.
"""

DERIVED = (
    *("averages.csv", "intervals.csv", "pairs.csv", "statistics.md"),
    *("table.md", "table.csv", "table.tex", "table.html", "kept_patches.png"),
    *("analysis.csv", "analysis.md", "selection_times.csv", "report.html", "figures"),
)
"""Files and folders that reporting makes from the others; removed when the records change."""
