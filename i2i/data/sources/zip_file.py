"""Zip files."""

import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from i2i.data.file_list import FileList
from i2i.data.sources.base import Source, Unreadable, check_file_size, is_image
from i2i.data.sources.folder import file_identity
from i2i.errors import RequestError

LOCAL_HEADER = 30           # Bytes before the name of a member; APPNOTE.TXT 6.3.10, section 4.3.7.
ENCRYPTED, UTF8 = 0x1, 0x800        # Bits of a member's flags.
WINDOWS = 0                 # Value of a member's create_system.
MEMBER = np.dtype([("offset", "i8"), ("packed", "i8"), ("size", "i8"), ("crc", "u4"), ("method", "u2"),
                   ("flags", "u2")])


class Zip(Source):
    """A zip file, or a folder inside one.

    `zipfile` lists it once and decompresses members, but is not kept open: its objects take 0.6 KB for each
    member, and its file position would be shared by forked loader workers.
    """

    def __init__(self, path: Path, inside: str = "", *, manifest_name: str = "") -> None:
        self.path, self.manifest_name = path, manifest_name
        self.inside = inside + "/" if inside else ""
        self.root = str(path / inside / manifest_name)
        self._list(path, lambda: path.open("rb"))

    def _list(self, where: object, open_file: Callable[[], BinaryIO]) -> None:
        try:
            with open_file() as file, zipfile.ZipFile(file) as archive:
                # Of several members of one name the last counts, as when unpacking.
                found = {name: member for member in archive.infolist()
                         if not (name := _member_name(member)).endswith("/")}
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise RequestError(f"{where} cannot be read as a zip: {error}") from None
        names = sorted(found)
        self.files = FileList.of(names)
        self.table = np.empty(len(names), MEMBER)
        for position, name in enumerate(names):
            member = found[name]
            self.table[position] = (member.header_offset, member.compress_size, member.file_size, member.CRC,
                                    member.compress_type, member.flag_bits)

    def list_images(self) -> FileList:
        """All image names, sorted.  Names such as "../x.png" are refused where output is written."""
        names = self.files.within(self.inside)
        return names.take(np.flatnonzero([is_image(name) for name in names]))

    def read(self, name: str, size: int | None = None) -> bytes:
        try:
            with self._open_member(self.inside + name) as member:
                if size is None:
                    check_file_size(name, int(self.table[self.files.find(self.inside + name)]["size"]))
                return member.read(size)
        except Unreadable:
            raise
        except Exception as error:      # OSError, BadZipFile, RuntimeError, zlib.error … have no common base.
            raise Unreadable(name, f"cannot be read from {self.path.name}: {error}") from None

    def _open_member(self, name: str) -> zipfile.ZipExtFile:
        position = self.files.find(name)
        if position < 0:
            raise FileNotFoundError("there is no such file in it")
        info, row = zipfile.ZipInfo(name or "?"), self.table[position]
        info.compress_size, info.file_size, info.CRC = int(row["packed"]), int(row["size"]), int(row["crc"])
        info.compress_type, info.flag_bits = int(row["method"]), int(row["flags"])
        if info.flag_bits & ENCRYPTED:
            raise RuntimeError("it is encrypted")
        file = self._open_at(int(row["offset"]), LOCAL_HEADER + len(os.fsencode(name)) + info.compress_size)
        header = file.read(LOCAL_HEADER)
        if len(header) < LOCAL_HEADER or not header.startswith(b"PK\3\4"):
            file.close()
            raise zipfile.BadZipFile("the header is damaged, or the zip was replaced")
        name_length, extra_length = struct.unpack_from("<2H", header, LOCAL_HEADER - 4)
        file.seek(name_length + extra_length, os.SEEK_CUR)
        return zipfile.ZipExtFile(file, "r", info, close_fileobj=True)

    def _open_at(self, offset: int, length: int) -> BinaryIO:
        """The zip file at an offset, of which about `length` bytes will be read."""
        file = self.path.open("rb")
        file.seek(offset)
        return file

    def has(self, name: str) -> bool:
        return self.files.find(self.inside + name) >= 0

    def identity(self, name: str) -> str:
        return f"{file_identity(self.path)} {self.inside + name!r}"

    def other_files(self, on_error: Callable[[str], None]) -> Iterator[str]:
        return (name for name in self.files.within(self.inside) if not is_image(name))


def _member_name(member: zipfile.ZipInfo) -> str:
    """The name of a member, also where Windows wrote backslashes, or macOS UTF-8 without saying so."""
    name = member.filename
    if not name.isascii() and not member.flag_bits & UTF8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/") if member.create_system == WINDOWS else name
