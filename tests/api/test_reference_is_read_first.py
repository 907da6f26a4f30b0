"""A reference with a file that cannot be read is refused before a sample is drawn, with a way on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from run_cases import unjudged

from genzoo.api.run import Run
from genzoo.cli import main
from genzoo.core.errors import DataError, UsageError
from genzoo.data.picture_sets import FilePictures, open_pictures
from genzoo.evaluation import readiness
from genzoo.evaluation.judging import Settings
from genzoo.evaluation.protocols import load_protocol
from genzoo.evaluation.readiness import require_readable, require_ready

WAY_ON = "take it out of the folder"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))


def pictures(folder: Path, num: int = 12, side: int = 12) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(num):
        pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed:02d}.png")
    return folder


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def evaluate(source: Path, *more: object, protocol: str = "quick-pixels", num: int = 8) -> int:
    words = ["evaluate", str(source), "--protocol", protocol, "--num", str(num), *map(str, more)]
    with pytest.raises(SystemExit) as stop:
        main(words)
    return int(stop.value.code or 0)


def never(*_: object, **__: object) -> Any:
    raise AssertionError("called though the reference is broken")


@pytest.fixture
def nothing_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genzoo.api.evaluation.evaluate_run.sample_run_to", never)


@pytest.mark.usefixtures("nothing_is_sampled")
def test_of_a_run_before_the_first_sample(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = unjudged(trained, tmp_path / "run")
    real = pictures(tmp_path / "real")
    spoil(real / "07.png")
    assert evaluate(run, "--reference", real) == 4
    said = capsys.readouterr().err
    assert "1 of 12 files of the reference cannot be read" in said
    assert f"fix:   mend {real / '07.png'}, or {WAY_ON}" in said
    for seed in range(4):
        spoil(real / f"{seed:02d}.png")
    assert evaluate(run, "--reference", real, "--sweep", "steps=2,3") == 4
    said = capsys.readouterr().err
    assert "5 of 12 files" in said
    assert "and 2 more, which `genzoo prepare check FOLDER` lists" in said
    assert not (run / "evaluation").exists()


@pytest.mark.usefixtures("nothing_is_sampled")
@pytest.mark.parametrize("protocol", ["quick-video", "styleganv-fvd2048-16f"])
def test_of_a_run_of_clips_before_the_first_clip(
    trained_clips: Run,
    tmp_path: Path,
    protocol: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("genzoo.evaluation.features.build_network", lambda *_, **__: None)
    run = unjudged(trained_clips, tmp_path / "run")
    for number in range(9):
        pictures(tmp_path / "real" / f"clip{number}", num=16)
    spoil(tmp_path / "real" / "clip4" / "01.png")
    assert evaluate(run, "--reference", tmp_path / "real", protocol=protocol) == 4
    said = capsys.readouterr().err
    assert "1 of 9 files of the reference cannot be read" in said
    assert "clip4" in said
    assert WAY_ON in said
    assert not (run / "evaluation").exists()


@pytest.mark.usefixtures("nothing_is_sampled")
def test_too_few_for_the_protocol_are_told_before_the_first_sample(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = unjudged(trained, tmp_path / "run")
    assert evaluate(run, "--reference", pictures(tmp_path / "real", num=3)) == 4
    assert "needs 8 pictures for each subset, the reference has 3" in capsys.readouterr().err
    assert not (run / "evaluation").exists()


def test_control_maps_are_asked_for_counted_and_read(tmp_path: Path) -> None:
    protocol = load_protocol("quick-pixels").changed(
        kind="controls", metrics={"control_adherence": {"extractor": "canny"}}
    )
    real, maps = pictures(tmp_path / "real"), pictures(tmp_path / "maps", num=5)
    given: dict[str, Any] = {"reference": real, "num": 5}
    require_ready(protocol, Settings(), controls=maps, **given)
    with pytest.raises(UsageError, match="needs the control maps"):
        require_ready(protocol, Settings(), **given)
    with pytest.raises(DataError, match="6 images but 5 control maps"):
        require_ready(protocol, Settings(), controls=maps, reference=real, num=6)
    spoil(maps / "03.png")
    with pytest.raises(DataError, match=r"1 of 5 files of the control maps(.|\n)*fix: +mend \S+03.png"):
        require_ready(protocol, Settings(), controls=maps, **given)


@pytest.mark.parametrize("protocol", ["quick-pixels", "quick-video", "customconcept101"])
def test_of_files_before_a_feature_is_taken(
    tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("evaluate_images.features_of", "evaluate_clips.features_of", "evaluate_concepts._rows"):
        monkeypatch.setattr(f"genzoo.evaluation.{place}", never)
    made, real = (pictures(tmp_path / name / "one").parent for name in ("made", "real"))
    spoil(real / "one" / "05.png")
    other = pictures(tmp_path / "other")
    reference = f"{other}+{real}" if protocol == "customconcept101" else str(real)
    assert evaluate(made, "--reference", reference, protocol=protocol) == 4
    said = capsys.readouterr().err
    assert "05.png" in said
    assert WAY_ON in said


def test_what_is_judged_names_its_broken_file_and_the_way_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, real = pictures(tmp_path / "made"), pictures(tmp_path / "real", num=13)
    spoil(made / "02.png")
    assert evaluate(made, "--reference", real) == 4
    said = capsys.readouterr().err
    assert "02.png" in said
    assert WAY_ON in said


def test_files_are_read_once_and_again_after_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, counts = pictures(tmp_path / "real"), list[int]()
    whole: Callable[..., Any] = readiness.reading_errors

    def counted(read: Any, indices: Any) -> Any:
        counts.append(len(indices))
        return whole(read, indices)

    monkeypatch.setattr(readiness, "reading_errors", counted)
    told: list[tuple[str, int, int]] = []
    settings = Settings(progress=lambda *one: told.append(one))
    for _ in range(2):
        require_readable(open_pictures(real), "reference", settings)
    assert counts == [12]
    assert told[-1] == ("checking the reference", 12, 12)
    spoil(real / "11.png")
    for _ in range(2):  # what was refused is not taken for read
        with pytest.raises(DataError, match=r"11\.png"):
            require_readable(open_pictures(real), "reference", settings)
    require_readable(FilePictures(["00.png"], real), "reference", Settings(cache=False))
    require_readable(FilePictures(["00.png"], real), "reference", Settings(cache=False))
    assert counts == [12, 12, 12, 1, 1]
    require_readable(open_pictures(np.zeros((3, 4, 4, 3), np.uint8)), "reference", settings)  # no files
    assert len(counts) == 5


def test_a_good_reference_changes_no_number(trained: Run, tmp_path: Path) -> None:
    run, real = unjudged(trained, tmp_path / "run"), pictures(tmp_path / "real")
    said = []
    for name in ("first.json", "second.json"):
        assert evaluate(run, "--reference", real, "--steps", 2, "--output", tmp_path / name) == 0
        said.append(json.loads((tmp_path / name).read_text()))
    assert said[0]["metrics"] == said[1]["metrics"]
    assert said[0]["reference"]["num"] == 12
