"""Where images come from: folders, zip files, single files, manifests and URLs."""

from i2i.data.sources.base import (
    Source,
    Unreadable,
    convert_or_unreadable,
    decode_bytes,
    is_hidden,
    is_image,
    load_image,
)
from i2i.data.sources.factory import absolute_location, bundled_datasets, open_source, same_location
from i2i.data.sources.folder import Folder, SingleFile
from i2i.data.sources.left_out import find_left_out, image_names
from i2i.data.sources.outputs import output_file, output_folder, uploaded_when_done
from i2i.data.sources.url import check_local, fetched, is_url
from i2i.data.sources.zip_file import Zip

__all__ = [
    "Folder", "SingleFile", "Source", "Unreadable", "Zip", "absolute_location", "bundled_datasets",
    "check_local", "convert_or_unreadable", "decode_bytes", "fetched", "find_left_out", "image_names",
    "is_hidden", "is_image", "is_url", "load_image", "open_source", "output_file", "output_folder",
    "same_location", "uploaded_when_done"]
