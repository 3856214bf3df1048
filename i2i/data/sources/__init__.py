"""Where images come from: folders, zip files, single files, manifests and URLs."""

from i2i.data.sources.base import (
    EXTENSIONS,
    Source,
    Unreadable,
    convert_or_unreadable,
    decode_bytes,
    is_hidden,
    is_image,
    load_image,
)
from i2i.data.sources.factory import bundled_datasets, open_source
from i2i.data.sources.folder import Folder, SingleFile
from i2i.data.sources.url import check_local, is_url
from i2i.data.sources.zip_file import Zip

__all__ = [
    "EXTENSIONS", "Folder", "SingleFile", "Source", "Unreadable", "Zip", "bundled_datasets", "check_local",
    "convert_or_unreadable", "decode_bytes", "is_hidden", "is_image", "is_url", "load_image", "open_source"]
