"""Concepts of bases with a transformer as files: merged on what each pipeline reads, and sampled again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.transformer_bases import complete_base
from families.custom_diffusion.transformer_bases import make_transformer_concept as make_concept
from torch import Tensor

from genzoo.cli import main
from genzoo.core.errors import UsageError, WeightsError
from genzoo.families.custom_diffusion.edit.attention_models import Text, padding_rows, text_rows
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.write_layouts import write_concept
from genzoo.families.custom_diffusion.merge.concepts import merge_concepts
from genzoo.families.custom_diffusion.training.model import custom_diffusion
from genzoo.families.custom_diffusion.training.pipeline_model import PipelineConceptModel
from genzoo.pretrained.pipeline_text import PipelineText

# two text encoders, biases and learnt padding; another norm in each layer; zeros as padding, and biases
CLASSES = ["hunyuan", "lumina", "wan"]
# rows before any text: BERT and Gemma begin with a token of their own, T5 does not
BEGINS = {"hunyuan": [1, 0], "lumina": [1], "wan": [0]}
CAPTIONS = ["a bicycle by the sea", "photo of a tree", "an old house with snow", "two dogs", "red apples"]
WORDS = ("<new1>", "<new2>")


@pytest.fixture(scope="module", params=CLASSES)
def base(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_base(tmp_path_factory.mktemp("bases") / request.param, request.param)


@pytest.fixture(scope="module")
def concepts(base: Path) -> list[ConceptDelta]:
    return [make_concept(base, seed, word, f"{word} o") for seed, word in enumerate(WORDS, 1)]


class Rows:
    """What enters each projection, from the whole model and from nothing of the merge."""

    def __init__(self, base: Path, concepts: Sequence[ConceptDelta]) -> None:
        import diffusers

        kind = json.loads((base / "transformer" / "config.json").read_text())["_class_name"]
        self.model = getattr(diffusers, kind).from_pretrained(base, subfolder="transformer").double().eval()
        self.texts, self.begins = PipelineText(base), BEGINS[base.name]
        for concept in concepts:
            self.texts.add_tokens(concept.tokens)

    def of(self, text: str, first: Sequence[int]) -> dict[str, Tensor]:
        """first: of each sequence the row to begin with."""
        parts = self.texts.read(text)
        rows = text_rows(self.model, Text(tuple(part.rows.double() for part in parts)))
        lengths = [len(part.rows) for part in parts]
        return {
            name: torch.cat([piece[start:] for piece, start in zip(every.split(lengths), first, strict=True)])
            for name, every in rows.items()
        }

    def kept(self, every: bool) -> dict[str, Tensor]:
        """Of the captions, with the padding that is seen once a caption."""
        first = [0] * len(self.begins) if every else self.begins
        found = [self.of(text, first) for text in CAPTIONS]
        rows = {name: torch.cat([one[name] for one in found]) for name in found[0]}
        padding = padding_rows(self.model)
        if padding is not None:
            rows = {name: torch.cat([own, *[padding] * len(CAPTIONS)]) for name, own in rows.items()}
        return rows

    def words(self, phrase: str) -> dict[str, Tensor]:
        """Of the phrase and its template."""
        alone = self.texts.read(phrase)
        sizes = [len(part.rows) - start for part, start in zip(alone, self.begins, strict=True)]
        long = [
            len(part.rows) - size
            for part, size in zip(self.texts.read(f"photo of a {phrase}"), sizes, strict=True)
        ]
        pair = [self.of(phrase, self.begins), self.of(f"photo of a {phrase}", long)]
        return {name: torch.cat([one[name] for one in pair]) for name in pair[0]}

    def tail(self, phrase: str, token: str) -> dict[str, Tensor]:
        """From the new word on."""
        ids = [own for (own,) in self.texts.token_ids(token)]
        return self.of(
            phrase, [part.ids.index(own) for part, own in zip(self.texts.read(phrase), ids, strict=True)]
        )


def distinct(rows: Tensor) -> Tensor:
    return torch.unique(rows, dim=0)


def test_constraint_is_equation_five_on_the_rows_of_every_projection(
    base: Path, concepts: list[ConceptDelta]
) -> None:
    merged = merge_concepts(concepts, base=base, phrases=WORDS, captions=CAPTIONS, dtype=torch.float64)
    rows, weights = Rows(base, concepts), BaseWeights(base)
    words, kept, missed = [rows.words(word) for word in WORDS], rows.kept(every=False), []
    for layer in kept:
        name = f"{layer}.weight"
        W_0, G_inv = weights[name].double(), torch.linalg.pinv(kept[layer].T @ kept[layer], hermitian=True)
        pieces = [distinct(own[layer]) for own in words]
        C = torch.cat(pieces)
        E = torch.cat(
            [
                own @ (concept.weights[name].double() - W_0).T
                for own, concept in zip(pieces, concepts, strict=True)
            ]
        )
        lift = torch.linalg.pinv(C @ G_inv @ C.T, hermitian=True) @ C @ G_inv
        wanted = E.T @ lift
        found = merged.delta.weights[name] - W_0
        assert (found - wanted).abs().max() < 1e-7 * wanted.abs().max()
        missed.append(float((C @ found.T - E).abs().max()))
    # of HunyuanDiT 16 rows in a width of 12, which nothing meets exactly
    assert merged.report.constraint_residual == pytest.approx(max(missed), rel=1e-6, abs=1e-9)
    assert merged.report.num_matrices == len(kept)
    assert list(merged.delta.tokens) == list(WORDS)


def test_ridge_is_the_weighted_least_squares_answer_on_them(base: Path, concepts: list[ConceptDelta]) -> None:
    share = 3.0
    merged = merge_concepts(
        concepts, base=base, captions=CAPTIONS, form="ridge", share=share, dtype=torch.float64
    )
    rows, weights = Rows(base, concepts), BaseWeights(base)
    tails = [rows.tail(concept.phrases[0], word) for concept, word in zip(concepts, WORDS, strict=True)]
    kept = rows.kept(every=True)
    for layer, reg in kept.items():
        name = f"{layer}.weight"
        W_0, pieces = weights[name].double(), [own[layer] for own in tails]
        a = [(share * reg.square().sum() / (2 * own.square().sum())).sqrt() for own in pieces]
        changes = [concept.weights[name].double() - W_0 for concept in concepts]
        ridge = 0.5**0.5 * torch.eye(reg.shape[1], dtype=torch.float64)
        left = torch.cat([a[0] * pieces[0], a[1] * pieces[1], reg, ridge])
        right = torch.zeros(len(left), len(W_0), dtype=torch.float64)
        first = len(pieces[0])
        right[:first] = a[0] * pieces[0] @ changes[0].T
        right[first : first + len(pieces[1])] = a[1] * pieces[1] @ changes[1].T
        wanted = torch.linalg.lstsq(left, right, driver="gelsd").solution.T
        found = merged.delta.weights[name] - W_0
        assert (found - wanted).abs().max() < 1e-9 * wanted.abs().max()
    assert (merged.report.form, merged.report.share) == ("ridge", share)


@pytest.fixture(scope="module")
def sana(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_base(tmp_path_factory.mktemp("sampled") / "sana", "sana")


def keys_and_values(model: PipelineConceptModel, prompt: str, count: int) -> dict[str, Tensor]:
    """What the pipeline's own call makes of the last `count` of a prompt's tokens."""
    seen: dict[str, Tensor] = {}
    own = len(PipelineText(model.source).read(prompt.replace("<new1>", "n"))[0].rows)
    handles = []
    for name in model.trained:

        def note(_module: Any, _given: Any, out: Tensor, name: str = name) -> None:
            seen[name] = out[0, own - count : own].clone()

        layer = model.transformer.get_submodule(name.removesuffix(".weight"))
        handles.append(layer.register_forward_hook(note))
    with torch.no_grad():
        model.pipeline(
            prompt=prompt,
            num_inference_steps=1,
            guidance_scale=1.0,
            height=32,
            width=32,
            output_type="latent",
            use_resolution_binning=False,
            **model.options,
        )
    for handle in handles:
        handle.remove()
    return seen


def test_command_merges_files_and_the_pipeline_reads_both_as_they_were_taught(
    sana: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for seed, word in enumerate(WORDS, 1):
        concept = make_concept(sana, seed, word, word)
        files.append(write_concept(concept, tmp_path / f"{word[1:-1]}.safetensors"))
    before = {path: path.read_bytes() for path in [*files, *sana.rglob("*.*")] if path.is_file()}
    captions, out = tmp_path / "captions.txt", tmp_path / "both"
    captions.write_text("\n".join(CAPTIONS))
    arguments = ["merge-concepts", str(files[0]), f"{files[1]}:0.5", "--base", str(sana), "-o", str(out)]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--captions", str(captions)])
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert "2 concepts merged into" in shown
    assert "at strength 0.5" in shown
    assert {path: path.read_bytes() for path in before} == before
    report = json.loads((out / "report.json").read_text())
    # the last token of Sana's instruction stands before every text, and belongs to no concept
    assert report["num_target_rows"] == 4
    assert report["constraint_residual"] < 1e-5
    assert len(report["interference"]) == 2
    merged = custom_diffusion(str(sana), concept=str(out))
    taught = custom_diffusion(str(sana), concept=str(files[0]))
    prompt = "photo of a <new1>"
    # words before the phrase are everybody's: a taught model reads them otherwise
    wanted, found = keys_and_values(taught, prompt, 1), keys_and_values(merged, prompt, 1)
    for name, rows in wanted.items():
        torch.testing.assert_close(found[name], rows, atol=1e-4, rtol=0)
    assert wanted.keys() == merged.trained.keys()
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "sample",
                str(out),
                "--prompt",
                "a <new2> <new1> o",
                "--num",
                "1",
                "--out",
                str(tmp_path / "drawn"),
                "steps=1",
                "size=32",
            ]
        )
    assert not ended.value.code
    assert (tmp_path / "drawn" / "000000.png").is_file()


def test_what_cannot_be_merged_is_refused_by_name(sana: Path, tmp_path: Path) -> None:
    concept = make_concept(sana, 1, "<new1>", "<new1> o")
    strange = replace(concept, base_fingerprint="0" * 64, base_model="another")
    with pytest.raises(WeightsError, match="trained from another base") as found:
        merge_concepts([strange], base=sana, captions=CAPTIONS)
    assert "another" in str(found.value.why)
    wan = complete_base(tmp_path / "wan", "wan")
    with pytest.raises(WeightsError, match="wide"):
        merge_concepts([concept], base=wan, captions=CAPTIONS)
    with pytest.raises(UsageError, match="padding is not included on bases with a transformer"):
        merge_concepts([concept], base=sana, captions=CAPTIONS, include_padding=True)
    with pytest.raises(UsageError, match="too long for an edit or a merge"):
        merge_concepts([concept], base=sana, captions=CAPTIONS, phrases=["<new1> " + "o" * 400])
    one = replace(concept, tokens={"<new1>": [torch.ones(3)]})
    with pytest.raises(WeightsError, match="has embeddings of widths"):
        merge_concepts([one], base=sana, captions=CAPTIONS)


def test_a_word_that_the_pipeline_writes_otherwise_is_refused(tmp_path: Path) -> None:
    pixart = complete_base(tmp_path / "pixart", "pixart")
    concept = make_concept(pixart, 1, "<Cat>", "<Cat> o")
    with pytest.raises(WeightsError, match="does not read the word <Cat>"):
        merge_concepts([concept], base=pixart, captions=CAPTIONS)
