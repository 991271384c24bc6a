"""The parts of scripts/gpu_check.py, each with tables of its own.

A part knows nothing of the others and runs in a process of its own, so that one that fails, or
leaves the GPU unusable, takes none of the others with it.
"""
