"""The harness: lmms-eval's tasks, our engine, one journal for every answer.

Importing the package loads neither torch nor lmms-eval; what a module needs it imports itself.
"""
