"""The measured cost of an experiment's settings as files and pages; see `experiments.cost`."""
