"""The members of a plain tar archive, found by its headers alone; what a data set cannot mean is refused.

Blocks have 512 bytes; a member's content follows its header, and the next header follows the content's last
block. An archive ends at a block of zeros or at the end of the file, and behind that are zeros only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from genzoo.core.errors import DataError
from genzoo.data.shard_places import ShardPlace

BLOCK = 512
MAX_EXTRA = 1 << 20  # bytes of a pax record or a long name
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh")
FILES, FOLDER, LINKS, SPECIAL = (b"0", b"\0", b"7"), b"5", (b"1", b"2"), (b"3", b"4", b"6")


@dataclass(frozen=True)
class Member:
    """A file in an archive. offset: of its first byte.   Names have no leading './'."""

    name: str
    offset: int
    size: int


@dataclass
class _Extra:
    """What records before a header say about it, or global ones about all that follow."""

    path: str | None = None
    size: int | None = None
    long_name: str | None = None
    shared: dict[str, str] = field(default_factory=dict)


def tar_members(file: BinaryIO, size: int, *, where: ShardPlace) -> Iterator[Member]:
    """Every file in order. Raises DataError, with archive and member, for all that is no plain file.

    Such as links, devices, sparse files, paths that leave the archive, damaged or cut headers.
    """
    position, extra = 0, _Extra()
    while position < size:
        header = _read(file, position, BLOCK)
        if position == 0 and header.startswith(COMPRESSED):
            raise refused(where, "", "the archive is compressed; random access needs a plain tar")
        if not any(header):
            _require_zeros(file, position, size, where)
            return
        kind, name, length = _parsed(header, where)
        start = position + BLOCK
        position = start + -(-length // BLOCK) * BLOCK
        if kind in (b"L", b"K", b"x", b"g"):
            _require_inside(start + length, size, name, where)
            _note(extra, kind, _extra_content(file, start, length, name, where), name, where)
            continue
        name, length = _described(extra, name, length)
        position = start + -(-length // BLOCK) * BLOCK
        member = Member(_safe(name, where), start, length)
        _require_plain(kind, member.name, where)
        _require_inside(start + length, size, member.name, where)
        extra = _Extra(shared=extra.shared)
        if kind != FOLDER and not name.endswith("/"):
            yield member


def header_size(header: bytes, *, where: ShardPlace) -> int:
    """The size that a header states, after its checksum was looked at. Raises DataError."""
    return _parsed(header, where)[2]


def refused(where: ShardPlace, member: str, what: str) -> DataError:
    """The one error of an archive that is not read."""
    return DataError(
        what, where=f"{where}: {member}" if member else str(where), fix="pack the shard anew, as plain files"
    )


def _parsed(header: bytes, where: ShardPlace) -> tuple[bytes, str, int]:
    if len(header) < BLOCK:
        raise refused(where, "", "the archive is cut in a header")
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:  # GNU's own format has other things in that place
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    text = name.decode("utf-8", "surrogateescape")
    field_ = header[148:156]
    total = sum(header) - sum(field_) + 8 * 32
    signed = total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])
    try:
        stated = int(field_.strip(b" \0") or b"-1", 8)
    except ValueError:
        stated = -1
    if stated not in (total, signed):
        raise refused(where, text, "the checksum of a header differs")
    return header[156:157], text, _number(header[124:136], text, where)


def _number(digits: bytes, name: str, where: ShardPlace) -> int:
    if digits[0] & 0x80:  # base 256, whose next bit is the sign
        value = -1 if digits[0] & 0x40 else int.from_bytes(bytes([digits[0] & 0x3F]) + digits[1:], "big")
    else:
        try:
            value = int(digits.strip(b" \0") or b"0", 8)
        except ValueError:
            value = -1
    if value < 0:
        raise refused(where, name, "a member has a negative or unreadable size")
    return value


def _note(extra: _Extra, kind: bytes, content: bytes, name: str, where: ShardPlace) -> None:
    if kind == b"L":
        extra.long_name = content.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
    if kind in (b"L", b"K"):
        return
    records = dict(_records(content, name, where))
    if any(key.startswith("GNU.sparse.") for key in records):
        raise refused(where, name, "sparse files are not read")
    if "size" in records and not records["size"].isdecimal():
        raise refused(where, name, "a member has a negative or unreadable size")
    if kind == b"g":
        extra.shared |= records
        return
    extra.path = records.get("path", extra.path)
    extra.size = int(records["size"]) if "size" in records else extra.size


def _described(extra: _Extra, name: str, length: int) -> tuple[str, int]:
    path = extra.path if extra.path is not None else extra.shared.get("path")
    size = extra.size if extra.size is not None else extra.shared.get("size")
    name = extra.long_name or path or name
    return name, length if size is None else int(size)


def _records(content: bytes, name: str, where: ShardPlace) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(content) and content[position]:
        blank = content.find(b" ", position, position + 20)
        digits = content[position:blank] if blank > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        if not blank + 1 < end <= len(content) or content[end - 1 : end] != b"\n":
            raise refused(where, name, "the length in an extended header lies")
        key, equals, value = content[blank + 1 : end - 1].partition(b"=")
        if not equals:
            raise refused(where, name, "an extended header has no value")
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        position = end


def _extra_content(file: BinaryIO, start: int, length: int, name: str, where: ShardPlace) -> bytes:
    if length > MAX_EXTRA:
        raise refused(where, name, f"an extended header of {length:,} bytes")
    return _read(file, start, length)


def _safe(name: str, where: ShardPlace) -> str:
    if name.startswith(("/", "\\")) or ".." in name.split("/") or "\0" in name:
        raise refused(where, name, "the path of a member leaves the archive")
    while name.startswith("./"):
        name = name[2:]
    return name


def _require_plain(kind: bytes, name: str, where: ShardPlace) -> None:
    if kind in LINKS:
        raise refused(where, name, "a member is a link")
    if kind in SPECIAL:
        raise refused(where, name, "a member is a special file")
    if kind == b"S":
        raise refused(where, name, "sparse files are not read")
    if kind not in FILES and kind != FOLDER:
        raise refused(where, name, f"a member of unknown kind {kind!r}")


def _require_inside(end: int, size: int, name: str, where: ShardPlace) -> None:
    if end > size:
        raise refused(where, name, "the archive is cut in a member, or its size lies")


def _require_zeros(file: BinaryIO, position: int, size: int, where: ShardPlace) -> None:
    while position < size:
        block = _read(file, position, 1 << 20)
        if any(block) or not block:
            raise refused(where, "", "there is data after the end of the archive")
        position += len(block)


def _read(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)
