"""Wrappers of lmms-eval, pruned: ``--model otprune_qwen2_5_vl --model_args ...,keep_ratio=0.25``.

Each is a subclass of lmms-eval's own, made when lmms-eval asks for it. It takes the arguments of
that one beside the pruning settings, and answers inside `otprune.hf.pruned`; without a method it is
that one. lmms-eval asks the class, not the model, whether prompts are text or messages: so there is
an id for each wrapper, whose class is found in `stock.simple` or `stock.chat` by the wrapper's id.
"""
