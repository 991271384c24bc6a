"""From vision features to visual tokens."""
