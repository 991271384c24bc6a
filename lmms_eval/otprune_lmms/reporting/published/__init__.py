"""Numbers that papers print about visual token pruning: for comparison, never mixed into ours."""

from otprune_lmms.reporting.published.numbers import COLUMNS, load, wide

__all__ = ["COLUMNS", "load", "wide"]
