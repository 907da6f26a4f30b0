"""Command lines that the project shows its readers: found in texts, recipes, docstrings and messages."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "list", "show", "validate", "train", "sample", "count", "convert", "export", "rerun", "doctor",
    "evaluate", "prepare", "plot", "compare", "sweep", "merge-concepts", "convert-concept", "edit-concepts",
    "launch", "teach", "app", "push",
)  # fmt: skip
STARTS = re.compile(rf"(?<![\w/.-])genzoo ({'|'.join(COMMANDS)})(?![\w-])")
ENDS = re.compile(r"\s{2,}#|\s# |&&|\|\s|;\s|;$|>|→")  # comments, the next command, a redirection


class Shown(NamedTuple):
    """A command line, and where it stands."""

    place: str
    words: list[str]

    def __str__(self) -> str:
        return f"{self.place}: genzoo {' '.join(self.words)}"


def shown_commands() -> list[Shown]:
    """All command lines in the repository's texts, recipes and sources, each once."""
    found = [one for path in _texts() for one in commands_in(_readable(path), str(path.relative_to(ROOT)))]
    return list({str(one): one for one in found}.values())


def commands_in(text: str, place: str) -> Iterator[Shown]:
    """The command lines of a text: in backticks, or a line, or the end of one, of their own."""
    joined = re.sub(r"\\\n[#\s]*", " ", text)
    for line in joined.splitlines():
        for start in STARTS.finditer(line):
            words = _words(line, start.start())
            if words is not None:
                yield Shown(place, words[1:])


def _words(line: str, start: int) -> list[str] | None:
    """The words of the command that begins there; None where it is prose, or says itself that it is cut."""
    before, rest = line[:start], line[start:]
    if before.count("`") % 2:
        rest = rest.partition("`")[0]
    elif not re.fullmatch(r"[\s#$>-]*|.*(torchrun|accelerate|python)\b.*|.*&& ", before):
        return None
    cut = ENDS.search(rest)
    rest = rest[: cut.start()] if cut else rest
    if "..." in rest or "…" in rest or ("{" in rest and "}" not in rest):
        return None
    try:
        return shlex.split(rest.strip().rstrip(".,:"))
    except ValueError:
        return None


def _texts() -> list[Path]:
    texts = [path for path in ROOT.rglob("*.md") if not {".git", "shared", "node_modules"} & set(path.parts)]
    recipes = [path for folder in ("recipes", "configs") for path in (ROOT / folder).rglob("*.yaml")]
    sources = [*(ROOT / "genzoo").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    return sorted(path for path in (*texts, *recipes, *sources) if path.name != "CHANGELOG.md")


def _readable(path: Path) -> str:
    """A file's text; of Python its strings, with whole docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    strings = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return "\n".join(value for value in strings if isinstance(value, str))
