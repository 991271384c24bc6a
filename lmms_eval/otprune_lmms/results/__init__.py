"""The files of a results folder and their formats: the contract between experiments and reporting.

`records` (one line a metric), `samples` (one row a document), `manifest` (where all of it comes
from), `diagnostics` (distances of kept tokens), `costs` (measured times and memory). No torch.
"""
