"""`genzoo evaluate` on folders, files and runs, and its page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from adm_files import write_adm_reference
from PIL import Image

from genzoo.api.evaluation.evaluate_run import evaluate_run
from genzoo.api.recipes.sections import Sampling
from genzoo.cli import main
from genzoo.core.node import Node
from genzoo.data.digits import Digits
from genzoo.data.image_decode import ORIENTATION
from genzoo.data.picture_sets import DatasetPictures
from genzoo.evaluation.evaluate_images import Settings
from genzoo.evaluation.report import read_metrics
from genzoo.evaluation.statistics import FeatureStatistics


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))


def write(folder: Path, start: int, stop: int) -> Path:
    folder.mkdir(parents=True)
    images = DatasetPictures(Digits())
    for index in range(start, stop):
        Image.fromarray(images.read(index)).save(folder / f"{index:06d}.png")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "samples", 0, 60), write(tmp_path / "real", 60, 200)


def genzoo(*arguments: object) -> None:
    main(["evaluate", *[str(argument) for argument in arguments]])


def exit_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        genzoo(*arguments)
    return int(stop.value.code or 0)


def test_what_was_left_out_is_said_in_the_result(folders, capsys: pytest.CaptureFixture[str]) -> None:
    samples, real = folders
    Image.new("RGB", (8, 8)).save(real / "x.bmp")
    (samples / ".hidden.png").write_bytes(b"whatever")
    assert exit_code(samples, "--reference", real, "--protocol", "quick-pixels", "--num", 60, "--json") == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    note = "1 file(s) in formats that are not read were left out, such as x.bmp"
    assert [line for line in warnings if "left out" in line] == [f"reference: {note}"]


def test_what_reading_did_to_files_is_said_in_the_result(folders, capsys: pytest.CaptureFixture[str]) -> None:
    samples, real = folders
    turned, clear = Image.Exif(), Image.open(samples / "000003.png").convert("RGBA")
    turned[ORIENTATION] = 6
    for name in ("000001.png", "000002.png"):
        Image.open(samples / name).save(samples / name, exif=turned)
    clear.save(samples / "000003.png")
    deep = np.asarray(Image.open(real / "000070.png").convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(real / "000070.png")
    assert exit_code(samples, "--reference", real, "--protocol", "quick-pixels", "--num", 60, "--json") == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert [line for line in warnings if "as training reads" in line] == [
        "generated: of 60 files 1 laid on white, 2 turned upright, as training reads them",
        "reference: of 140 files 1 scaled from 16 bits, as training reads them",
    ]


def test_a_damaged_samples_json_is_named(folders, capsys: pytest.CaptureFixture[str]) -> None:
    samples, real = folders
    for content in ("{", "[]", '{"options": 3}'):
        (samples / "samples.json").write_text(content)
        assert exit_code(samples, "--reference", real, "--protocol", "quick-pixels", "--num", 60) == 4
        assert "samples.json is none of genzoo's" in capsys.readouterr().err


def test_a_folder_against_a_folder(folders, capsys: pytest.CaptureFixture[str]) -> None:
    samples, real = folders
    code = exit_code(samples, "--reference", real, "--protocol", "quick-pixels", "--num", 60)
    out = capsys.readouterr().out
    assert code == 0
    assert "pixel_frechet" in out
    assert "differs from quick-pixels: 60 images instead of 1000" in out
    result = json.loads((samples.parent / "samples.quick-pixels.json").read_text())
    assert result["reference"]["num"] == 140


def test_a_protocol_of_ones_own(folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples, real = folders
    mine = (
        "about: mine\n  source: me\n  kind: images\n  network: pixels\n  num: 50\n  metrics: {frechet: {}}\n"
    )
    (tmp_path / "own.yaml").write_text(f"mine:\n  {mine}")
    own = tmp_path / "own.yaml"
    assert exit_code(samples, "--reference", real, "--protocol", f"{own}:mine", "--report") == 0
    assert "pixel_frechet" in capsys.readouterr().out
    assert (samples.parent / "samples.mine.html").exists()
    assert exit_code(samples, "--reference", real, "--protocol", f"{own}:other") == 2
    assert exit_code(samples, "--reference", real, "--protocol", f"{own.parent}/absent.yaml:mine") == 2
    assert "no file of protocols" in capsys.readouterr().err


def test_json_goes_to_stdout_alone(folders, capsys: pytest.CaptureFixture[str]) -> None:
    samples, real = folders
    exit_code(samples, "--reference", real, "--protocol", "quick-pixels", "--num", 60, "--json")
    assert json.loads(capsys.readouterr().out)["protocol"] == "quick-pixels"


def test_the_page_holds_its_pictures_and_fetches_nothing(folders) -> None:
    samples, real = folders
    arguments = ["--reference", real, "--protocol", "quick-pixels", "--num", 60]
    assert exit_code(samples, *arguments, "--report") == 0
    page = (samples.parent / "samples.quick-pixels.html").read_text()
    assert page.count("data:image/png;base64,") == 1 + 12
    assert "Nearest reference images" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_unlike_results_are_refused_with_the_usage_code(folders, capsys: pytest.CaptureFixture[str]) -> None:
    samples, real = folders
    first = samples.parent / "first.json"
    common = ["--reference", real, "--protocol", "quick-pixels"]
    assert exit_code(samples, *common, "--num", 60, "--output", first) == 0
    assert exit_code(samples, *common, "--num", 60, "--compare", first) == 0
    assert exit_code(samples, *common, "--num", 50, "--compare", first) == 2
    assert "generated images: 50 against 60" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--protocol", "quick-pixels"], 2, "give --reference"),
        (["--protocol", "quick-pixles", "--reference", "REAL"], 2, "did you mean 'quick-pixels'"),
        (["--protocol", "quick-pixels", "--reference", "REAL"], 4, "needs 1000 images, there are 60"),
        (["--protocol", "quick-pixels", "--num", "60", "--reference", "ABSENT"], 4, "no file or folder"),
        (
            ["--protocol", "quick-pixels", "--reference", "REAL", "--steps", "5"],
            2,
            "only a run can be sampled",
        ),
        (["--protocol", "adm-50k", "--reference", "REAL", "--num", "60"], 4, "weights-inception-2015"),
    ],
)
def test_what_cannot_be_judged_is_said(
    folders, capsys, monkeypatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folders[0].parent / "home"))
    monkeypatch.delenv("GENZOO_WEIGHTS", raising=False)
    places = {"REAL": str(folders[1]), "ABSENT": str(folders[1] / "absent")}
    assert exit_code(folders[0], *[places.get(text, text) for text in arguments]) == code
    assert message in capsys.readouterr().err


def test_an_adm_file_refuses_another_network(folders, tmp_path: Path, capsys) -> None:
    statistics = FeatureStatistics()
    statistics.update(torch.randn(20, 4))
    path = write_adm_reference(tmp_path / "ref.npz", statistics.gaussian())
    arguments = ["--reference", path, "--protocol", "quick-pixels", "--num", 60]
    assert exit_code(folders[0], *arguments) == 2
    assert "2015 Inception network, not of pixels" in capsys.readouterr().err


class TinyRun:
    """What `evaluate_run` uses of a run; it counts the images it makes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0
        self.recipe = SimpleNamespace(name="tiny", sha256="abc")
        sampler = Node("ddim", {"steps": 20, "guidance_scale": 1.5})
        self.plan = SimpleNamespace(
            sampler=sampler, sampling=Sampling(block_size=7), data=Node("digits"), train=None
        )

    def checkpoint(self, which: object = None) -> Path:
        path = self.folder / "checkpoints" / "step_00000007"
        path.mkdir(parents=True, exist_ok=True)
        (path / "state.json").write_text('{"averaged": true}')
        return path

    def dataset(self) -> Digits:
        return Digits()

    def task(self, **options: object) -> SimpleNamespace:
        return SimpleNamespace(latent_shape=(1, 8, 8))

    def choose(self, checkpoint: Path, weights: object = None) -> str:
        return "ema"

    def opened_with(self, options: dict[str, object]) -> tuple[TinyRun, dict[str, object]]:
        return self, options

    def described(self, checkpoint: Path, weights: object = None) -> dict[str, object]:
        return {"checkpoint": checkpoint.name, "weights": "ema"}

    def sample_to(self, folder: Path, *, num: int, **options: object) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        images = DatasetPictures(Digits())
        for index in range(num):
            if not (folder / f"{index:06d}.png").exists():
                Image.fromarray(images.read(index)).save(folder / f"{index:06d}.png")
                self.made += 1
        return folder


