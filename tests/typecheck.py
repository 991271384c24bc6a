"""The run-time type checker of the test suite: beartype, with int allowed where float is asked."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
