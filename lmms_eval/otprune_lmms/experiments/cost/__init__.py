"""What an answer costs, measured: time by phase, memory, keys and values, FLOPs.

`measuring` takes the times, `counting` the FLOPs, keys and values, `peak` the memory; `records`
says what a line of ``cost.csv`` holds, `output` writes it, `experiment` measures an experiment's
models, and `paper` recomputes the numbers that OTPrune and DivPrune print. `records` and `output`
need no torch.
"""
