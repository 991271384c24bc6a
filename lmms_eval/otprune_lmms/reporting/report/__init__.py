"""One page for a results folder: tables that sort, figures, a browser of samples, in one file.

`write_report` puts it together: `sheets` makes tables of the folder's files, `choose` selects
samples, `store` reads them, `embed` makes the data that `samples.js` draws, `pictures` makes images
small. The page loads nothing (its Content-Security-Policy forbids it), every text is escaped, and
texts of models and data sets are only ever shown as text.
"""

from otprune_lmms.reporting.report.write import REPORT, own_style, write_report

__all__ = ["REPORT", "own_style", "write_report"]