def test_a_run_is_sampled_once_and_judged_by_its_own_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TinyRun(tmp_path / "run")
    monkeypatch.setattr("genzoo.api.evaluation.evaluate_run.sample_run_to", TinyRun.sample_to)
    settings = Settings(batch_size=32)
    first = evaluate_run(run, protocol="quick-pixels", num=50, settings=settings, steps=5)
    again = evaluate_run(run, protocol="quick-pixels", num=50, settings=settings, steps=5)
    assert (run.made, first.metrics) == (50, again.metrics)
    assert first.sampling["steps"] == 5
    assert first.sampling["guidance_scale"] == 1.5
    assert first.sampling["block_size"] == 7
    assert first.sampling["checkpoint"] == "step_00000007"
    assert first.reference["name"] == "digits"
    assert first.reference["num"] == len(Digits())
    assert len(list((tmp_path / "run" / "evaluation").glob("quick-pixels-*.json"))) == 1
    evaluate_run(run, protocol="quick-pixels", num=50, settings=settings, steps=9)
    assert run.made == 100


def test_curves_skip_torn_lines_and_text(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "loss": 2.0, "note": "x"}\n{"step": 2, "loss": NaN}\n{"step": 3, "loss": 1.0}\n{"st'
    )
    assert read_metrics(path) == {"loss": [(1.0, 2.0), (3.0, 1.0)]}


def test_samples_json_states_how_the_samples_were_made(folders) -> None:
    samples, real = folders
    about = {"run": "r", "weights": "ema", "seed": 4, "options": {"steps": 9}, "samples": []}
    (samples / "samples.json").write_text(json.dumps(about))
    exit_code(samples, "--reference", real, "--protocol", "quick-pixels", "--num", 60)
    result = json.loads((samples.parent / "samples.quick-pixels.json").read_text())
    assert result["sampling"] == {"steps": 9, "run": "r", "weights": "ema", "seed": 4}


def test_an_npz_of_images(folders, tmp_path: Path) -> None:
    images = DatasetPictures(Digits())
    np.savez(tmp_path / "many.npz", np.stack([images.read(index) for index in range(60)]))
    arguments = ["--reference", folders[1], "--protocol", "quick-pixels", "--num", 60]
    assert exit_code(tmp_path / "many.npz", *arguments) == 0
    exit_code(folders[0], *arguments)
    one, other = (
        json.loads((tmp_path / f"{name}.quick-pixels.json").read_text()) for name in ("many", "samples")
    )
    assert one["metrics"] == other["metrics"]
