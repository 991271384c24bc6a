"""Experiments: from a YAML file through answers in a journal to a results folder."""
