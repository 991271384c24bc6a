"""The architectures of vLLM that are served pruned: a file each, imported when it is asked for."""
