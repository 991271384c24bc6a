"""One static page that sets the results of many folders side by side."""

from otprune_lmms.reporting.leaderboard.write import PAGE, write_leaderboard

__all__ = ["PAGE", "write_leaderboard"]
