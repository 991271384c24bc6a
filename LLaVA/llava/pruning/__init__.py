"""Where and how much to prune: settings of the seam, and the seam inside the language model.

`settings` and `target` say what to do. Before the language model: `before_llm` and `choose`. Inside
it: `inside_llm` hooks the layers, `prefill` and `decode` carry a run out, `pick` asks the method,
`probe` and `observed` are what it may see. `reference` re-enacts the released forks' mistakes on
request, and `trace` tells the caller what was done.
"""

from llava.pruning.settings import Pruning, Stage, prune
from llava.pruning.trace import Trace

__all__ = ["Pruning", "Stage", "Trace", "prune"]
