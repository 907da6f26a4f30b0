"""What the command line says to small questions and small mistakes."""

from __future__ import annotations

import pytest

import genzoo
from genzoo.cli import main


def said(words: list[str], capsys: pytest.CaptureFixture[str], code: int) -> str:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert (end.value.code or 0) == code
    out, err = capsys.readouterr()
    return out + err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(["--version"], capsys, 0) == f"genzoo {genzoo.__version__}\n"


@pytest.mark.parametrize(
    "words", [[], ["train"], ["sample"], ["prepare", "latents"], ["merge-concepts"]], ids=str
)
def test_the_short_option_asks_for_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "Usage: genzoo" in said([*words, "-h"], capsys, 0)


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("steps=3", "did you mean train.steps or sampler.steps?"),
        ("batch_size=3", "did you mean train.batch_size?"),
        ("lr=3", "did you mean optim.lr?"),
        ("guidance_scale=3", "did you mean sampler.guidance_scale?"),
        ("keep_every=3", "did you mean train.keep_every?"),
        ("optimm=3", "did you mean 'optim'?"),
    ],
)
def test_a_setting_without_its_section_is_told_where_it_belongs(
    setting: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hint in said(["train", "quickstart/dim_digits", setting], capsys, 2)


def test_names_that_are_no_letters_are_no_bug(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    text = said(
        ["prepare", "regularization", "\udcff", "--folder", "a\0b", "--output", f"{tmp_path}/x"], capsys, 4
    )
    assert "this is a bug" not in text
