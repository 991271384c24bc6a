"""Sweeps on clusters: Slurm job scripts, submitit, and how far a sweep is.

`slurm` writes job scripts, `submit` starts jobs from Python. `state` reads journals that others
write, `status` counts what is missing, without loading a model.
"""
