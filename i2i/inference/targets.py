"""Where the results of a folder job are written."""

import os
from pathlib import Path, PurePosixPath

from i2i.data.sources import Source, image_names
from i2i.errors import RequestError
from i2i.files import location_of
from i2i.images.encode import FILE_FORMATS, formats_for
from i2i.images.format import ImageFormat

Targets = list[tuple[str, Path]]        # Name of an input, file of its result.


def plan_targets(source: Source, out: Path, suffix: str, image_format: ImageFormat,
                 flag: str = "--out") -> tuple[Targets, list[str]]:
    """Plan where each result is to be written.

    Args:
        suffix: format of the results (".png"); "" for that of each input.
        image_format: of the results.
        flag: the option that names the folder.

    Returns:
        The targets, and a message for each input that leads out of the output folder.

    Raises:
        RequestError: if results would overwrite inputs or one another, or a file format does not hold them.
    """
    names, base, targets, refused = image_names(source), source.local, dict[Path, str](), list[str]()
    out_path = _real_path(out)
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            refused.append(f"{name}: its name leads out of the output folder")
            continue
        target = out / (path.with_suffix(suffix) if suffix else path)
        if target in targets:
            raise RequestError(f"{targets[target]} and {name} would both be written to {target}; keep their "
                               "formats or translate them apart")
        original = _real_path(base / name) if base else None
        there = original and os.path.exists(original) and _real_path(target) == original
        if there or location_of(target) == source.path_of(name):        # The latter: of URLs.
            raise RequestError(f"{flag} {location_of(out)} would overwrite the inputs, such as {name}; "
                               "choose another folder")
        targets[target] = name
    # Results of earlier jobs, in a folder within the inputs, are no inputs.
    kept = [(name, target) for target, name in targets.items()
            if (not base or out_path not in _real_path(base / name).parents)
            and not source.path_of(name).startswith(f"{location_of(out)}/")]
    _check_formats(kept, image_format)
    return kept, refused


def check_alpha(suffix: str) -> None:
    """RequestError if files of a format that was asked for hold no alpha."""
    if suffix and not FILE_FORMATS[suffix].alpha:
        raise RequestError(f"--alpha carry: {suffix} files hold no alpha; accepted: --format png or webp or "
                           "tif")


def _real_path(path: Path) -> Path:
    return Path(os.path.realpath(path))     # Path.resolve() raises on links that lead to themselves.


def _check_formats(targets: Targets, image_format: ImageFormat) -> None:
    """Raise RequestError for the first result whose file format does not hold such images."""
    for name, target in targets:
        suffix = target.suffix.lower()
        if suffix not in FILE_FORMATS or not FILE_FORMATS[suffix].supports(image_format):
            accepted = "--format " + " or ".join(formats_for(image_format))
            raise RequestError(f"the results have {image_format}, which {target.suffix} files such as {name} "
                               f"would not hold; accepted: {accepted}")
