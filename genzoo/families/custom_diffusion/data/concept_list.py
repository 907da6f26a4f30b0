"""Concept lists: what to teach, in the official JSON format or written into the recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genzoo.core.errors import DataError, did_you_mean
from genzoo.core.reading import shown
from genzoo.data.text_files import read_json
from genzoo.families.custom_diffusion.data.pictures import (
    CaptionedPictures,
    dataset_pictures,
    regularisation_pictures,
    under_one_prompt,
)

KEYS = ("instance_prompt", "class_prompt", "instance_data_dir", "class_data_dir")
# pictures of another data set in place of a folder; ours
SECTIONS = {"instance_data": "instance_data_dir", "class_data": "class_data_dir"}
# entries of published lists that belong to their evaluation
IGNORED = ("prompt_filename", "prompt_filename_compose")
MODIFIER = re.compile(r"<[^<>\s]+>")
TEMPLATES = ("photo of a ", "photo of an ", "a photo of ", "painting in the style of ", "photo of ")


@dataclass(frozen=True)
class Concept:
    """instance_prompt: such as "photo of a <new1> cat".   class_pictures: to keep the class as it was."""

    instance_prompt: str
    class_prompt: str | None
    instances: CaptionedPictures
    class_pictures: CaptionedPictures | None

    @property
    def modifier_tokens(self) -> list[str]:
        """The new words in its prompt, in order, in lower case as the tokenizer writes them."""
        return list(dict.fromkeys(MODIFIER.findall(self.instance_prompt.lower())))

    @property
    def phrase(self) -> str:
        """What the concept is called in prompts: its prompt without the words of the template."""
        for template in TEMPLATES:
            if self.instance_prompt.lower().startswith(template):
                return self.instance_prompt[len(template) :]
        return self.instance_prompt


def read_concepts(concepts: str | Path | Sequence[Mapping[str, Any]]) -> list[Concept]:
    """The concepts of a JSON file, or of a list of mappings with the same keys. Raises DataError.

    Relative folders of a file are looked for beside it, then in the current folder.
    """
    if isinstance(concepts, (str, Path)):
        path = Path(concepts).expanduser()
        entries, near, where = _read_json(path), path.resolve().parent, shown(path)
    else:
        entries, near, where = concepts, None, "data.concepts"
    if not isinstance(entries, Sequence) or not entries:
        raise DataError("a concept list is a non-empty list", where=where, fix=f"each with {', '.join(KEYS)}")
    return [_concept(entry, near, f"{where}, concept {number}") for number, entry in enumerate(entries, 1)]


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise DataError(
            "cannot read the concept list",
            where=shown(path),
            why="it is a folder" if path.is_dir() else "there is no such file",
            fix="give a JSON file: concepts=concepts.json",
        )
    return read_json(path, "the concept list")


def _concept(entry: Any, near: Path | None, where: str) -> Concept:
    if not isinstance(entry, Mapping):
        raise DataError(f"a concept is a mapping, not {entry!r:.60}", where=where)
    known = [*KEYS, *SECTIONS, *IGNORED]
    for key in entry:
        if key not in known:
            raise DataError(
                f"there is no key {key!r}",
                where=where,
                fix=did_you_mean(str(key), known) or f"it has {', '.join(KEYS)}",
            )
    for key in (*KEYS, *IGNORED):
        if entry.get(key) is not None and not isinstance(entry[key], str):
            raise DataError(f"{key} must be text, not {entry[key]!r:.60}", where=where)
    instance_prompt, class_prompt = (str(entry.get(key) or "").strip() for key in KEYS[:2])
    if not instance_prompt:
        raise DataError("instance_prompt is missing", where=where, fix='such as "photo of a <new1> cat"')
    if MODIFIER.search(class_prompt):
        raise DataError(
            f"class_prompt has a new word, {MODIFIER.findall(class_prompt)[0]}",
            where=where,
            fix='name the class alone, such as "cat"',
        )
    instances = _pictures(entry, "instance_data", instance_prompt, near, where)
    if instances is None:
        raise DataError(
            "instance_data_dir is missing", where=where, fix="the folder of the concept's pictures"
        )
    classes = _pictures(entry, "class_data", class_prompt or None, near, where)
    return Concept(instance_prompt, class_prompt or None, instances, classes)


def _pictures(
    entry: Mapping[str, Any], key: str, prompt: str | None, near: Path | None, where: str
) -> CaptionedPictures | None:
    if entry.get(key) is not None:
        if entry.get(SECTIONS[key]) is not None:
            raise DataError(f"{key} and {SECTIONS[key]} were both given", where=where, fix="give one of them")
        # pictures of the class have captions of their own
        return dataset_pictures(entry[key], prompt)
    if not entry.get(SECTIONS[key]):
        return None
    folder = Path(str(entry[SECTIONS[key]])).expanduser()
    if near is not None and not folder.is_absolute() and (near / folder).is_dir():
        folder = near / folder
    if not folder.is_dir():
        raise DataError(f"{SECTIONS[key]}: there is no such folder", where=f"{where}: {shown(folder)}")
    if key == "instance_data":
        assert prompt is not None
        return under_one_prompt(folder, prompt)
    return regularisation_pictures(folder, prompt)
