"""Concept files as something to sample: taught, merged, exported; from Python and from the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from families.custom_diffusion.tiny_bases import make_concept

import genzoo
from genzoo.cli import main
from genzoo.core.errors import GenzooError, UsageError, WeightsError
from genzoo.families.custom_diffusion.data.captions import default_captions
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.files.write_layouts import write_concept
from genzoo.families.custom_diffusion.merge.concepts import merge_concepts


def command(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_command_samples_what_merge_concepts_wrote(
    sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [
        make_concept(sd, k, token=f"<new{k}>", phrase=f"<new{k}> {w}") for k, w in ((1, "cat"), (2, "pot"))
    ]
    out = tmp_path / "merged"
    merge_concepts(pair, base=sd, captions=default_captions(40), output=out)
    both = "a <new1> cat in a <new2> pot"
    assert command("sample", out, "--prompt", both, "--num", "2", "--steps", "2") == 0
    (folder,) = (out / "samples").iterdir()
    assert (folder / "000001.png").is_file()
    assert [row["prompts"] for row in json.loads((folder / "samples.json").read_text())["samples"]] == [
        both
    ] * 2
    assert command("sample", out, "--prompt", "a cat", "--num", "1") == 2
    assert "none of the words that were taught" in capsys.readouterr().err
    assert command("sample", out, "--prompt", both, "--weights", "ema") == 2


def test_a_file_that_does_not_name_its_base_needs_one(sd: Path, sdxl: Path, tmp_path: Path) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    path = write_concept(concept, tmp_path / "delta.bin", layout="official")
    run = genzoo.load_run(path)
    with pytest.raises(UsageError, match=r"does not tell model.base_model"):
        run.sample(prompt="a <new1> cat", num=1, steps=2)
    pixels = run.sample(prompt="a <new1> cat", num=1, steps=2, base=str(sd)).pixels
    assert pixels.shape == (1, 3, 16, 16)
    own = write_concept(concept, tmp_path / "cat.safetensors")
    again = genzoo.load_run(own).sample(prompt="a <new1> cat", num=1, steps=2, base=str(sd)).pixels
    assert torch.equal(again, pixels)
    with pytest.raises(WeightsError, match="text features 24 wide"):
        run.sample(prompt="a <new1> cat", num=1, base=str(sdxl))


def test_a_concept_of_another_base_is_refused_unless_asked_for(sd: Path, tmp_path: Path) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    other = dataclasses.replace(concept, base_fingerprint="0" * 64)
    run = genzoo.load_run(write_concept(other, tmp_path / "cat.safetensors"))
    with pytest.raises(WeightsError, match="another base model"):
        run.sample(prompt="a <new1> cat", num=1, base=str(sd))
    run.sample(prompt="a <new1> cat", num=1, steps=2, base=str(sd), any_base=True)


def test_a_concept_file_can_be_exported_in_another_layout(sd: Path, tmp_path: Path) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    named = dataclasses.replace(concept, notes={"base_path": str(sd)})
    path = write_concept(named, tmp_path / "cat.safetensors")
    assert command("export", path, tmp_path / "web", "--to", "kohya") == 0
    assert sorted(one.name for one in (tmp_path / "web").iterdir()) == [
        "lora.safetensors",
        "new1.safetensors",
    ]
    assert command("export", path, tmp_path / "again.safetensors") == 0
    again = read_concept(tmp_path / "again.safetensors")
    assert again.phrases == ("<new1> cat",)
    for name, weight in concept.weights.items():
        assert torch.equal(again.weights[name], weight)


def test_other_files_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "absent.safetensors"):
        with pytest.raises(GenzooError, match=r"is not a run folder|cannot be sampled as it is"):
            genzoo.load_run(path)


def test_a_concept_file_is_judged_with_pictures_to_compare_with(sd: Path, tmp_path: Path) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    run = genzoo.load_run(write_concept(concept, tmp_path / "cat.safetensors"))
    options = {"prompt": "a <new1> cat", "steps": 2, "base": str(sd)}
    pictures = run.sample_to(tmp_path / "pictures", num=5, **options)
    result = run.evaluate("quick-pixels", num=5, reference=pictures, **options)
    assert result.sampling["checkpoint"] == "cat.safetensors"
    with pytest.raises(UsageError, match="no data to compare with"):
        run.evaluate("quick-pixels", num=5, **options)


def test_command_judges_a_concept_file(sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    named = dataclasses.replace(concept, notes={"base_path": str(sd)})
    path = write_concept(named, tmp_path / "cat.safetensors")
    pictures = genzoo.load_run(path).sample_to(tmp_path / "pictures", num=5, steps=2)
    options = ("--protocol", "quick-pixels", "--num", "5", "--steps", "2")
    assert command("evaluate", path, "--reference", pictures, *options) == 0
    (result,) = (tmp_path / "cat" / "evaluation").glob("*.json")
    assert json.loads(result.read_text())["sampling"]["checkpoint"] == "cat.safetensors"
    assert command("evaluate", path, *options) == 2
    assert "no data to compare with" in capsys.readouterr().err


def test_a_file_of_prompts_fills_a_folder_for_each(sd: Path, tmp_path: Path) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    path = write_concept(concept, tmp_path / "cat.safetensors")
    (tmp_path / "p.txt").write_text("a <new1> cat\na blue <new1> cat\n")
    options = ["--num", "2", "--steps", "2", f"base={sd}", "--out", tmp_path / "out"]
    assert command("sample", path, "--prompts", tmp_path / "p.txt", *options) == 0
    table = json.loads((tmp_path / "out" / "prompts.json").read_text())
    assert len(table) == 4
    assert all((tmp_path / "out" / f"{name}.png").is_file() for name in table)
