"""The command ``otprune``, one file for each of its commands."""
