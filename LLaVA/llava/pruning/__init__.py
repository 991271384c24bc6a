"""How LLaVA's visual tokens are pruned, before the language model and inside it.

What to prune is said by `otprune.pruning`. Before the language model: `before_llm`. Inside it:
`inside_llm` hooks the layers, `prefill` and `decode` carry a run out, `pick` asks the method,
`probe` and `observed` are what it may see. `reference` re-enacts the released forks' mistakes on
request.
"""
