"""``python -m otprune_lmms``: the command ``otprune``."""

from otprune_lmms.cli.app import app

if __name__ == "__main__":
    app()
