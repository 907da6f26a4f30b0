"""The pages of registered names and of the public names of Python."""

from __future__ import annotations

import ast
from pathlib import Path

import genzoo
from genzoo.api.recipes.listing import KINDS, describe
from genzoo_docs.tables import code, table

STUB = Path(genzoo.__file__).with_suffix(".pyi")
RETURNED = ("Run", "Samples", "Grid", "Recipe")
"""Classes of genzoo.api that no one constructs, but that everyone is handed."""


def written() -> str:
    """One section for each kind of name, as `genzoo list` shows them."""
    return "\n\n".join(f"## {kind}\n\n{_names(kind)}" for kind in KINDS)


def _names(kind: str) -> str:
    return table(("name", "what it is"), [(code(name), about) for name, about in describe(kind)])


def public() -> dict[str, str]:
    """The names that `genzoo/__init__.pyi` declares, and the module of each."""
    found = {}
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name: str(node.module) for alias in node.names}
    return found


def public_written() -> str:
    """Functions by autodoc, what they return, kernels, and the packages with a line on each."""
    names = public()
    functions = sorted(name for name, module in names.items() if module != "genzoo")
    packages = sorted(name for name, module in names.items() if module == "genzoo")
    parts = ["## Functions", *(_auto("autofunction", f"genzoo.{name}") for name in functions)]
    parts += ["## What they return", *(_auto("autoclass", f"genzoo.api.{name}", True) for name in RETURNED)]
    parts += [
        "## Kernels",
        *(_auto("autofunction", f"genzoo.kernels.{name}") for name in genzoo.kernels.__all__),
    ]
    parts += [
        "## Packages",
        table(("package", "what is in it"), [(code(f"genzoo.{name}"), _about(name)) for name in packages]),
    ]
    return "\n\n".join(parts)


def _auto(directive: str, name: str, members: bool = False) -> str:
    return f"```{{eval-rst}}\n.. {directive}:: {name}\n" + ("   :members:\n" if members else "") + "```"


def _about(package: str) -> str:
    return (getattr(genzoo, package).__doc__ or "").partition("\n")[0]
