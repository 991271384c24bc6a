"""Experiments: a YAML file in, tables with their origin out."""
