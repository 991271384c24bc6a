"""Attacks on the harness: kills at random moments, bad inputs, two runs compared.

`scripts/attack.sh` runs them; docs/reliability.md says what they look for and what came of them.
"""
