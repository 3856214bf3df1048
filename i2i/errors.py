"""Errors that a user can act on: one line each, and the class decides the exit code."""


class I2IError(Exception):
    """Base of the errors that are printed as one line without a traceback."""

    exit_code = 1


class RequestError(I2IError, ValueError):
    """The request was wrong: the message says which key or path, what came and what is accepted."""

    exit_code = 2


class JobError(I2IError, RuntimeError):
    """The request was right but the job failed, or some of its inputs did."""


def printable(text: str) -> str:
    """The text with non-printable characters escaped: file names may contain control codes of terminals."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(error: BaseException) -> str:
    """Class and text of an exception, also of one whose text cannot be had."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def require(condition: bool, key: str, value: object, accepted: str) -> None:
    """Raise RequestError unless the value of a setting is acceptable.

    Args:
        condition: whether the value is acceptable.
        key: the setting as the user writes it, e.g. `train.batch_size`.
        value: what was given.
        accepted: what would have been accepted, for the message.
    """
    if not condition:
        value = list(value) if isinstance(value, tuple) else value
        raise RequestError(f"{key}={value} cannot be used; accepted: {accepted}")
