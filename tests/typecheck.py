"""The run-time type checker of the test suite: beartype, int allowed for float."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
