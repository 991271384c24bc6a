"""Pruning in models of the transformers library (extra ``otprune[hf]``).

`otprune.hf.layers` prunes inside a decoder. Nothing outside this package imports transformers.
"""
