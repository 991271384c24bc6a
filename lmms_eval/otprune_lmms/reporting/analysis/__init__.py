"""Does the distance between kept and all tokens explain the score?

The diagnostics of a results folder say how far each setting's kept tokens are from all tokens of an
image. `correlation` ranks methods by distance and by score as the paper's Fig. 2 does, `per_sample`
does so within single questions, `loyalty` compares answers with the unpruned model's, `write` puts
all of it into the results folder.
"""
