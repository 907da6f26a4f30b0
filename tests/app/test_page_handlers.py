"""Each handler, called with what no form of ours sends: nothing starts, nobody is asked, nothing raises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
from PIL import Image
from test_library_and_jobs import a_run

from genzoo.app.jobs import Jobs
from genzoo.app.library import Library
from genzoo.app.page import Page
from genzoo.app.tabs import evaluate, merge, runs, sample, sample_results, start, teach
from genzoo.app.worker.client import WorkError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # messages without a browser are warnings
NAMES = ["../outside", "/etc/passwd", "--output=/tmp/x", "", None, 3, ["a"], {"a": 1}, "a\0b", "x" * 5000]


class NoWorker:
    """Says no, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def ask(self, what: str, **given: Any) -> Any:
        self.asked.append((what, given))
        raise WorkError("no")

    def steps(self, what: str, **given: Any) -> Any:
        yield self.ask(what, **given)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    (tmp_path / "runs").mkdir()
    a_run(tmp_path / "runs", "a")
    a_run(tmp_path, "outside")
    library = Library(tmp_path / "runs")
    monkeypatch.setattr("subprocess.Popen", _no_process)
    worker: Any = NoWorker()
    return Page(library, Jobs(library), worker, tmp_path / "results")


def _no_process(*arguments: Any, **options: Any) -> Any:
    raise AssertionError(f"a process was started: {arguments}")


def asked(page: Page) -> list[Any]:
    worker: Any = page.worker
    return worker.asked


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_names_that_are_not_listed_do_nothing(page: Page, name: Any) -> None:
    form = {"prompt": False, "negative": False, "classes": None, "control": False, "steps": None}
    form |= {"guidance_scale": None, "sampler": None, "samplers": []}
    sample.describe(page, name)
    list(sample.make_pictures(page, name, form, None, [], "", "", [], 1, 4, 0, 1, 1, None))
    sample.control_of_photo(page, name, "/etc/passwd")
    sample_results.look_back([], name)
    sample_results.settings_again([], name)
    start.checked(page, name, "")
    start.start(page, name, "b", "", 0)
    runs.stop_runs(page, [name])
    runs.resume_runs(page, [name])
    list(runs.look_at(page, [name], name, None))
    teach.stop_lesson(page, name)
    teach.resume_lesson(page, name)
    list(teach.watch_lesson(page, name, None))
    merge.merge_chosen(page, [name, name], name, "b", 1, 1, 1, 1)
    merge.export_chosen(page, name, "a1111")
    evaluate.begin_all(page, [name], "quick", 8)
    evaluate.look_at(page, [name], name, None)
    assert asked(page) == []


def test_a_tick_that_is_made_while_the_list_grows_is_left_alone(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "listed", lambda page: [("a", "first"), ("b", "second")])
    grown = list(runs.look_at(page, ["a"], "loss", {"rows": [("a", "first")]}))[-1][0]
    assert [value for _, value in grown.choices] == ["a", "b"]
    assert "value" not in grown.constructor_args
    gone = list(runs.look_at(page, ["a", "c"], "loss", {"rows": [("a", "first")]}))[-1][0]
    assert gone.constructor_args["value"] == ["a"]


def test_a_picture_that_was_half_copied_is_shown_when_it_is_whole(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "whole.png")
    whole, picture = (tmp_path / "whole.png").read_bytes(), tmp_path / "grid.png"
    picture.write_bytes(whole[:20])
    monkeypatch.setattr(runs, "_pictures_of", lambda found: [(picture, "a, step 2")])
    looks = list(runs.look_at(page, ["a"], "loss", None))
    assert looks[-1][4] == []
    picture.write_bytes(whole)
    again = list(runs.look_at(page, ["a"], "loss", looks[-1][6]))
    assert [label for _, label in again[-1][4]] == ["a, step 2"]


def test_a_list_of_models_that_is_left_without_a_choice_changes_nothing(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = {"source": "a", "steps": 3}
    assert sample.opening("a", form) == [gr.skip(), gr.skip()]
    assert sample.describe(page, "a", form) == [gr.skip()] * 11
    assert asked(page) == []
    assert sample.opening("b", form)[0] is None
    said = list(sample.make_pictures(page, "a", {"source": "b"}, None, []))
    assert [one[1] for one in said] == ["this model is not ready yet"]


@pytest.mark.parametrize("name", [*NAMES, "a", "a/b", ".hidden"], ids=lambda name: repr(name)[:20])
def test_a_training_of_a_bad_name_is_not_started(
    page: Page, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = {"problems": [], "missing": [], "steps": 3}
    monkeypatch.setattr(page.worker, "ask", lambda what, **given: fine)
    start.start(page, "quickstart/dim_digits", name, "", 0)


@pytest.mark.parametrize("text", ["--output=/tmp/x", "steps", "a='b", "-x=1", None, 3, "y" * 5000], ids=str)
def test_settings_that_are_none_reach_nobody(page: Page, text: Any) -> None:
    said = start.checked(page, "quickstart/dim_digits", text)
    start.start(page, "quickstart/dim_digits", "b", text, 0)
    assert "Looks right" not in said
    assert asked(page) == []


@pytest.mark.parametrize("client", ["../x", None, 3, "no_such"])
def test_a_program_that_is_none_gets_no_files(page: Page, client: Any) -> None:
    (page.library.folder / "cat.safetensors").touch()
    merge.export_chosen(page, "cat.safetensors", client)
    assert asked(page) == []


@pytest.mark.parametrize(("protocol", "num"), [("x.yaml:quick", 8), ("quick", 0), ("quick", "8"), (None, 8)])
def test_a_protocol_or_number_that_is_none_judges_nothing(page: Page, protocol: Any, num: Any) -> None:
    evaluate.begin_all(page, ["a"], protocol, num)


def test_too_many_photographs_are_refused(page: Page, tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    assert teach.take_photos(page, [str(tmp_path / "x.png")] * (teach.MOST_PHOTOS + 1)) is None
    assert teach.take_photos(page, None) is None


def test_photographs_get_names_of_ours(page: Page, tmp_path: Path) -> None:
    strange = tmp_path / "x<img src=x>\u202e.PNG"
    strange.touch()
    place = teach.take_photos(page, [str(strange)])
    assert place is not None
    assert [path.name for path in Path(place).iterdir()] == ["000.png"]


def test_a_preview_that_is_no_picture_is_not_shown(page: Page, tmp_path: Path) -> None:
    (tmp_path / "grid.png").write_text("<script>alert(1)</script>")
    assert page.shown(tmp_path / "grid.png") is None
    assert page.shown(tmp_path / "absent.png") is None


def test_the_heat_map_darkens_with_interference() -> None:
    picture = merge.heat_map([[1.0, 0.0], [0.25, 1.0]], ["cat", "dog \u202e"])
    corner = 6
    dark = picture.getpixel((merge.MARGIN + corner, 40 + corner))
    light = picture.getpixel((merge.MARGIN + merge.CELL + corner, 40 + corner))
    assert (dark, light) == (merge.DARK, merge.LIGHT)
