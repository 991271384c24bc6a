"""A table drawn: terminal, Markdown, CSV, LaTeX, HTML. Each escapes what its format would read."""
