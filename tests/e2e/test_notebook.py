import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LARGEST = 1_000_000  # bytes of a notebook with its outputs
PLACES = re.compile(r"(?<![\w.:/<])/(?:home|root|tmp|work|usr|var|Users|opt|private)/")


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(path, monkeypatch):
    monkeypatch.setenv("GENZOO_STEPS", "3")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert [out for out in outputs if "image/png" in out.get("data", {})]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_is_kept_with_its_outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_holds_nothing_of_the_machine_that_ran_it(path):
    notebook = nbformat.read(path, as_version=4)
    said = [
        {
            mime: text
            for mime, text in out.get("data", {"text": out.get("text", "")}).items()
            if "image" not in mime
        }
        for cell in notebook.cells
        for out in cell.get("outputs", [])
    ]
    assert not PLACES.search(json.dumps(said))
    assert "widgets" not in notebook.metadata
    assert not [cell for cell in notebook.cells if "execution" in cell.metadata]
    assert path.stat().st_size <= LARGEST


def test_a_path_of_a_machine_is_found():
    assert PLACES.search('{"text": "/home/me/run"}')
    assert not PLACES.search("runs/home/x https://example.org/tmp/x")
