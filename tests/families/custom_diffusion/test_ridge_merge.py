"""The merge as a ridge: near the phrases' rows to the end of the padding, weighed against what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from genzoo.cli import main
from genzoo.core.errors import UsageError
from genzoo.families.custom_diffusion.data.captions import default_captions, regularisation_rows
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.merge.concepts import merge_concepts
from genzoo.pretrained.prompts import PromptEncoder, load_prompt_encoder

CAPTIONS = default_captions(20)
PHRASES = ["<new1> cat", "a <new2> wooden pot"]


def tail(encoder: PromptEncoder, phrase: str, token: str) -> Tensor:
    """From the new word to the end of the padding, (s, d) float64."""
    (features,) = encoder.encode([phrase])
    start = features.ids.index(encoder.token_ids(token)[0])
    return torch.cat([features.rows[start:], encoder.padding_rows([phrase])]).double()


def problem(sd: Path, concepts: list[Path]) -> tuple[list[Tensor], Tensor]:
    encoder = load_prompt_encoder(sd)
    for path in concepts[:2]:
        encoder.add_tokens(read_concept(path).tokens)
    rows = [tail(encoder, phrase, token) for phrase, token in zip(PHRASES, ["<new1>", "<new2>"], strict=True)]
    return rows, regularisation_rows(encoder, CAPTIONS, include_bos=True, include_padding=True).double()


@pytest.mark.parametrize("share", [0.3, 4.0])
def test_ridge_is_the_weighted_least_squares_answer(sd: Path, concepts: list[Path], share: float) -> None:
    merged = merge_concepts(
        concepts[:2],
        base=sd,
        captions=CAPTIONS,
        phrases=PHRASES,
        form="ridge",
        share=share,
        dtype=torch.float64,
    )
    (one, other), kept = problem(sd, concepts)
    weights = [share * kept.square().sum() / (2 * rows.square().sum()) for rows in (one, other)]
    left = torch.cat(
        [weights[0].sqrt() * one, weights[1].sqrt() * other, kept, 0.5**0.5 * torch.eye(kept.shape[1])]
    )
    base = BaseWeights(sd)
    for name in base.key_values:
        W_0 = base[name].double()
        changes = [read_concept(path).full_weight(name, base[name]).double() - W_0 for path in concepts[:2]]
        right = torch.zeros(len(left), len(W_0), dtype=torch.float64)
        right[: len(one)] = weights[0].sqrt() * one @ changes[0].T
        right[len(one) : len(one) + len(other)] = weights[1].sqrt() * other @ changes[1].T
        wanted = torch.linalg.lstsq(left, right, driver="gelsd").solution.T
        found = merged.delta.weights[name] - W_0
        assert (found - wanted).abs().max() < 1e-9 * wanted.abs().max()
    assert (merged.report.form, merged.report.share) == ("ridge", share)


def test_more_share_loses_less_of_the_concepts_and_moves_more_of_the_rest(
    sd: Path, concepts: list[Path]
) -> None:
    reports = [
        merge_concepts(concepts[:1], base=sd, captions=CAPTIONS, form="ridge", share=share).report
        for share in (0.01, 1.0, 1e4)
    ]
    lost = [max(concept.lost_share for concept in report.concepts) for report in reports]
    assert lost[0] > 1.2 * lost[1] > 2.4 * lost[2]
    moved = [report.objective for report in reports]
    assert moved[0] < moved[1] < moved[2]
    assert "outvoted" in reports[0].concepts[0].verdict
    assert "kept but for" in reports[2].concepts[0].verdict


def test_one_concept_with_all_the_weight_is_given_back_where_it_was_taught(
    sd: Path, concepts: list[Path]
) -> None:
    merged = merge_concepts(
        concepts[:1], base=sd, captions=CAPTIONS[:1], phrases=PHRASES[:1], form="ridge", share=1e8
    )
    rows = problem(sd, concepts)[0][0].float()
    own, base = read_concept(concepts[0]), BaseWeights(sd)
    for name in base.key_values:
        wanted = rows @ own.full_weight(name, base[name]).T
        torch.testing.assert_close(rows @ merged.delta.weights[name].T, wanted, atol=1e-3, rtol=0)


def test_a_phrase_without_a_new_word_counts_from_its_beginning(sd: Path, concepts: list[Path]) -> None:
    report = merge_concepts(concepts[2:3], base=sd, captions=CAPTIONS, form="ridge").report
    encoder = load_prompt_encoder(sd)
    # every row but the first
    assert report.concepts[0].num_rows == encoder.max_length - 1


@pytest.mark.parametrize(
    ("options", "word"), [({"form": "soft"}, "constraint"), ({"form": "ridge", "share": 0.0}, "above 0")]
)
def test_unknown_form_and_no_weight_are_refused(
    sd: Path, concepts: list[Path], options: dict[str, object], word: str
) -> None:
    with pytest.raises(UsageError, match=word):
        merge_concepts(concepts[:2], base=sd, captions=CAPTIONS, **options)  # type: ignore[arg-type]


def test_command_takes_the_form_and_the_report_names_it(
    sd: Path, concepts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(CAPTIONS))
    out = str(tmp_path / "merged.safetensors")
    with pytest.raises(SystemExit) as ended:
        main(
            ["merge-concepts", *map(str, concepts[:2]), "--base", str(sd), "-o", out]
            + ["--captions", str(captions), "--form", "ridge", "--share", "2"]
        )
    assert not ended.value.code
    assert "ridge: near the targets, whose weight is 2 of all that is kept" in capsys.readouterr().out
