"""A zip that grows at its end and can be cut back to its last whole member, in memory that does not grow with
it: `zipfile` keeps an object for each member, and loses them all where its directory is never written.
APPNOTE.TXT 6.3.10, PKWARE, sections 4.3.7, 4.3.12 to 4.3.16, 4.5.3."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

END, END64, LOCATOR64, RECORD, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
_LOCAL, _RECORD = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L")
_END64, _LOCATOR64, _END = struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL"), struct.Struct("<4s4H2LH")
FULL = 0xFFFFFFFF                       # "Does not fit in 32 bits: see the extra field."
UTF8 = 0x800                            # Flag of a member: its name is UTF-8.
PLAIN, WIDE = 20, 45                    # Version 2.0, and 4.5 where numbers need 64 bits.
DATE = 1 << 5 | 1                       # 1980-01-01: equal content makes equal files.
FULL16 = 0xFFFF                         # As FULL, of 16 bits.
UNIX, MODE = 3 << 8, 0o100644 << 16     # A plain file that all may read.
CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file in the zip, stored as it is: where its header begins and its data."""

    name: str
    header: int
    data: int
    size: int
    crc: int

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.data + self.size


def members(file: io.RawIOBase, *, check: bool = False) -> Iterator[Member]:
    """The members from the beginning on, as far as they are whole; with `check` their data is read and
    compared with its checksum."""
    length, place = file.seek(0, io.SEEK_END), 0
    while place + _LOCAL.size <= length:
        file.seek(place)
        head = _read(file, _LOCAL.size + 512)
        sign, _, _, method, _, _, crc, size, _, named, extra = _LOCAL.unpack_from(head)
        data = place + _LOCAL.size + named + extra
        if sign != LOCAL or method or extra or data + size > length or len(head) < _LOCAL.size + named:
            return
        name = head[_LOCAL.size:_LOCAL.size + named].decode("utf-8", "replace")
        if check and crc != _checksum(iter_data(file, data, size)):
            return
        member = Member(name, place, data, size, crc)
        yield member
        place = member.end


def iter_data(file: io.RawIOBase, start: int, size: int) -> Iterator[bytes]:
    """A stretch of the file, piece by piece."""
    file.seek(start)
    while size > 0 and (piece := _read(file, min(size, CHUNK))):
        size -= len(piece)
        yield piece


def append(file: io.RawIOBase, place: int, name: str, pieces: Callable[[], Iterable[bytes]]) -> int:
    """Write a member at `place`; its pieces are asked for twice, first for their sum.  -> where the next one
    begins

    OSError if the disk refuses; the caller cuts the file back to `place`.
    """
    size = crc = 0
    for piece in pieces():
        size, crc = size + len(piece), zlib.crc32(piece, crc)
    raw = name.encode()
    file.seek(place)
    write(file, _LOCAL.pack(LOCAL, PLAIN, UTF8, 0, 0, DATE, crc, size, size, len(raw), 0) + raw)
    for piece in pieces():
        write(file, piece)
    return place + _LOCAL.size + len(raw) + size


def close(file: io.RawIOBase, place: int, among: Iterable[Member]) -> None:
    """Write the directory of these members at `place`, and the end: now it is a zip."""
    count, end = 0, place
    batch = bytearray()
    for member in among:
        batch += _record(member)
        count += 1
        if len(batch) > CHUNK:
            file.seek(end)
            end += write(file, batch)
            batch = bytearray()
    length = end + len(batch) - place
    if count >= FULL16 or place >= FULL or length >= FULL:
        wide = end + len(batch)
        batch += _END64.pack(END64, _END64.size - 12, UNIX | WIDE, WIDE, 0, 0, count, count, length, place)
        batch += _LOCATOR64.pack(LOCATOR64, 0, wide, 1)
    batch += _END.pack(END, 0, 0, min(count, FULL16), min(count, FULL16), min(length, FULL),
                       min(place, FULL), 0)
    file.seek(end)
    write(file, batch)
    file.truncate(end + len(batch))


def _record(member: Member) -> bytes:
    raw, far = member.name.encode(), member.header >= FULL
    extra = struct.pack("<2HQ", 1, 8, member.header) if far else b""
    version = WIDE if far else PLAIN
    return _RECORD.pack(RECORD, UNIX | version, version, UTF8, 0, 0, DATE, member.crc, member.size,
                        member.size, len(raw), len(extra), 0, 0, 0,
                        MODE, min(member.header, FULL)) + raw + extra


def _checksum(pieces: Iterable[bytes]) -> int:
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return crc


def _read(file: io.RawIOBase, size: int) -> bytes:
    return file.read(size) or b""


def write(file: io.RawIOBase, data: bytes | bytearray) -> int:
    """All of it, or OSError: a raw file may take less at a time, and tells of a full disk only when it takes
    nothing."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) or 0:]
    return len(data)
