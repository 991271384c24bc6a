"""Does the distance between kept and all tokens explain the score?

`measures` says how far a kept set is from the full one, `diagnose` measures every cell on the
images of an experiment (the only module here that needs the model), `store` holds the result on
disk. From there on it is tables: `correlation` ranks methods by distance and by score as the
paper's Fig. 2 does, `per_sample` asks the same of single questions, `loyalty` compares answers with
the unpruned model's, `write` puts all of it into a results folder.
"""
