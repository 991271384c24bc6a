"""What an answer costs, measured: time by phase, memory, keys and values, FLOPs.

`measuring` takes the times, `counting` counts FLOPs and bytes of keys and values, `peak` measures
the memory, `reducing` averages all of it, `experiment` measures an experiment's models, and `paper`
recomputes the numbers that OTPrune and DivPrune print. The results are `results.costs`, written by
`reporting.cost`.
"""
