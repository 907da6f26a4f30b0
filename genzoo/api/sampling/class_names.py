"""Classes by name: `class_labels=cat` becomes the label that training gave to the class "cat"."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import UsageError, did_you_mean
from genzoo.data.class_lists import label_of

if TYPE_CHECKING:
    from genzoo.core.types import Batch

logger = logging.getLogger(__name__)
SHOWN = 6  # classes that an error names
Names = Sequence[str]


def labels_of_names(given: Any, names: Names | None) -> Any:
    """`class_labels` as numbers: a name, a list of names and numbers, or names between commas.

    names: of the classes, by label; None when nothing knows them. The first words of a name will do where no
    other name begins with them. Numbers, and what is neither, come back as they are. Raises UsageError for a
    name that is none of them.
    """
    if isinstance(given, str):
        if names is None or given in names or "," not in given:
            return _label(given, names)
        parts = [part.strip() for part in given.split(",")]
        return [int(part) if part.isdecimal() else _label(part, names) for part in parts]
    if isinstance(given, (list, tuple)):
        found = [_label(one, names) if isinstance(one, str) else one for one in given]
        _warn_of_numbers([one for one in given if not isinstance(one, str)], names)
        return found
    _warn_of_numbers([given], names)
    return given


def classes_of(conditions: Batch, names: Names | None) -> dict[str, str]:
    """The names of the classes among some conditions, by label; {} where they have none."""
    labels = conditions.get("class_labels")
    if labels is None or names is None:
        return {}
    return {str(label): names[label] for label in sorted(set(map(int, labels))) if label < len(names)}


def captions_of(conditions: Mapping[str, Any], classes: Mapping[str, str]) -> list[str] | None:
    """The class of each sample, to be shown; None where names say no more than numbers."""
    labels = conditions.get("class_labels")
    if labels is None or all(label == name for label, name in classes.items()):
        return None
    return [classes.get(str(int(label)), "") for label in labels]


def _label(name: str, names: Names | None) -> int | str:
    if names is None:
        if name.isdecimal():
            return int(name)
        raise UsageError(
            f"class_labels is {name!r}, and nothing says which classes the labels stand for",
            fix="give the number of the class",
        )
    label = label_of(name, names)
    if label is not None:
        return label
    if name.isdecimal():
        return int(name)
    begun = _begun_by(name, names)
    if len(begun) == 1:
        logger.info("class %s", names[begun[0]])
        return begun[0]
    some = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    raise UsageError(
        f"there is no class {name!r}", fix=did_you_mean(name, names) or f"the {len(names)} classes are {some}"
    )


def _begun_by(name: str, names: Names) -> list[int]:
    """The classes whose first words are these: "Animals" begins "Animals & Nature" and no "Animalsville"."""
    return [label for label, one in enumerate(names) if name.split() and one.startswith(f"{name} ")]


def _warn_of_numbers(labels: Sequence[Any], names: Names | None) -> None:
    """Where classes are called by numbers, a number is a label all the same: say so when they differ."""
    for label in labels:
        if (
            names is None
            or type(label) is not int
            or str(label) not in names
            or names.index(str(label)) == label
        ):
            continue
        called = f"the class {names[label]!r}" if 0 <= label < len(names) else "no class"
        logger.warning(
            "class_labels=%d is a label, and stands for %s; the class called '%d' has label %d",
            label, called, label, names.index(str(label)),
        )  # fmt: skip
        return
