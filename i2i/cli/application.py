"""The Typer application that turns errors into one line and an exit code."""

import contextlib
import errno
import os
import sys
import warnings
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from i2i.cli.next_steps import print_next_steps
from i2i.errors import I2IError, printable
from i2i.files import DISK_ERRORS

# Newer versions of Typer vendor click, older ones depend on it; the base classes are the right ones in both.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
_ClickException: type[Exception] = _UsageError.__bases__[0]
_SETTINGS: dict[str, Any] = {"rich_markup_mode": None,
                             "context_settings": {"help_option_names": ["-h", "--help"]}}
# What a path or a disk of the user's does not allow, wherever it is noticed.
NOT_OURS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, *DISK_ERRORS)


def command_group(help: str) -> typer.Typer:
    """A command with subcommands, such as `i2i data`."""
    return typer.Typer(help=help, no_args_is_help=True, **_SETTINGS)


class App(typer.Typer):
    """A Typer application that reports an error in one line.

    Exit codes: 0 done, 1 the job failed or some of its inputs did, 2 the request was wrong, 128 + signal if
    it was interrupted.
    """

    def __init__(self, help: str) -> None:
        super().__init__(help=help, pretty_exceptions_enable=False, **_SETTINGS)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line of this process and exit."""
        warnings.formatwarning = _format_warning
        sys.exit(self.run(sys.argv[1:]))

    @cached_property
    def _command(self) -> Any:
        return typer.main.get_command(self)

    def run(self, args: list[str]) -> int:
        """Run one command line and return its exit code."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")       # File names may not be valid text.
        for option, value in pairwise(args):
            if option.startswith("--") and not value:     # Such as a variable that is not set.
                return _report_error(f"the value of {option} is empty", 2)
        try:
            with contextlib.redirect_stdout(sys.stdout):        # Which `--json -` changes.
                code = int(self._command.main(args or ["--help"], prog_name="i2i",
                                              standalone_mode=False) or 0)
            if not args:
                print_next_steps(Path())
            return code
        except _ClickException as error:
            message = str(getattr(error, "format_message", error.__str__)())
            if message.startswith("Usage:"):        # The help of a group that was called without a command.
                print(message)
                return 0
            flag, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
            if flag and context and (better := _type_instead(args, flag, context)):
                message = f"no such option: {flag}; type {better}"
            return _report_error(message, 2)
        except I2IError as error:
            return _report_error(str(error), error.exit_code)
        except (KeyboardInterrupt, typer.Abort):
            return _report_error("interrupted", 130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as error:
            if error.filename is None or error.errno not in NOT_OURS:
                raise
            return _report_error(f"{os.fsdecode(error.filename)}: {error.strerror}", 2)
        except MemoryError:
            return _report_error("out of memory; use a smaller batch or size", 1)
        except (RuntimeError, ImportError) as error:
            if message := _explain(error):
                return _report_error(message, 1)
            raise


def _format_warning(message: Warning | str, *where: Any, **line: Any) -> str:
    """A warning of another package in one line, like those of i2i."""
    return f"warning: {printable(' '.join(str(message).split()))}\n"


def _report_error(message: str, code: int) -> int:
    rank = os.environ.get("RANK", "0")      # Set by launchers.
    prefix = f"error: process {rank}: " if rank != "0" else "error: "
    print(prefix + printable(" ".join(message.split("\n"))), file=sys.stderr)
    return code


def _type_instead(args: list[str], flag: str, context: Any) -> str:
    """What to type instead of an option of another tool that this command does not have; empty if unknown."""
    from i2i.config import parse_assignments
    from i2i.registry import names
    from i2i.training.settings import hint, initial_settings
    at = next((i for i, arg in enumerate(args) if arg.partition("=")[0] == flag), None)
    if at is None:
        return ""
    _, equals, value = args[at].partition("=")
    following = args[at + 1] if at + 1 < len(args) else "-"
    if not equals and "=" not in following and (following == "-1" or not following.startswith("-")):
        value = following
    name = next((arg for arg in args if arg in names("preset") or arg in names("recipe")), "pix2pix")
    settings = parse_assignments([arg for arg in args if arg.partition("=")[0].strip("-") and "=" in arg])
    better = hint(flag, value, initial_settings(name)[1], settings)
    options = [option for parameter in context.command.params for option in parameter.opts]
    is_option = better.startswith("--") and better.split()[0] in options
    return better if is_option or context.info_name == "train" else ""


def _explain(error: Exception) -> str:
    """One line about a failure of the machine or installation; empty for a bug, which shows its traceback."""
    text = str(error)
    if "torchvision::nms does not exist" in text:
        return ("torch and torchvision are from different builds (operator torchvision::nms does not exist); "
                "install them together: pip install --force-reinstall torch torchvision")
    if "out of memory" in text or "can't allocate memory" in text:
        return ("out of memory; reduce train.batch_size, generator.width or data.size "
                f"({text.splitlines()[0][:120]})")
    return ""
