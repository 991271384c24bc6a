"""Figures of a results folder: one file each, all of one look, drawn from what the folder holds.

`write_figures` draws those that the data allow. A module of a figure has ``CAPTION``, what it shows
in a sentence, and ``draw(results, model)``, which returns it or raises `NotDrawn` with the reason.
Images of documents come from local data files (`images`), or from the caller.
"""

from otprune_lmms.reporting.figures.data import ImageSource, NotDrawn, Results, read_results
from otprune_lmms.reporting.figures.write import FOLDER, KINDS, write_figures

__all__ = [
    "FOLDER",
    "KINDS",
    "ImageSource",
    "NotDrawn",
    "Results",
    "read_results",
    "write_figures",
]
