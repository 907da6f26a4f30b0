"""One spelling throughout: British, but for words that belong to libraries, papers and commands."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# optimizer, tokenizer, quantizer, initializer and what is made of them are the field's own nouns, as torch
# and transformers have them; the rest are names of other people's functions, a command, a paper's title, HTML
THEIRS = re.compile(
    r"optimiz(er|ers|ation|ations|e)|tokeniz(e|er|ers|ed|es|ing|ation)|quantiz\w+|initializ(er|ers|ed|e)"
    r"|regularization\w*|(de|un)?normaliz(e|ed)\w*|serializ(e|ation)|synchroniz(e|ed)|customization|color\w*|maximize"
    r"|parametrize\w*|materialize\w*",
    re.IGNORECASE,
)
AMERICAN = re.compile(
    r"\b(?:\w*(?:[a-z]{3}iz(?:e|ed|es|ing|ation|ations))|behaviors?|neighbors?|favorites?|colors?|colored|gray|"
    r"labeled|labeling|centered|license[ds]? under)\b",
    re.IGNORECASE,
)
SIZES = re.compile(
    r"\w*(?<![a-z])(re|over|under|down|up|max|min|item|batch|fig|font|label)?siz(e|ed|es|ing)|prize\w*|seize\w*|capsiz\w*",
    re.IGNORECASE,
)
# code that speaks to other programs in their words
OTHERS = {"genzoo/assets/licenses", "tests/golden", "genzoo/families/custom_diffusion/README.md"}


def texts() -> list[Path]:
    files = [
        *(ROOT / "genzoo").rglob("*.py"),
        *(ROOT / "genzoo").rglob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
    ]
    files += [*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "configs").rglob("*.yaml")]
    files += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return [path for path in files if not any(part in path.as_posix() for part in OTHERS)]


def strange(text: str) -> list[str]:
    """American words of a text that are not other people's names."""
    text = re.sub(
        r"`[^`\n]*`|https?://\S+|\"[^\"\n]*/[^\"\n]*\"", "", text
    )  # code and places keep their letters
    words = [found.group(0) for found in AMERICAN.finditer(text)]
    own = [word for word in words if not THEIRS.fullmatch(word.strip("_")) and not SIZES.fullmatch(word)]
    return sorted({word for word in own if "_" not in word})


def test_prose_is_british() -> None:
    found = {str(path.relative_to(ROOT)): strange(path.read_text(encoding="utf-8")) for path in texts()}
    assert {name: words for name, words in found.items() if words} == {}


def test_the_look_finds_what_it_should() -> None:
    assert strange("a gray behavior that we normalise and memorize") == ["behavior", "gray", "memorize"]
    assert strange("the optimizer of one size, resized, and its tokenizer; colour") == []
