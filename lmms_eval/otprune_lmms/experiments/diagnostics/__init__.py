"""Measured distances between the visual tokens that a config keeps and all tokens of an image.

`measures` compares a kept set with the full one, `diagnose` does so for all pruning configs on
several images, `experiment` for a finished experiment, `one_image` for one image.
"""
