"""The files of a results folder and their formats, which experiments write and reporting reads.

`records` (one line a metric), `samples` (one row a document), `manifest` (the run and its origin),
`diagnostics` (distances of kept tokens), `kept_image` (kept patches of one image), `costs` (measured
times and memory), `times` (of answers and selections, apart from all else). No torch.
"""

ANALYSES = ("analysis.csv", "analysis.md", "selection_times.csv")
"""The analysis of the diagnostics."""

DERIVED = (
    *("averages.csv", "intervals.csv", "pairs.csv", "kept.csv"),
    *("answers.csv", "statistics.md"),
    *("table.md", "table.csv", "table.tex", "table.html", "budgets.csv", "kept_patches.png"),
    *ANALYSES,
    *("report.html", "figures"),
)
"""Files and folders that reporting makes from the others; removed when the records change."""

SHOW_ANALYSES = (
    *("report.html", "figures/distance_*", "figures/correlations*"),
    *("figures/kept_patches*", "figures/selection_frequency*"),
)
"""Pages and figures that the diagnostics or their analysis are in, by pattern."""

SHOW_COSTS = ("report.html", "figures/score_by_latency*")
"""Pages and figures that measured costs are in, by pattern."""
