"""Every reader of lists, tables, notes and arrays meets a pipe, an endless device and nonsense."""

from __future__ import annotations

import io
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from genzoo.api.evaluation.stated import stated_sampling
from genzoo.api.runs.run_report import read_report, report_lines
from genzoo.api.sampling.claim import claimed_samples
from genzoo.core.errors import GenzooError, UsageError
from genzoo.core.recipe import load_recipe
from genzoo.core.run_folder import RunFolder, read_metrics
from genzoo.data.array_files import read_array
from genzoo.data.captioned import read_collection
from genzoo.data.class_lists import read_class_list
from genzoo.data.control_files import control_facts
from genzoo.data.image_decode import load_image
from genzoo.data.picture_sets import open_pictures
from genzoo.evaluation.evaluate_concepts import read_prompts
from genzoo.evaluation.report import is_page
from genzoo.evaluation.report import read_metrics as read_curves
from genzoo.evaluation.result import is_result, load_result
from genzoo.families.custom_diffusion.data.captions import read_captions
from genzoo.families.custom_diffusion.data.concept_list import read_concepts
from genzoo.families.custom_diffusion.files.concept import own_record
from genzoo.pictures.clip_files import read_clip, read_picture
from genzoo.pretrained.loading import load_foreign


class Folder:
    """Of a run, as far as readers of its small files look."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder


READERS: dict[str, Callable[[Path], Any]] = {
    "classes.txt": lambda path: read_class_list(path, ["cat"], option="include_classes"),
    "captions.txt": read_captions,
    "concepts.json": read_concepts,
    "metadata.csv": read_collection,
    "metadata.jsonl": read_collection,
    "prompts.json": lambda path: read_prompts(path.parent),
    "samples.json": lambda path: (stated_sampling(path.parent), claimed_samples(path.parent, {"num": 1})),
    "step_00000002.json": load_result,
    "table.json": is_result,
    "page.html": is_page,
    "report.json": lambda path: report_lines(read_report(Folder(path.parent))),  # type: ignore[arg-type]
    "status.json": lambda path: RunFolder(path.parent).status(),
    "metrics.jsonl": read_metrics,
    "curves.jsonl": read_curves,
    "recipe.yaml": load_recipe,
    "arrays.npz": read_array,
    "array.npy": open_pictures,
    "control.png": control_facts,
    "picture.png": load_image,
    "000000.png": read_picture,
    "000000.gif": read_clip,
    "concept.safetensors": lambda path: own_record(path) if path.is_file() else load_foreign(path),
    "weights.pt": load_foreign,
}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
HOSTILE: dict[str, Callable[[Path], Any]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "deep": lambda path: path.write_text("[" * 100_000),
    "list": lambda path: path.write_text(
        '{"metrics": [1], "samples": 3, "step": "x", "genzoo_evaluation": 1}'
    ),
}


@pytest.fixture(autouse=True)
def within_seconds() -> Iterator[None]:
    signal.alarm(30)
    yield
    signal.alarm(0)


def answer(name: str, path: Path) -> Any:
    """What a reader found, or its error in words; anything else fails the test."""
    try:
        return READERS[name](path)
    except GenzooError as error:
        return error


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", READERS)
def test_every_reader_answers_in_words(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    HOSTILE[kind](path)
    found = answer(name, path)
    if isinstance(found, GenzooError):
        assert found.exit_code in (2, 4)
        assert name.partition(".")[0] in str(found) or str(tmp_path) in str(found)
    elif kind in ("pipe", "device"):  # a note that can do without it
        assert not found or found == ({}, 0)


def test_a_folder_of_notes_that_are_no_files_is_free(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "samples.json")
    with pytest.raises(UsageError, match="holds files and no samples"):
        claimed_samples(tmp_path, {"num": 1})


def test_programs_of_other_formats_are_never_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    gs = tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\ntouch {started}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gs.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(gs))
    path = tmp_path / "in" / "00.png"
    path.parent.mkdir()
    path.write_bytes(EPS)
    for name in ("picture.png", "000000.png", "control.png"):
        assert isinstance(answer(name, path), GenzooError | dict)
    with pytest.raises(GenzooError, match="not a JPEG, PNG or WebP"):
        open_pictures(path.parent).read(0)
    assert not started.exists()
    with pytest.raises(OSError, match=r"."):  # so it goes without a list of formats
        Image.open(path).load()
    assert started.exists()


def test_an_array_that_grows_a_thousandfold_is_refused_before_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (400, 1024, 1024, 1)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as part,
    ):
        part.write(header.getvalue())
        for _ in range(400):
            part.write(bytes(1024 * 1024))
    assert path.stat().st_size < 10**6
    with pytest.raises(GenzooError, match="would grow"):
        read_array(path)
