"""Concepts that cannot be merged or read, each with its error."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.tiny_bases import make_concept
from safetensors.torch import save_file

from genzoo.core.errors import CheckpointError, GenzooError, NonFiniteError, UsageError, WeightsError
from genzoo.families.custom_diffusion.data.captions import default_captions
from genzoo.families.custom_diffusion.edit.concepts import edit_concepts
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.merge.concepts import merge_concepts
from genzoo.pretrained.text_to_image import load_parts

CAPTIONS = default_captions(60)


def wrong_base(delta: ConceptDelta) -> ConceptDelta:
    return dataclasses.replace(delta, base_fingerprint="0" * 64)


def without_token_in_phrase(delta: ConceptDelta) -> ConceptDelta:
    return dataclasses.replace(delta, phrases=("a cat",))


def known_word(delta: ConceptDelta) -> ConceptDelta:
    return delta.renamed({"<new1>": "cat"})


def of_other_width(delta: ConceptDelta) -> ConceptDelta:
    return dataclasses.replace(
        delta, weights={name: torch.zeros(len(w), 64) for name, w in delta.weights.items()}
    )


def without_a_layer(delta: ConceptDelta) -> ConceptDelta:
    return dataclasses.replace(delta, weights=dict(list(delta.weights.items())[1:]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_base, "another base model"),
        (without_token_in_phrase, "no phrase of the concept has its token <new1>"),
        (known_word, "knows the word 'cat' already"),
        (of_other_width, "text features 64 wide"),
        (without_a_layer, "the concept has no"),
    ],
)
def test_bad_concepts_are_refused(
    sd: Path, spoil: Callable[[ConceptDelta], ConceptDelta], message: str
) -> None:
    good = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    with pytest.raises(GenzooError, match=message):
        merge_concepts([spoil(good)], base=sd, captions=CAPTIONS)


def test_concept_without_change_is_refused(sd: Path) -> None:
    with pytest.raises(WeightsError, match="changes nothing"):
        merge_concepts([make_concept(sd, 1, token="<new1>", phrase="<new1> cat", size=0)], base=sd)


def test_sd_and_sdxl_do_not_mix(sd: Path, sdxl: Path) -> None:
    pair = [
        make_concept(sd, 1, token="<new1>", phrase="<new1> cat"),
        make_concept(sdxl, 2, token="<new2>", phrase="<new2> pot"),
    ]
    with pytest.raises(WeightsError, match="text features 64 wide; this model's are"):
        merge_concepts(pair, base=sd, captions=CAPTIONS)


def test_the_same_file_twice_is_refused(sd: Path, concepts: list[Path]) -> None:
    with pytest.raises(UsageError, match="same concept"):
        merge_concepts([concepts[0], concepts[0]], base=sd)


def test_not_a_number_is_refused(sd: Path, tmp_path: Path) -> None:
    good = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    name = next(iter(good.weights))
    with pytest.raises(NonFiniteError, match="NaN"):
        dataclasses.replace(good, weights={**good.weights, name: good.weights[name] * float("nan")})


def test_pickles_with_code_are_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "delta.bin"
    path.write_bytes(pickle.dumps({"unet": Bomb()}, protocol=2))
    with pytest.raises(CheckpointError):
        read_concept(path)
    assert not (tmp_path / "ran").exists()


def test_retrained_text_encoder_and_foreign_files_are_refused(tmp_path: Path) -> None:
    torch.save({"unet": {}, "text_encoder": {"x": torch.zeros(1)}}, tmp_path / "a.bin")
    with pytest.raises(WeightsError, match="retrained the text encoder"):
        read_concept(tmp_path / "a.bin")
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="no Custom Diffusion concept"):
        read_concept(tmp_path / "b.safetensors")


def test_token_names_cannot_leave_a_folder(sd: Path) -> None:
    good = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    with pytest.raises(CheckpointError, match="cannot be a modifier token"):
        good.renamed({"<new1>": "../../<new1>"})


def test_existing_output_is_not_overwritten(sd: Path, concepts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        merge_concepts(concepts, base=sd, output=tmp_path)


def test_bases_whose_unet_reads_another_text_encoder_are_named(sd: Path, tmp_path: Path) -> None:
    kolors = shutil.copytree(sd, tmp_path / "kolors")
    index = json.loads((kolors / "model_index.json").read_text())
    index["text_encoder"] = ["kolors", "ChatGLMModel"]
    (kolors / "model_index.json").write_text(json.dumps(index))
    edit = {"edit": "redirect", "from": "grapes", "to": "red apple"}
    for use in (
        lambda: load_parts(kolors),
        lambda: edit_concepts([edit], base=kolors),
        lambda: merge_concepts([make_concept(sd, 1, token="<new1>", phrase="<new1> cat")], base=kolors),
    ):
        with pytest.raises(UsageError, match="text encoder is a ChatGLMModel"):
            use()
