"""What a zip holds, in about the memory of its names: members are found in its central directory on disk each
time one is read. `zipfile` keeps an object for each, a gigabyte for a million.  APPNOTE.TXT 6.3.10, PKWARE,
sections 4.3.7, 4.3.12 to 4.3.16 and 4.5.3."""

from __future__ import annotations

import struct
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from itertools import chain, pairwise
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

import numpy as np

from i2i.data.file_list import FileList, Positions

END, END64, LOCATOR64, RECORD, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
_END, _END64, _LOCATOR64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
# Of a record: flags and the lengths of name, extra fields and comment.
_SIZES = struct.Struct("<4s4xH18x3H12x")
_RECORD, _LOCAL = struct.Struct("<4s4B4HL2L5H2L"), struct.Struct("<4s2B4HL2L2H")
COMMENT = (1 << 16) - 1         # The longest there can be behind the end of the directory.
FULL = 0xFFFFFFFF               # "Does not fit in 32 bits: see the extra field."
ENCRYPTED, UTF8 = 0x1, 0x800    # Flags of a member.


class ZipDirectory:
    """The members of a zip.  Nothing is kept open: threads and forked processes may read it at once.
    OSError, BadZipFile if it is none."""

    def __init__(self, path: Path, stored: tuple[FileList, Positions] | None = None) -> None:
        self.path = path
        with self._open() as file:
            self._directory, self._end, self._shift = _bounds(file)
            self.names, self.places = stored or self._list(file)

    def _open(self, at: int = 0) -> BinaryIO:
        """The zip from a place in it on."""
        file = self.path.open("rb")
        file.seek(at)
        return file

    def _list(self, file: BinaryIO) -> tuple[FileList, Positions]:
        """Names in order and where their records lie; of members of one name the last counts, as in
        unpacking."""
        places = array("q")

        def members() -> Iterator[str]:
            for place, name in self._records(file):
                if not name.endswith("/"):
                    places.append(place)
                    yield name

        found = FileList.of(members())
        order = found.order()
        names, where = found.take(order), np.array(places, np.int64)[order]
        last = np.fromiter(chain((one != after for one, after in pairwise(names)), [True] * bool(names)),
                           bool, len(names))
        return (names, where) if last.all() else (names.take(np.flatnonzero(last)), where[last])

    def _records(self, file: BinaryIO) -> Iterator[tuple[int, str]]:
        """Where each record is, and its name."""
        with mmap(file.fileno(), 0, access=ACCESS_READ) as whole:
            yield from self._parsed(whole, 0)

    def _parsed(self, data: mmap | bytes, begin: int) -> Iterator[tuple[int, str]]:
        """As `_records`, of data that begin so far from the beginning of the zip."""
        place, end = self._directory - begin, self._end - begin
        while place < end:
            if place + _SIZES.size > end or data[place:place + 4] != RECORD:
                raise zipfile.BadZipFile("its directory is damaged")
            _, flags, named, extra, comment = _SIZES.unpack_from(data, place)
            first = place + _SIZES.size
            yield place + begin, _name(data[first:first + named], flags,
                                       _fields(data[first + named:first + named + extra]) if extra else {})
            place = first + named + extra + comment

    def read(self, name: str) -> bytes:
        """The bytes of a member.  OSError, BadZipFile, zlib.error … if that fails"""
        place = self.names.find(name)
        if place < 0:
            raise FileNotFoundError("there is no such file in it")
        with self._open(int(self.places[place])) as file:
            info = _record(file, self._shift)
            if info.filename != name:
                raise zipfile.BadZipFile("the zip has been replaced")
            if info.flag_bits & ENCRYPTED:
                raise RuntimeError("it is encrypted")
            body = self._member(file, info)
            head = body.read(_LOCAL.size)
            if len(head) < _LOCAL.size or not head.startswith(LOCAL):
                raise zipfile.BadZipFile("its header is damaged")
            *_, named, extra = _LOCAL.unpack(head)
            body.seek(named + extra, 1)
            with zipfile.ZipExtFile(body, "r", info) as member:
                return member.read()

    def _member(self, file: BinaryIO, info: zipfile.ZipInfo) -> BinaryIO:
        """A member's header and what follows, by way of the open zip."""
        file.seek(info.header_offset)
        return file


def _bounds(file: BinaryIO) -> tuple[int, int, int]:
    """Where the central directory begins and ends, and how far all offsets are off because something stands
    before the zip."""
    size = file.seek(0, 2)
    first = max(0, size - COMMENT - _END.size)
    file.seek(first)
    tail = file.read()
    at = tail.rfind(END)
    if at < 0 or len(tail) < at + _END.size:
        raise zipfile.BadZipFile("File is not a zip file")
    *_, length, offset, _ = _END.unpack_from(tail, at)
    end = first + at
    file.seek(max(0, end - _LOCATOR64.size - _END64.size))
    wide = file.read(_END64.size + _LOCATOR64.size)
    if end >= len(wide) == _END64.size + _LOCATOR64.size and wide.startswith(END64) and wide[_END64.size:].startswith(LOCATOR64):
        *_, length, offset = _END64.unpack_from(wide)
        end -= len(wide)
    if end - length < 0 or end - length - offset < 0:
        raise zipfile.BadZipFile("its directory is damaged")
    return end - length, end, end - length - offset


def _record(file: BinaryIO, shift: int) -> zipfile.ZipInfo:
    """The record of one member that begins here: what `zipfile` has to know of it."""
    data = file.read(_RECORD.size)
    if len(data) < _RECORD.size or not data.startswith(RECORD):
        raise zipfile.BadZipFile("its directory is damaged")
    _, _, _, _, _, flags, method, _, _, crc, packed, unpacked, named, extra, _, _, _, _, offset = _RECORD.unpack(data)
    raw, more = file.read(named), file.read(extra)
    fields = _fields(more)
    info = zipfile.ZipInfo(_name(raw, flags, fields) or "?")
    info.flag_bits, info.compress_type, info.CRC = flags, method, crc
    wide = (int.from_bytes(fields[1][i:i + 8], "little") for i in range(0, len(fields.get(1, b"")), 8))
    info.file_size, info.compress_size, offset = (next(wide, value) if value == FULL else value
                                                  for value in (unpacked, packed, offset))
    info.header_offset = offset + shift
    return info


def _name(raw: bytes, flags: int, fields: dict[int, bytes]) -> str:
    unicode = fields.get(0x7075, b"")
    if len(unicode) > 5 and struct.unpack_from("<L", unicode, 1)[0] == zlib.crc32(raw):
        return unicode[5:].decode("utf-8", "surrogateescape")
    return raw.decode("utf-8" if flags & UTF8 else "cp437", "surrogateescape").split("\0")[0]


def _fields(extra: bytes) -> dict[int, bytes]:
    """The extra fields of a member: kind -> content.  1: values that do not fit in 32 bits, in order; 0x7075:
    the name in UTF-8."""
    found = {}
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        found[kind], extra = extra[4:4 + length], extra[4 + length:]
    return found
