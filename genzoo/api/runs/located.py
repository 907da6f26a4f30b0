"""Files that a run's recipe names by relative paths, found from wherever the run is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.environment import STARTED_IN
from genzoo.core.reading import read_record
from genzoo.core.registry import REGISTRIES

if TYPE_CHECKING:
    from genzoo.core.recipe import Recipe

# of the data, whatever is a path may be one; of these, what ends so
SECTIONS, ENDINGS = (
    ("codec", "model", "task"),
    ("weights", "path", "root", "folder", "base_model", "statistics"),
)


def located(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with whole paths for relative ones that lead nowhere here, and somewhere from its start.

    folder: of the run, whose env.json says where it was started.
    """
    changes = moved_paths(recipe.data, folder)
    return recipe.replaced(changes, "found from where the run was started") if changes else recipe


def moved_paths(data: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Dotted keys of a recipe to the paths that they mean."""
    start = read_record(folder / "env.json").get(STARTED_IN)
    if not isinstance(start, str):
        return {}
    found = {}
    for key, value in (*_texts("data", data.get("data"), ()), *_named_texts(data)):
        path = Path(value).expanduser()
        if not _exists(path) and not path.is_absolute() and _exists(Path(start) / path):
            found[key] = str(Path(start) / path)
    return found


def _named_texts(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for section in SECTIONS:
        yield from _texts(section, data.get(section), ENDINGS)


def _texts(key: str, node: Any, endings: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Dotted keys and values of texts below a section that may be paths."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name != "name":
                yield from _texts(f"{key}.{name}", value, endings)
    elif _may_be_path(node) and (not endings or key.endswith(endings)):
        yield key, node


def _may_be_path(value: object) -> bool:
    """A text, unless it names something such as an extractor: a folder may be called so too."""
    return isinstance(value, str) and value != "" and not any(value in names for names in REGISTRIES.values())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
