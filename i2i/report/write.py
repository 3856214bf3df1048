"""Write a page as one file."""

from pathlib import Path

from i2i.errors import JobError, RequestError
from i2i.files import write_atomically


def check_page(path: Path, option: str) -> None:
    """RequestError unless this can be the name of a page."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise RequestError(f"{option} {path} must end in .html")
    if path.is_dir():
        raise RequestError(f"{option} {path} is a folder; accepted: a file such as {path / 'report.html'}")


def write_page(path: Path, page: str, option: str) -> int:
    """Write a page, and return its size in bytes.  RequestError if that is not possible."""
    check_page(path, option)
    data = page.encode(errors="backslashreplace")       # File names may hold bytes that are no text.
    try:
        write_atomically(path, lambda part: part.write_bytes(data))
    except (JobError, OSError) as error:
        why = str(error) if isinstance(error, JobError) else f"{path} could not be written: {error.strerror}"
        raise RequestError(f"{why}; choose another place with {option} FILE.html") from None
    return len(data)
