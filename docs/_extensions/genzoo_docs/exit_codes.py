"""The table of exit codes, from the classes of errors that carry them."""

from __future__ import annotations

from collections.abc import Iterator

from genzoo.core import errors
from genzoo_docs.tables import code, table


def kinds() -> list[type[errors.GenzooError]]:
    """Every class of error that a user meets, by exit code and name."""
    return sorted(_below(errors.GenzooError), key=lambda kind: (kind.exit_code, kind.__name__))


def _below(kind: type[errors.GenzooError]) -> Iterator[type[errors.GenzooError]]:
    for inner in kind.__subclasses__():
        if inner.__module__ == errors.__name__:
            yield inner
            yield from _below(inner)


def written() -> str:
    """A row for each kind of error."""
    rows = [(_code(kind), code(kind.__name__), (kind.__doc__ or "").partition("\n")[0]) for kind in kinds()]
    return table(("exit code", "error in Python", "when"), rows)


def _code(kind: type[errors.GenzooError]) -> str:
    return "128 + signal" if kind is errors.Interrupted else str(kind.exit_code)
