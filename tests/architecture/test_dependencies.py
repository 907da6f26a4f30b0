"""Everything that is imported is declared, and everything declared has a lowest version."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# the name under which a package is imported, where its distribution has another
DISTRIBUTION = {"PIL": "pillow", "yaml": "pyyaml", "open_clip": "open-clip-torch"}
# these rebuild the embedded data, from a checkout
SCRIPTS = {"genzoo/assets/build_emoji.py", "genzoo/assets/build_digits.py"}
# where an optional package is looked for, and done without or asked for in words of its own
HANDLED = (
    "genzoo/app/worker/sampling.py",
    "genzoo/pictures/animation.py",
    "genzoo/pretrained/known_weights.py",
)
PAGE = "genzoo/app/"  # imported once `require` has found the extra
# cv2 is taken where somebody has it, once it agrees bit for bit with our own code; mamba-ssm where it was
# built, which no extra can ask for; the others belong to the notebook that runs us
UNDECLARED = {"cv2", "mamba_ssm", "IPython", "ipywidgets"}
LOADERS = {"require", "import_module", "find_spec"}


class Import(NamedTuple):
    """One place that loads a package. extra: what `require` names, or None."""

    package: str
    extra: str | None
    where: str


def declared(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", line)[0].lower().replace("_", "-") for line in requirements}


def called(call: ast.Call) -> str:
    """The last part of a function's name."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, at any depth, and the literal arguments of what imports by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        extra = None
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif (
            isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in LOADERS
        ):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
            extra = next((k.value.value for k in node.keywords if k.arg == "extra"), None)  # type: ignore[attr-defined]
        for name in names:
            package = name.partition(".")[0]
            if package != "genzoo" and package not in sys.stdlib_module_names:
                yield Import(package, extra, f"{path.relative_to(ROOT)}:{node.lineno}")


def third_party() -> list[Import]:
    files = sorted((ROOT / "genzoo").rglob("*.py"))
    return [one for path in files if str(path.relative_to(ROOT)) not in SCRIPTS for one in imports(path)]


def test_everything_that_is_imported_is_declared() -> None:
    core, extras = declared(PROJECT["dependencies"]), PROJECT["optional-dependencies"]
    of_users = [lines for name, lines in extras.items() if name not in ("docs", "test", "dev")]
    optional = set().union(*map(declared, of_users))
    missing = []
    for one in third_party():
        name = DISTRIBUTION.get(one.package, one.package.replace("_", "-")).lower()
        home = declared(extras[one.extra]) if one.extra else core
        home = home | declared(extras["app"]) | {"pandas"} if one.where.startswith(PAGE) else home
        # a package asked for without an extra's name may stand in an extra only when its absence is handled
        handled = one.extra is None and name in optional and one.where.startswith(HANDLED)
        if name not in home and not handled and one.package not in UNDECLARED:
            missing.append(f"{one.where} {one.package}")
    assert not missing


@pytest.mark.parametrize("group", ["dependencies", *PROJECT["optional-dependencies"]])
def test_every_requirement_has_a_lowest_version(group: str) -> None:
    lines = PROJECT[group] if group == "dependencies" else PROJECT["optional-dependencies"][group]
    assert [line for line in lines if ">=" not in line and not line.startswith("genzoo[")] == []
