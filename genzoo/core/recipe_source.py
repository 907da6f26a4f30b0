"""Where recipes and their includes lie, and how their text becomes a tree of values.

A recipe is data and is not trusted. Limits hold before anything is built: size, nesting, number of values.
Environment interpolation does not exist.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genzoo.core.errors import RecipeError, did_you_mean
from genzoo.core.recipe_tree import Leaf, Tree

MAX_BYTES = 64 * 1024
MAX_DEPTH = 24
MAX_VALUES = 4000
_SURPRISING = re.compile(r"[-+]?(0[0-7_]+|[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")  # base 8 and base 60


def display(path: Path) -> str:
    """The path as a user typed or would type it: relative to the current folder when inside it."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except (ValueError, OSError):
        return str(path)


def shipped(folder: str) -> Path | None:
    """`configs` or `recipes` in the checkout beside the package, or inside the installed wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / folder).is_dir():
        return checkout / folder
    installed = package / f"_{folder}"
    return installed if installed.is_dir() else None


_ADDED: list[Path] = []


def add_root(folder: Path) -> None:
    """Let a package's `configs` and `recipes` be found, after those beside the current folder and ours."""
    if folder not in _ADDED:
        _ADDED.append(folder)


def roots(folder: str, near: Path | None = None) -> list[Path]:
    """Folders to search for `configs` or `recipes`: around the recipe or the current folder, ours, added."""
    starts = [near.resolve().parent] if near is not None else [Path.cwd()]
    found = [
        parent / folder
        for start in starts
        for parent in [start, *start.parents]
        if (parent / folder).is_dir()
    ]
    ours = shipped(folder)
    added = [root / folder for root in _ADDED if (root / folder).is_dir()]
    return list(dict.fromkeys([*found, *([ours] if ours else []), *added]))


def names_in(root: Path) -> list[str]:
    """All recipes below a root, as `name` or `folder/name` without the extension."""
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def find_recipe(name: str | Path) -> Path:
    """A recipe by path, or by bare name among the recipes beside the current folder and the shipped ones."""
    path = Path(name)
    if is_file(path):
        return path
    for root in roots("recipes"):
        found = inside(root, str(name))
        if found is not None:
            return found
    if is_file(path / "recipe.yaml"):
        raise RecipeError(
            f"{name} is a run, not a recipe",
            fix=f"name its recipe, {path / 'recipe.yaml'}; or train it once more: genzoo rerun {name}",
        )
    if is_dir(path):
        raise RecipeError(f"{name} is a folder, and holds no recipe.yaml", fix="name a file inside it")
    known = [known for root in roots("recipes") for known in names_in(root)]
    stem = Path(str(name)).with_suffix("").name
    hint = did_you_mean(stem, known) or did_you_mean(stem, [k.rpartition("/")[2] for k in known])
    raise RecipeError(
        f"there is no recipe {str(name)!r}", fix=hint or "`genzoo list recipes` shows the shipped ones"
    )


def find_include(name: str, *, including: Path, top_level: bool) -> Path:
    """The file behind `base: name`: below a configs folder; at the top of a recipe also another recipe."""
    folders = roots("configs", including)
    if top_level:
        folders = [including.resolve().parent, *roots("recipes", including), *folders]
    for folder in folders:
        found = inside(folder, name)
        if found is not None:
            return found
    known = [known for folder in folders for known in names_in(folder)] if folders else []
    hint = (
        did_you_mean(name.removesuffix(".yaml"), known)
        or f"looked in {', '.join(map(display, folders)) or 'no folder'}"
    )
    raise RecipeError(f"{display(including)}: base: there is no file {name!r}; {hint}")


def inside(root: Path, name: str) -> Path | None:
    """root/name.yaml when it is a file that does not leave the root, else None."""
    try:
        path = (root / (name if name.endswith(".yaml") else f"{name}.yaml")).resolve()
        return path if path.is_relative_to(root.resolve()) and path.is_file() else None
    except (OSError, ValueError):  # NUL bytes, names too long for the file system
        return None


