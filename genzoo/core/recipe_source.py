"""Where recipes and their includes lie."""

from __future__ import annotations

from pathlib import Path

from genzoo.core.errors import RecipeError, did_you_mean


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
