"""Names for pandas objects in signatures.

pandas has no types of its own, and what a checker infers from its source refuses plain code. So
frames are checked by tests, and these names say what is meant.
"""

from typing import Any

Frame = Any
"""A ``pd.DataFrame``."""

PandasSeries = Any
"""A ``pd.Series``."""
