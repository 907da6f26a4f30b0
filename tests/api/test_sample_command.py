"""`genzoo sample`: options and KEY=VALUEs are one set, and a wrong value is answered and not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genzoo.api.commands.sample import given_once
from genzoo.api.run import Run
from genzoo.cli import main
from genzoo.core.errors import UsageError


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        main(list(arguments))
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_every_option_may_be_a_key_and_a_value(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, first, second = str(trained.folder), tmp_path / "a", tmp_path / "b"
    keys = ["num=3", "seed=5", "batch_size=2", "weights=raw", "checkpoint=4", "device=cpu", f"out={first}"]
    code, out, err = call(capsys, "sample", run, "steps=2", "class_labels=3", "guidance_scale=2", *keys)
    assert (code, out) == (0, f"{first}: samples.json, grid.png\n"), err
    flags = ["--num", "3", "--seed", "5", "--batch-size", "3", "--weights", "raw", "--checkpoint", "4"]
    flags += [
        "--device",
        "cpu",
        "--out",
        str(second),
        "--steps",
        "2",
        "--class",
        "3",
        "--guidance-scale",
        "2",
    ]
    assert call(capsys, "sample", run, *flags)[0] == 0
    for path in first.glob("*.png"):
        assert (second / path.name).read_bytes() == path.read_bytes()
    about = [json.loads((folder / "samples.json").read_text()) for folder in (first, second)]
    assert about[0] == about[1]
    assert (about[0]["checkpoint"], len(about[0]["samples"])) == ("step_00000004", 3)


def test_two_values_of_one_option_are_refused(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(trained.folder), str(tmp_path / "o")
    for pair in (["--steps", "2", "steps=3"], ["--num", "1", "num=2"], ["steps=2", "steps=3"]):
        code, _, err = call(capsys, "sample", run, "--out", out, *pair)
        assert code == 2, err
        assert "given twice" in err
    assert not Path(out).exists()
    assert given_once({"num": 3, "checkpoint": "4"}, {"num": 3, "checkpoint": 4}) == {
        "num": 3,
        "checkpoint": "4",
    }
    with pytest.raises(UsageError, match=r"seed is given twice: 1 as an option, and seed=2"):
        given_once({"seed": 1, "prompt": None}, {"seed": 2})


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("class_labels=cat", "there is no class 'cat'"),
        ("class_labels=[0.7,2.9]", "class_labels must be a whole number"),
        ("class_labels=1.5", "class_labels must be a whole number"),
        ("class_labels=true", "class_labels must be a whole number"),
        ("class_labels=[[1]]", "class_labels must be"),
        ("steps=abc", "cannot read the step count"),
        ("steps=2.5", "steps must be a whole number"),
        ("steps=[1,2]", "steps must be a whole number"),
        ("steps=true", "steps must be a whole number"),
        ("guidance_scale=high", "guidance_scale must be a finite number"),
        ("guidance_scale=.nan", "guidance_scale must be a finite number"),
        ("guidance_scale=.inf", "guidance_scale must be a finite number"),
        ("num=many", "num must be a whole number"),
        ("num=0", "num must be at least 1, not 0"),
        ("num=1000000000000", "at most 1,000,000"),
        ("seed=1.5", "seed must be a whole number"),
        ("batch_size=0", "batch_size must be at least 1, not 0"),
        ("block_size=-1", "block_size must be at least 1, not -1"),
        ("weights=mean", 'use "ema" or "raw"'),
        ("checkpoint=2.5", "checkpoint must be"),
        ("fps=-3", "fps must be above 0, not -3"),
        ("fps=slow", "fps must be a finite number"),
        ("folder=x", "no option 'folder'"),
        ("device=gpu", "device is 'gpu'"),
        ("device=meta", "device is 'meta'"),
        ("device=cpu:x", "device is 'cpu:x'"),
        ("device=3.5", "device must be"),
    ],
)
def test_a_wrong_value_is_answered_and_leaves_no_folder(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, words: str
) -> None:
    given = [] if option.startswith("num") else ["--num", "2"]
    code, _, err = call(capsys, "sample", str(trained.folder), option, *given, "--out", str(tmp_path / "o"))
    assert code in (2, 4), err
    assert words in err
    assert "this is a bug" not in err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name", ["cuda:99", "mps:7", "xpu:3"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for command in (
        ["sample", str(trained.folder), "--num", "1", "--out", str(tmp_path / "o")],
        ["evaluate", str(trained.folder), "--protocol", "quick-pixels", "--num", "12"],
        ["prepare", "controls", str(tmp_path), "--control", "canny", "-o", str(tmp_path / "c")],
        ["prepare", "regularization", "cat", "-o", str(tmp_path / "r"), "--base", "x"],
    ):
        code, _, err = call(capsys, *command, "--device", name)
        assert code == 2, err
        assert f"device is {name!r}" in err
        assert "one of cpu" in err
    assert not (tmp_path / "o").exists()


def test_options_in_turn_each_have_a_folder(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(trained.folder)
    made = []
    for options in (["--class", "2"], ["--class", "3"], ["--class", "3", "--seed", "1"], []):
        code, out, err = call(capsys, "sample", run, "--num", "1", "--steps", "2", *options)
        assert code == 0, err
        made.append(out)
    assert len(set(made)) == 4
    assert call(capsys, "sample", run, "--num", "2", "--steps", "2", "--class", "2")[1] == made[0]
