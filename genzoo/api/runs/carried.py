"""Weights of a codec that lie on this machine alone, carried along with a run that leaves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from genzoo.core.contracts import able
from genzoo.core.contracts.parts import SavesItself
from genzoo.core.errors import UsageError
from genzoo.core.paths import exists

if TYPE_CHECKING:
    from genzoo.core.node import Node
    from genzoo.core.types import LatentCodec

PLACE = "codec"  # the folder, beside the recipe


def carry_codec(node: Node | None, codec: LatentCodec | None, folder: Path) -> dict[str, Any] | None:
    """A recipe's codec section as it holds elsewhere, its weights written below `folder` if need be.

    Weights that ship with genzoo, or are on a hub, are found everywhere and stay where they are.
    """
    if node is None:
        return None
    here = [value for value in node.arguments.values() if isinstance(value, str) and exists(value)]
    if not here:
        return node.section()
    saving = able(codec, SavesItself)
    if saving is None:
        raise UsageError(
            f"the codec {node.name!r} lies at {here[0]} of this machine, and cannot go along",
            fix="put it on a hub, and name it by its id in the recipe",
        )
    (folder / PLACE).mkdir()
    saved = saving.save(folder / PLACE)
    places = {key: str(PurePosixPath(PLACE, name)) for key, name in saved.items() if name is not None}
    return {key: value for key, value in node.section().items() if key not in saved} | places


def carried_in(folder: Path, codec: Mapping[str, Any]) -> dict[str, str]:
    """The values of a codec section that are places below `folder`, as whole paths by key."""
    names = {key: PurePosixPath(value) for key, value in codec.items() if isinstance(value, str)}
    return {
        key: str(folder / name)
        for key, name in names.items()
        if name.parts[:1] == (PLACE,) and ".." not in name.parts and exists(folder / name)
    }
