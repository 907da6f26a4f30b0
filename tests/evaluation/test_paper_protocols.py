"""Protocols of the papers: what each of them measures, and the captions that one of them samples from."""

from __future__ import annotations

from pathlib import Path

import pytest

from genzoo.api.evaluation.evaluate_run import _prompts
from genzoo.core.errors import DataError, UsageError
from genzoo.evaluation.protocols import load_protocol, outline, paper_rows
from genzoo.evaluation.tables import paper_table


@pytest.mark.parametrize("name", list(outline()))
def test_every_protocol_says_what_it_measures_and_where_from(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.about
    assert protocol.source
    for group in protocol.papers:
        names, rows = paper_rows(group)
        assert rows
        assert set(names) & {key for row in rows for key in row}


def test_controlled_generation_has_precision_and_recall() -> None:
    metrics = load_protocol("car-900-unseen").metrics
    assert metrics["precision_recall"] == {"k": 3, "reference_num": 10000}


def regularisation(folder: Path, captions: list[str]) -> Path:
    folder.mkdir()
    (folder / "images.txt").write_text("".join(f"{i}.png\n" for i in range(len(captions))))
    (folder / "caption.txt").write_text("".join(f"{caption}\n" for caption in captions))
    return folder


def test_what_a_model_forgot_is_asked_by_the_captions_of_the_reference(tmp_path: Path) -> None:
    kid = load_protocol("custom-diffusion-kid")
    assert kid.num == kid.metrics["kid"]["subset_size"] == 500
    folder = regularisation(tmp_path / "cats", ["a cat", "a grey cat", "two cats"])
    assert _prompts(kid, folder, 2, {}) == {"prompt": ["a cat", "a grey cat"]}
    assert _prompts(kid, folder, 2, {"prompt": "a dog"}) == {}
    assert _prompts(load_protocol("quick"), folder, 2, {}) == {}
    with pytest.raises(DataError, match=r"needs 9 captions, .* has 3"):
        _prompts(kid, folder, 9, {})
    with pytest.raises(UsageError, match="captions of its reference"):
        _prompts(kid, None, 2, {})


def test_papers_stand_under_the_results_of_their_protocol() -> None:
    from genzoo.evaluation.result import EvaluationResult

    protocol = load_protocol("custom-diffusion-kid")
    result = EvaluationResult(protocol.name, {"kid": 0.03}, {}, generated={"num": 500})
    assert "0.02096" in paper_table(result, protocol)
