"""Where and how much to prune: settings of the seam, and the seam inside the language model.

`settings` says what to do, `choose` asks a selector for the tokens to keep, `inside_llm` applies it
at the input of a decoder layer, `reference` re-enacts the released forks' mistakes on request, and
`trace` tells the caller what was done.
"""

from llava.pruning.settings import Pruning, Stage, prune
from llava.pruning.trace import Trace

__all__ = ["Pruning", "Stage", "Trace", "prune"]
