"""Errors a user can act on: each is one line, and the kind decides the exit code."""


class I2IError(Exception):
    """Base of all errors that reach the user as one line without a traceback."""

    exit_code = 1


class RequestError(I2IError, ValueError):
    """The request was wrong; the message says which key or path, what came and what is accepted.  Exit code
    2."""

    exit_code = 2


class JobError(I2IError, RuntimeError):
    """The request was right but the job failed, or some of its inputs did.  Exit code 1."""

    exit_code = 1


class Unverified(UserWarning):
    """A file that nothing tells to be whole."""


def printable(text: str) -> str:
    """The text on one line and without power over a terminal: what is no printable character is escaped, as
    file names may hold any."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def require(condition: bool, key: str, value: object, accepted: str) -> None:
    """Raise RequestError unless the value of a setting is acceptable.

    Args:
        condition: whether the value is acceptable.
        key: the setting as the user writes it, e.g. `train.batch_size`.
        value: what was given.
        accepted: what would have been accepted, for the message.
    """
    if not condition:
        shown = list(value) if isinstance(value, tuple) else value
        raise RequestError(f"{key}={shown} cannot be used; accepted: {accepted}")
