"""Language models that images can be spliced into."""
