"""Sweeps in parts: shards, one pass over what several experiments ask, Slurm, submitit, status.

`shard` says what falls to whom; `passes` what several experiments ask, each question under each
config once; `answering` asks it. `slurm` writes job scripts, `submit` is the same from Python.
`asked` and `status` say how far a sweep is, without its models.
"""
