"""Sweeps on clusters: Slurm job scripts, submitit, and the progress of a sweep.

`slurm` writes job scripts, `submit` starts jobs from Python. `state` reads journals while other
processes write them, `status` counts missing answers without loading a model, by `outline`s that
`planned` makes of experiments and `remembered` keeps.
"""
