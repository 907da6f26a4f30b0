"""The reference says what the code does: commands as their help, keys as `validate` takes them, all names."""

from __future__ import annotations

import re
from typing import Any

import pytest
from genzoo_docs import (
    MARK,
    WRITERS,
    commands,
    docstrings,
    exit_codes,
    filled,
    links,
    names,
    recipe_keys,
    tables,
)

import genzoo
from genzoo.api.recipes.check import KINDS, check_node
from genzoo.api.recipes.listing import KINDS as LISTED
from genzoo.api.recipes.listing import describe
from genzoo.api.recipes.plan import SECTIONS
from genzoo.cli import main
from genzoo.core import errors

DOCS = links.Path(__file__).parents[2] / "docs"
NAMED = [(kind, name) for kind, checked in KINDS.items() for name in checked.registry.names()]
COMMAND_SECTIONS = re.split(r"^## ", commands.written(), flags=re.M)
OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")


def first_columns(text: str) -> set[str]:
    """The options that a help text lists: those before the two spaces that end the first column."""
    lines = text.partition("Options:")[2].splitlines()
    shown = [re.split(r"\s{2,}", line.strip())[0] for line in lines if line.strip().startswith("-")]
    return {option for line in shown for option in OPTION.findall(line)}


@pytest.mark.parametrize("name", [name for name, _ in commands.all_commands()])
def test_a_command_is_shown_with_the_options_of_its_help(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main([*name.split(), "--help"])
    helped = first_columns(capsys.readouterr().out)
    (own,) = [part for part in COMMAND_SECTIONS if part.startswith(f"genzoo {name}\n")]
    shown = {option for left in re.findall(r"^`(-.*)`$", own, re.M) for option in OPTION.findall(left)}
    assert shown == helped
    assert "--help" in shown


def test_lazy_commands_are_among_them() -> None:
    assert {"evaluate", "sample", "prepare controls", "prepare regularization", "merge-concepts"} <= {
        name for name, _ in commands.all_commands()
    }


@pytest.mark.parametrize(("kind", "name"), NAMED, ids=[f"{kind}-{name}" for kind, name in NAMED])
def test_the_keys_shown_are_those_that_validate_takes(kind: str, name: str) -> None:
    found = recipe_keys.keys(KINDS[kind].registry.get(name), kind)
    wanted = {key.name for key in found if key.default == "needed"}
    given: dict[str, Any] = {"name": name, **{key.name: "???" for key in found}}
    problems = list(check_node(kind, given, KINDS[kind]))
    assert not problems, problems
    required = [p for p in check_node(kind, {"name": name}, KINDS[kind]) if "needs a value" in p.message]
    assert {p.key.rpartition(".")[2] for p in required} - recipe_keys.supplied(kind) == wanted


def test_every_section_and_every_name_has_its_place() -> None:
    page = recipe_keys.written()
    headings = re.findall(r"^## (.+)$", page, re.M)
    assert set(SECTIONS) | {"task.loss", "task.control"} == set(headings)
    assert all(f"### {recipe_keys.WHERE.get(kind, kind)}: {name}\n" in page for kind, name in NAMED)


def test_defaults_types_and_words_come_from_the_code() -> None:
    (flip,) = [key for key in recipe_keys.keys(recipe_keys.TrainConfig) if key.name == "micro_batch_size"]
    assert flip.default == "null"
    assert flip.type == "a whole number or null"
    assert flip.meaning.startswith("samples that one process holds at once")


def test_nearly_every_key_has_words_and_every_common_word_is_of_use() -> None:
    kinds = [(KINDS[kind].registry.get(name), kind) for kind, name in NAMED]
    found = [
        key
        for one in [*kinds, *((record, None) for record in recipe_keys.RECORDS.values())]
        for key in recipe_keys.keys(*one)
    ]
    assert sum(bool(key.meaning) for key in found) > 0.95 * len(found)
    said = {(key.name, key.meaning) for key in found}
    assert [name for name, text in recipe_keys.COMMON.items() if (name, text) not in said] == []


def test_a_key_is_explained_where_its_docstring_sends_the_reader() -> None:
    found = {key.name: key for key in recipe_keys.keys(KINDS["data"].registry.get("video_folder"), "data")}
    assert found["short"].meaning.startswith("what becomes of videos")
    assert found["use_image_num"].meaning.startswith("stills beside each clip")


def test_sampling_options_are_those_of_tasks_and_samplers() -> None:
    page = recipe_keys.sampling_written()
    for key in ("clip_format", "fps", "control_from", "image", "region", "negative_prompt", "block_size"):
        assert f"| `{key}` |" in page or f"`{key}`" in page, key


@pytest.mark.parametrize("kind", LISTED)
def test_every_name_of_a_kind_is_listed(kind: str) -> None:
    section = names.written().partition(f"## {kind}\n")[2].partition("\n## ")[0]
    assert [name for name, _ in describe(kind) if f"| `{name}` |" not in section] == []


def test_every_public_name_is_on_the_page() -> None:
    page = names.public_written()
    missing = [name for name in genzoo.__all__ if f"genzoo.{name}" not in page]
    assert missing == ["__version__"]


def test_every_kind_of_error_has_its_code() -> None:
    page = exit_codes.written()
    classes = {
        name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)
    }
    assert classes - {"GenzooError"} == set(re.findall(r"\| `(\w+)` \|", page))
    assert "| 6 | `OutOfMemoryError` |" in page


def test_marks_are_filled_and_a_mark_of_nobody_is_refused() -> None:
    marks = {mark for page in DOCS.rglob("*.md") for mark in MARK.findall(page.read_text(encoding="utf-8"))}
    assert marks == set(WRITERS)
    assert filled("a\n<!-- written: exit-codes -->\nb").startswith("a\n| exit code")
    with pytest.raises(KeyError):
        filled("<!-- written: nothing -->")


def test_words_of_a_docstring_go_to_their_names() -> None:
    text = """Do it.

    lr, betas: the usual
        ones.   decay: every step: less.   Other: not asked.
    Returns nothing.
    """
    found = docstrings.words(text, ["lr", "betas", "decay"])
    assert found["lr"] == found["betas"] == "the usual ones."
    assert found["decay"] == "every step: less. Other: not asked."


def test_docstrings_become_text_that_docutils_does_not_read_into() -> None:
    made = docstrings.restructured(
        "Norm |x| of lora_unet_ * 2, as `a*b`.\n\nx: one.   y: (b, *s).  Returns it."
    )
    assert made == (
        "Norm \\|x\\| of lora\\_unet\\_ \\* 2, as ``a*b``.\n\n"
        "- ``x``: one.\n- ``y``: (b, \\*s).\n\nReturns it."
    )


def test_links_that_leave_the_site_lead_to_its_own_pages() -> None:
    text = "[a](../CHANGELOG.md) [b](../setup.cfg) [c](index.md) [d](../nothing.md) ![e](dim_digits.png)"
    assert links.within(text, DOCS, DOCS) == (
        "[a](/about/changelog.md) b (`setup.cfg`) [c](index.md) [d](../nothing.md) ![e](dim_digits.png)"
    )
    assert links.within("[x](docs/index.md#a)", DOCS.parent, DOCS) == "[x](/index.md#a)"


def test_cells_hold_what_would_end_them() -> None:
    assert tables.table(("a",), [("x|y\nz <b>",)]) == "| a |\n|---|\n| x\\|y z \\<b> |"
    assert tables.table(("a",), []) == ""
