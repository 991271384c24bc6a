"""One page for a results folder: tables that sort, figures, a browser of samples, in one file.

`write_report` puts it together: `sheets` makes tables of what the other parts wrote, `choose` picks
samples, `embed` turns them into what `samples.js` draws, `pictures` makes images small. The page
loads nothing (its Content-Security-Policy forbids it), every text is escaped, and what models and
data sets say is only ever shown as text.
"""

from otprune_lmms.reporting.report.write import write_report

__all__ = ["write_report"]
