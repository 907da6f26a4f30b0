"""Samples of a tar shard as webdataset groups them: neighbours of one key, told apart by their extensions.

The key is the path up to the first dot of its last component. Read are pictures, classes (.cls, an integer)
and captions (.txt); nothing else is ever opened, and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import BinaryIO

from genzoo.core.errors import DataError
from genzoo.data.shard_places import ShardPlace
from genzoo.data.tar_members import Member, refused, tar_members

PICTURES = ("jpg", "jpeg", "png", "webp")
CLASS, CAPTION = "cls", "txt"
MAX_CLASS, MAX_CAPTION = 32, 1 << 20  # bytes


@dataclass(frozen=True)
class TarSample:
    """A picture in a shard, with what belongs to it."""

    key: str
    picture: Member
    extension: str
    label: int | None
    caption: Member | None


@dataclass
class ShardContent:
    """ignored: names of members that belong to no sample."""

    samples: list[TarSample] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def read_shard(path: ShardPlace) -> ShardContent:
    """Scan a shard once. Raises DataError for what `tar_members` refuses, and for samples that are none."""
    content, seen = ShardContent(), set[str]()
    try:
        with path.open("rb") as file:
            members = tar_members(file, path.stat().st_size, where=path)
            for key, group in groupby(members, key=lambda member: sample_key(member.name)[0]):
                if key and key in seen:
                    raise refused(path, key, "a sample's key comes again later in the shard")
                seen.add(key)
                _take(content, key, list(group), file, path)
    except OSError as error:
        raise DataError("the shard cannot be read", where=str(path), why=str(error)) from error
    content.ignored.sort()
    return content


def sample_key(name: str) -> tuple[str, str]:
    """Key and extension, in lower case, of a member; both empty for names that belong to no sample."""
    folder, slash, last = name.rpartition("/")
    stem, dot, extension = last.partition(".")
    return (folder + slash + stem, extension.lower()) if stem and dot else ("", "")


def caption_of(data: bytes, *, where: str) -> str:
    """A caption's text. Raises DataError."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("a caption is no UTF-8", where=where, why=str(error)) from error


def class_of(data: bytes, path: ShardPlace, name: str) -> int:
    """A class file's integer. Raises DataError."""
    text = data.strip()
    if not text.isdigit():
        raise refused(path, name, "a class is no integer")
    return int(text)


def _take(content: ShardContent, key: str, members: list[Member], file: BinaryIO, path: ShardPlace) -> None:
    if not key:
        content.ignored += [member.name for member in members]
        return
    by_extension = dict(_distinct(members, path))
    pictures = [extension for extension in by_extension if extension in PICTURES]
    if len(pictures) > 1:
        raise refused(path, key, "a sample has two pictures")
    if not pictures:
        content.ignored += [member.name for member in members]
        return
    used = {pictures[0], CLASS, CAPTION}
    content.ignored += [member.name for ext, member in by_extension.items() if ext not in used]
    label = by_extension.get(CLASS)
    content.samples.append(
        TarSample(
            key,
            by_extension[pictures[0]],
            pictures[0],
            None if label is None else _label(file, label, path),
            _bounded(by_extension.get(CAPTION), path),
        )
    )


def _distinct(members: Iterable[Member], path: ShardPlace) -> Iterator[tuple[str, Member]]:
    seen = set[str]()
    for member in members:
        extension = sample_key(member.name)[1]
        if extension in seen:
            raise refused(path, member.name, "a sample has the same member twice")
        seen.add(extension)
        yield extension, member


def _label(file: BinaryIO, member: Member, path: ShardPlace) -> int:
    if member.size > MAX_CLASS:
        raise refused(path, member.name, "a class is no integer")
    file.seek(member.offset)
    return class_of(file.read(member.size), path, member.name)


def _bounded(member: Member | None, path: ShardPlace) -> Member | None:
    if member is not None and member.size > MAX_CAPTION:
        raise refused(path, member.name, f"a caption of {member.size:,} bytes")
    return member