def is_file(path: Path) -> bool:
    """True for a regular file; names the file system cannot hold are simply absent."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_dir(path: Path) -> bool:
    """True for a folder; names the file system cannot hold are simply absent."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def read_tree(path: Path) -> dict[str, Tree]:
    """Parse one file into a tree of leaves; its top must be a mapping."""
    origin = display(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        is_wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell's > writes
        text = raw.decode("utf-16" if is_wide else "utf-8-sig")
    except OSError as error:
        raise RecipeError(f"{origin}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{origin}: is not UTF-8 text (byte {error.start})", fix="save it as UTF-8"
        ) from error
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"{origin}: is larger than {MAX_BYTES // 1024} KiB, which no recipe needs")
    tree = parse(text, origin)
    if not isinstance(tree, dict):
        raise RecipeError(f"{origin}: a recipe is a mapping of `key: value` lines")
    return tree


def parse(text: str, origin: str) -> Tree:
    """YAML text of a whole file to a tree. Every way in which the parsers fail becomes a RecipeError."""
    return _guarded(text, origin, dotlist=False)


def parse_value(text: str, origin: str) -> Tree:
    """The right-hand side of an override, typed as YAML types it."""
    return _guarded(text, origin, dotlist=True)


def _guarded(text: str, origin: str, *, dotlist: bool) -> Tree:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if len(text) > MAX_BYTES:
        raise RecipeError(f"{origin}: is longer than {MAX_BYTES} characters")
    try:
        _check_events(yaml.parse(text, Loader=_event_loader()), origin)
        config = OmegaConf.from_dotlist([f"value={text}"]) if dotlist else OmegaConf.create(text or "{}")
        plain = OmegaConf.to_container(config, resolve=False)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        if "nesting depth" in str(error.problem):
            raise RecipeError(f"{origin}{line}: is nested deeper than {MAX_DEPTH} levels") from error
        hint = 'inside { } write "???" in quotes' if "???" in text else None
        raise RecipeError(
            f"{origin}{line}: is not valid YAML: {error.problem or error.context}", fix=hint
        ) from error
    except RecipeError:
        raise
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError, ArithmeticError, LookupError) as error:
        raise RecipeError(f"{origin}: is not a valid recipe: {_first_line(error)}") from error
    except (TypeError, ValueError, AttributeError, AssertionError) as error:  # omegaconf lets these through
        raise RecipeError(f"{origin}: is not a valid recipe: {_first_line(error)}") from error
    if dotlist and isinstance(plain, dict):
        plain = plain.get("value")
    return _wrap(plain, origin, "")


def _event_loader() -> Any:
    # the same parser that omegaconf takes: libyaml where PyYAML was built with it
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _check_events(events: Iterator[Any], origin: str) -> None:
    """Refuse deep or huge text while it streams by, before any object is built from it."""
    from yaml import events as kinds

    depth = count = 0
    for event in events:
        if isinstance(event, kinds.CollectionStartEvent):
            depth += 1
        elif isinstance(event, kinds.CollectionEndEvent):
            depth -= 1
        count += isinstance(event, kinds.NodeEvent)
        if isinstance(event, kinds.ScalarEvent) and event.implicit[0] and _SURPRISING.fullmatch(event.value):
            raise RecipeError(
                f"{origin}: YAML reads {event.value} as the number {_surprise(event.value)}",
                fix=f'write the number that is meant, or "{event.value}" in quotes for text',
            )
        if depth > MAX_DEPTH:
            raise RecipeError(
                f"{origin}, line {event.start_mark.line + 1}: is nested deeper than {MAX_DEPTH} levels"
            )
        if count > 2 * MAX_VALUES:
            raise RecipeError(f"{origin}: holds more than {MAX_VALUES} values")


def _surprise(text: str) -> object:
    import yaml

    return yaml.safe_load(text)


def _wrap(value: Any, origin: str, key: str) -> Tree:
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str) or not name or "." in name:
                where = f"{key}.{name}" if key else str(name)
                raise RecipeError(
                    f"{origin}: key {where!r} must be text without dots; quote it if it is a word like `on`"
                )
        return {name: _wrap(item, origin, f"{key}.{name}" if key else name) for name, item in value.items()}
    if isinstance(value, list):
        return [_wrap(item, origin, f"{key}.{index}") for index, item in enumerate(value)]
    if isinstance(value, str) and "${" in value:
        raise RecipeError(
            f"{origin}: {key or 'value'}: `${{` interpolation is not part of recipes; write the value itself"
        )
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise RecipeError(
            f"{origin}: {key}: {type(value).__name__} values are not part of recipes; use text or numbers"
        )
    return Leaf(value, origin)
