"""Files of models on the Hugging Face Hub: `hf:USER/NAME`, or `hf:USER/NAME@REVISION`."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from i2i.errors import JobError, RequestError

PREFIX = "hf:"
MODEL = "model.safetensors"
REPOSITORY = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
LOG_IN = "hf auth login, or HF_TOKEN=… with a token of https://huggingface.co/settings/tokens"


def is_hub_model(text: str | Path) -> bool:
    """Whether a MODEL argument means a model on the Hub."""
    return str(text).startswith(PREFIX) and not Path(text).exists()


def check_repository(text: str) -> str:
    """USER/NAME as the Hub accepts it.  RequestError for anything else."""
    if not REPOSITORY.fullmatch(text) or re.search(r"--|\.\.|[-.]$|\.git$", text):
        raise RequestError(f"{text[:200]} is no name of a model on the Hub; accepted: USER/NAME, of letters, "
                           "digits, -, _ and .")
    return text


def download(model: str | Path) -> Path:
    """The model file of `hf:USER/NAME[@REVISION]`, downloaded unless the newest one is there already.

    RequestError if there is no such model or it may not be read; JobError if the Hub cannot be reached and
    the model has never been downloaded.
    """
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url
    name, _, revision = str(model).removeprefix(PREFIX).partition("@")
    repo, reached = check_repository(name), True
    with explained(repo, revision):
        try:        # Without the half minute in which `hf_hub_download` tries again and again.
            get_hf_file_metadata(hf_hub_url(repo, MODEL, revision=revision or None))
        except errors.HfHubHTTPError:
            raise
        except Exception:
            reached = False
        return Path(hf_hub_download(repo, MODEL, revision=revision or None, library_name="i2i",
                                    local_files_only=not reached))


@contextlib.contextmanager
def explained(repo: str, revision: str = "") -> Iterator[None]:
    """Turn what huggingface_hub raises into one line."""
    from huggingface_hub import constants, errors
    try:
        yield
    except errors.GatedRepoError:
        raise RequestError(f"hf:{repo} asks that its conditions be accepted, at https://huggingface.co/{repo}"
                           f"; then: {LOG_IN}") from None
    except errors.RevisionNotFoundError:
        raise RequestError(f"hf:{repo} has no revision {revision[:100]}; accepted: a branch, a tag or a "
                           "commit") from None
    except errors.RepositoryNotFoundError:
        raise RequestError(f"hf:{repo} does not exist, or is private; for that: {LOG_IN}") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        offline = constants.HF_HUB_OFFLINE
        why = "HF_HUB_OFFLINE is set" if offline else f"{constants.ENDPOINT} cannot be reached"
        raise JobError(f"hf:{repo} was not downloaded before, and {why}; accepted: a network, or a model "
                       "file") from error
    except errors.EntryNotFoundError:
        raise RequestError(f"hf:{repo} has no {MODEL}, so it is no model of i2i") from None
    except errors.HFValidationError as error:
        raise RequestError(f"hf:{repo}: {_line(error)}") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403):
            raise RequestError(f"the Hub does not let you use {repo} ({status}); accepted: a token that may: "
                               f"{LOG_IN}") from None
        raise JobError(f"the Hub answered {repo} with {_line(error)}") from None
    except Exception as error:      # Of the HTTP library, which differs by version.
        raise JobError(f"{constants.ENDPOINT} cannot be reached for {repo}: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
