"""Merging files of concepts end to end: each is still there, and the report says what became of it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.pipelines import target_values, tiny_pipeline
from families.custom_diffusion.tiny_bases import make_concept

import genzoo
from genzoo.cli import main
from genzoo.core.errors import DataError, UsageError
from genzoo.families.custom_diffusion.data.captions import default_captions, regularisation_rows
from genzoo.families.custom_diffusion.files.apply import apply_concept
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights, fingerprint
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.merge.concepts import merge_concepts
from genzoo.families.custom_diffusion.merge.inputs import labels_of
from genzoo.pretrained.prompts import load_prompt_encoder
from genzoo.pretrained.text_to_image import load_parts

CAPTIONS = default_captions(60)


def test_merged_concepts_are_each_still_there(sd: Path, concepts: list[Path]) -> None:
    merged = genzoo.merge_concepts(concepts, base=sd, captions=CAPTIONS)
    for path, prompt in zip(concepts, ["<new1> cat", "<new2> wooden pot", "moongate"], strict=True):
        own = read_concept(path)
        wanted, found = target_values(sd, own, prompt), target_values(sd, merged.delta, prompt)
        base_weights = BaseWeights(sd)
        untaught = {name: base_weights[name] for name in base_weights.key_values}
        plain = target_values(sd, dataclasses.replace(own, weights=untaught), prompt)
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-4, rtol=0)
            assert (plain[name] - wanted[name]).norm() > 100 * (found[name] - wanted[name]).norm()
    report = merged.report
    assert report.constraint_residual < 1e-4
    assert [round(report.interference[k][k], 6) for k in range(3)] == [1, 1, 1]
    assert all("kept" in concept.verdict for concept in report.concepts)
    assert report.num_matrices == len(BaseWeights(sd).key_values)
    assert report.objective > 0
    assert report.rank <= report.width == 24


def test_merge_does_not_depend_on_the_order(sd: Path, concepts: list[Path]) -> None:
    one = merge_concepts(concepts, base=sd, captions=CAPTIONS).delta
    other = merge_concepts(concepts[::-1], base=sd, captions=CAPTIONS).delta
    for name, weight in one.weights.items():
        torch.testing.assert_close(other.weights[name], weight, atol=1e-5, rtol=1e-4)


def test_command_writes_a_folder_that_loads_and_changes_nothing_else(
    sd: Path, concepts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], pipeline: Any
) -> None:
    before = {path: path.read_bytes() for path in [*concepts, *sorted(sd.rglob("*.*"))] if path.is_file()}
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(CAPTIONS))
    out = tmp_path / "merged"
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "merge-concepts",
                *map(str, concepts),
                "--base",
                str(sd),
                "-o",
                str(out),
                "--captions",
                str(captions),
            ]
        )
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert "3 concepts merged" in shown
    assert "<new1> cat: " in shown
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in out.iterdir()) == ["concept.safetensors", "report.json", "report.txt"]
    report = json.loads((out / "report.json").read_text())
    assert len(report["interference"]) == len(report["concepts"]) == 3
    merged = read_concept(out)
    assert merged.base_fingerprint == fingerprint(BaseWeights(sd))
    assert apply_concept(merged, pipeline).tokens == ("<new1>", "<new2>")


def test_a_failed_merge_leaves_nothing_behind(
    sd: Path, concepts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "merged"

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DataError, match="No space"):
        merge_concepts(concepts, base=sd, captions=CAPTIONS, output=out)
    assert list(out.parent.iterdir()) == []


def test_jointly_trained_concept_keeps_all_its_tokens(sd: Path, concepts: list[Path]) -> None:
    first, second = (read_concept(path) for path in concepts[:2])
    joint = dataclasses.replace(
        first, tokens={**first.tokens, **second.tokens}, phrases=("<new1> cat", "<new2> wooden pot")
    )
    gate = read_concept(concepts[2])
    merged = merge_concepts([joint, gate], base=sd, captions=CAPTIONS)
    assert list(merged.delta.tokens) == ["<new1>", "<new2>"]
    for prompt in joint.phrases:
        wanted, found = target_values(sd, joint, prompt), target_values(sd, merged.delta, prompt)
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-4, rtol=0)


def test_one_word_claimed_twice_is_reported_as_lost(sd: Path) -> None:
    pair = [make_concept(sd, seed, token=None, phrase="moongate") for seed in (4, 5)]
    report = merge_concepts(pair, base=sd, captions=CAPTIONS).report
    assert report.clashes
    assert all(concept.verdict.startswith("NOT fully kept") for concept in report.concepts)
    assert all(concept.lost_share > 0.3 for concept in report.concepts)
    with pytest.raises(UsageError, match="same feature"):
        merge_concepts(pair, base=sd, captions=CAPTIONS, conflicts="error")


def test_concepts_of_one_file_name_are_told_apart_by_their_folders(sd: Path) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    names = [
        "cat/concept.safetensors",
        "/x/dog/concept.safetensors",
        "hf://me/pot",
        "/x/dog/concept.safetensors",
    ]
    assert labels_of(["a/one.safetensors", concept, "b/two.safetensors"]) == [
        "one.safetensors", "concept 2", "two.safetensors",
    ]  # fmt: skip
    assert labels_of(names) == [
        "cat/concept.safetensors",
        "dog/concept.safetensors",
        "pot",
        "dog/concept.safetensors",
    ]
    assert labels_of(["runs/cat/a", "old/cat/a", "a"]) == ["runs/cat/a", "old/cat/a", "a"]


def test_tokens_that_clash_are_refused_or_renamed(sd: Path) -> None:
    pair = [
        make_concept(sd, seed, token="<new1>", phrase=f"<new1> {word}")
        for seed, word in ((1, "cat"), (2, "dog"))
    ]
    with pytest.raises(UsageError, match="both teach the word <new1>"):
        merge_concepts(pair, base=sd, captions=CAPTIONS)
    merged = merge_concepts(pair, base=sd, captions=CAPTIONS, rename=True)
    assert merged.delta.phrases == ("<new1> cat", "<new2> dog")
    assert torch.equal(merged.delta.tokens["<new2>"][0], pair[1].tokens["<new1>"][0])
    assert list(merged.report.renamed.values()) == ["<new2>"]


def test_sdxl_merges_all_140_matrices_with_two_encoders(sdxl: Path, tmp_path: Path) -> None:
    pair = [
        make_concept(sdxl, 1, token="<new1>", phrase="<new1> cat"),
        make_concept(sdxl, 2, token="<new2>", phrase="<new2> pot"),
    ]
    merged = merge_concepts(pair, base=sdxl, captions=CAPTIONS, output=tmp_path / "xl.safetensors")
    assert merged.report.num_matrices == 140
    assert merged.report.constraint_residual < 1e-3
    again = read_concept(tmp_path / "xl.safetensors")
    assert [len(row) for row in again.tokens["<new2>"]] == [24, 40]
    applied = apply_concept(again, tiny_pipeline(sdxl, ("", "_2")))
    assert applied.output_change > 1e-4


def test_features_of_unpadded_prompts_equal_the_padded_run(sd: Path) -> None:
    encoder = load_prompt_encoder(sd)
    prompt = "photo of a teddy bear, high quality"
    padded = encoder.tokenizers[0](prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = encoder.models[0](input_ids=padded).last_hidden_state[0]
    found = encoder.encode([prompt, "a cat"])[0]
    torch.testing.assert_close(found.rows, expected[: len(found.ids)], atol=1e-5, rtol=0)


def test_rows_that_captions_share_count_as_often_as_they_occur(sd: Path) -> None:
    encoder = load_prompt_encoder(sd)
    texts = ["a cat", "a cat", "a cat on snow", "photo of a dog"]
    every = torch.cat([f.rows[4 if "photo of a" in f.text else 1 :] for f in encoder.encode(texts)])
    few = regularisation_rows(encoder, texts)
    assert len(few) < len(every)
    torch.testing.assert_close(few.T @ few, every.T @ every, rtol=1e-4, atol=1e-3)


def test_report_warns_of_few_captions_and_of_large_changes(sd: Path) -> None:
    wild = make_concept(sd, 1, token="<new1>", phrase="<new1> cat", size=30)
    report = merge_concepts([wild], base=sd, captions=["a cat", "a dog"]).report
    text = "\n".join(report.lines())
    assert report.rank < 10
    assert "more captions make the merge safer" in text
    assert "more than its own size" in text
    mild = make_concept(sd, 1, token="<new1>", phrase="<new1> cat", size=0.01)
    text = "\n".join(merge_concepts([mild], base=sd, captions=CAPTIONS).report.lines())
    assert "safer" not in text
    assert "own size" not in text
    assert "kept, and undisturbed" in text


def test_default_captions_are_many_and_different() -> None:
    captions = default_captions()
    assert len(captions) == len(set(captions)) == 1000
    assert captions == default_captions()


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_rows_of_the_padding_are_held_on_request(kind: str, request: pytest.FixtureRequest) -> None:
    base: Path = request.getfixturevalue(kind)
    encoder, parts = load_prompt_encoder(base), load_parts(base)
    texts = ["a cat", "a dog on a sofa"]
    lengths = [len(features.ids) for features in encoder.encode(texts)]
    with torch.no_grad():
        padded = parts.encode_prompts(texts).hidden
    expected = torch.cat([row[length:] for row, length in zip(padded, lengths, strict=True)])
    few = regularisation_rows(encoder, texts)
    more = regularisation_rows(encoder, texts, include_padding=True)
    torch.testing.assert_close(more[: len(few)], few)
    torch.testing.assert_close(more[len(few) :], expected, atol=1e-5, rtol=0)


def test_a_merge_that_holds_the_padding_moves_it_less(sd: Path) -> None:
    pair = [make_concept(sd, k, token=f"<new{k}>", phrase=f"<new{k}> pot") for k in (1, 2)]
    base, padding = BaseWeights(sd), load_prompt_encoder(sd).padding_rows(CAPTIONS)
    moved = []
    for held in (False, True):
        merged = merge_concepts(pair, base=sd, captions=CAPTIONS, include_padding=held)
        changes = [padding @ (merged.delta.weights[name] - base[name]).T for name in base.key_values]
        moved.append(float(torch.stack([change.norm() for change in changes]).norm()))
        assert merged.report.constraint_residual < 1e-3
    assert moved[1] < 0.9 * moved[0]
