"""The harness: answers lmms-eval's tasks under many pruning configs and scores the answers.

Importing the package itself loads neither torch nor lmms-eval; each module imports what it needs.
"""
