"""Edits end to end on a tiny base: what they move, what they leave, what is written and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.tiny_bases import make_concept

import genzoo
from genzoo.cli import main
from genzoo.core.errors import GenzooError, UsageError
from genzoo.data.emoji import load_concepts
from genzoo.families.custom_diffusion.data.captions import default_captions, names_and_sentences
from genzoo.families.custom_diffusion.edit.concepts import edit_concepts
from genzoo.families.custom_diffusion.edit.debias import next_shares
from genzoo.families.custom_diffusion.edit.measure import movements
from genzoo.families.custom_diffusion.edit.report import EditReport
from genzoo.families.custom_diffusion.edit.rows import NUM_PADDING, TextRows, kept_rows
from genzoo.families.custom_diffusion.edit.solve import keep_factor, plan_edit
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.merge.concepts import merge_concepts
from genzoo.pretrained.prompts import load_prompt_encoder

CAPTIONS = ["a bicycle by the sea", "photo of a tree", "an old house with snow"]
GRAPES = {"edit": "redirect", "from": "grapes", "to": "red apple"}


def command(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def contents(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_edited_rows_go_to_the_target_and_the_report_says_how_far(sd: Path) -> None:
    edited = genzoo.edit_concepts([GRAPES], base=sd, captions=CAPTIONS, share=100.0)
    texts, weights = TextRows(load_prompt_encoder(sd)), BaseWeights(sd)
    c, g = texts.paired(["grapes", "red apple"], "tail")
    assert len(c) == 77 - 2
    left, needed = 0.0, 0.0
    for name in weights.key_values:
        W_0, W = weights[name].double(), edited.delta.weights[name].double()
        left += float((c @ W.T - g @ W_0.T).square().sum())
        needed += float((c @ W_0.T - g @ W_0.T).square().sum())
    (report,) = edited.report.edits
    assert report.residual == pytest.approx((left / needed) ** 0.5, rel=1e-3)
    assert edited.report.largest_change > 0


def test_movements_from_few_numbers_are_those_of_the_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    W_0 = [torch.randn(out, 7, generator=generator, dtype=torch.float64) for out in (5, 9)]
    C, T, P = (torch.randn(n, 7, generator=generator, dtype=torch.float64) for n in (3, 3, 11))
    plan = plan_edit(C, keep_factor(P), weights=2.0)
    errors = [W @ (T - C).T for W in W_0]
    gram = sum((E.T @ E for E in errors), torch.zeros(3, 3, dtype=torch.float64))
    direct = sum((((E @ plan.lift) @ P.T) ** 2).sum(0) for E in errors)
    torch.testing.assert_close(movements(plan.lift, gram, P), direct, rtol=1e-10, atol=1e-12)


def test_a_weak_edit_beside_a_large_keep_list_is_called_outvoted(sd: Path) -> None:
    weak = edit_concepts([GRAPES], base=sd, share=None, weight=1e-3, captions=default_captions(40))
    assert weak.report.edits[0].residual > 0.5
    assert "outvoted" in weak.report.edits[0].verdict


def test_command_writes_a_base_that_samples_merges_and_is_edited_again(
    sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, out = contents(sd), tmp_path / "edited"
    edits = tmp_path / "edits.json"
    edits.write_text(json.dumps([GRAPES, {"edit": "keep", "text": "bicycle"}]))
    arguments = ["edit-concepts", edits, "--base", sd, "--num-captions", "20"]
    assert command(*arguments, "-o", out) == 0
    shown = capsys.readouterr().out
    assert "redirect 'grapes' -> 'red apple': " in shown
    assert contents(sd) == before
    written = contents(out)
    changed = {str(path) for path in written if written[path] != before.get(path)}
    assert changed == {"edits.json", "edits.txt", "unet/diffusion_pytorch_model.safetensors"}
    first = BaseWeights(out)
    assert not torch.equal(first[first.key_values[0]], BaseWeights(sd)[first.key_values[0]])
    assert command("sample", out, "--prompt", "grapes", "--num", "1", "--steps", "2") == 0
    taught = make_concept(out, 1, token="<new1>", phrase="<new1> cat")
    merged = merge_concepts([taught], base=out, captions=CAPTIONS)
    assert merged.report.base_fingerprint == taught.base_fingerprint
    again = edit_concepts([{"edit": "erase", "from": "tree"}], base=out, captions=CAPTIONS[:1])
    assert again.report.edits[0].num_rows == 76 - 1 + 1
    assert command(*arguments, "-o", out) == 2
    assert "exists already" in capsys.readouterr().err


def test_an_edit_keeps_no_word_on_how_the_bases_own_weights_were_made(sd: Path, tmp_path: Path) -> None:
    base, out = Path(shutil.copytree(sd, tmp_path / "base")), tmp_path / "edited"
    for name in ("recipe.yaml", "card.json"):
        (base / name).write_text("{name: text_to_image_emoji}")
    edit_concepts([GRAPES], base=base, captions=CAPTIONS[:1], output=out)
    assert {path.name for path in base.iterdir()} - {path.name for path in out.iterdir()} == {
        "recipe.yaml",
        "card.json",
    }
    for place in (base, out):
        assert genzoo.load_run(place).recipe.data["model"]["base_model"] == str(place)
    assert command("sample", out, "--prompt", "grapes", "--num", "1", "--steps", "2") == 0


def test_a_file_of_the_edit_alone_equals_the_edited_base(sd: Path, tmp_path: Path) -> None:
    whole = edit_concepts([GRAPES], base=sd, captions=CAPTIONS, output=tmp_path / "base").path
    alone = edit_concepts([GRAPES], base=sd, captions=CAPTIONS, output=tmp_path / "grapes.safetensors").path
    assert whole is not None
    assert alone is not None
    delta, base = read_concept(alone), BaseWeights(whole)
    assert all(torch.equal(delta.weights[name], base[name]) for name in base.key_values)
    assert delta.phrases == ("grapes",)


def test_sdxl_is_edited_with_both_encoders_and_the_report_names_the_pooled_text(sdxl: Path) -> None:
    edited = edit_concepts([GRAPES], base=sdxl, captions=CAPTIONS, rows="last")
    assert edited.report.width == 64
    assert any("pooled" in note for note in edited.report.notes)


def test_kept_rows_hold_words_bos_the_empty_prompt_and_some_padding(sd: Path) -> None:
    texts = TextRows(load_prompt_encoder(sd))
    kept = kept_rows(texts, [*CAPTIONS, "a bunch of Grapes"], sources=["grapes"])
    assert kept.left_out == ["a bunch of Grapes"]
    assert kept.captions == CAPTIONS
    words = sum(len(set(span)) for span in kept.spans)
    assert len(kept.rows) == words + 77 + NUM_PADDING * len(CAPTIONS)
    assert kept.weights[words] == len(CAPTIONS)


def test_pictures_of_others_are_compared_under_the_same_noise(sd: Path) -> None:
    edited = edit_concepts([GRAPES], base=sd, captions=CAPTIONS, pictures=2, others=["bicycle"], share=50.0)
    (report,) = edited.report.edits
    assert report.to_target is not None
    assert 0 < report.others_moved["bicycle"] < float("inf")
    assert any("pictures" in line for line in edited.report.lines())


def test_debias_moves_until_the_shares_are_met(sd: Path) -> None:
    rounds: list[list[str]] = []

    def classify(pictures: torch.Tensor, labels: Any) -> list[int]:
        rounds.append(list(labels))
        # all the first at first, then half and half
        return [0 if len(rounds) < 3 else k % 2 for k in range(len(pictures))]

    edits = [{"edit": "debias", "from": "doctor", "to": {"male": 0.5, "female": 0.5}}]
    edited = edit_concepts(edits, base=sd, captions=CAPTIONS, classifier=classify, rounds=7)
    assert rounds == [["male", "female"]] * 3
    assert [one["found"]["male"] for one in edited.report.rounds] == [1.0, 1.0, 0.5]
    assert edited.report.rounds[-1]["q"] == [-1.0, 1.0]
    assert edited.report.largest_change > 0


def test_command_debiases_by_an_open_clip_model(
    sd: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edits, out = tmp_path / "edits.json", tmp_path / "out.safetensors"
    edits.write_text(json.dumps([{"edit": "debias", "from": "doctor", "to": {"male": 0.25, "female": 0.75}}]))
    arguments = ["edit-concepts", edits, "--base", sd, "--num-captions", "2", "-o", out, "--rounds", "2"]
    assert command(*arguments) == 2
    assert "debias needs a classifier" in capsys.readouterr().err
    assert command(*arguments, "--clip", clip, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["round"] for one in report["rounds"]] == [0, 1]
    first, second = report["rounds"]
    assert sum(first["found"].values()) == pytest.approx(1)
    # ten pictures: the shares are tenths, never a quarter within 0.05, unless they are met exactly as asked
    moved = [0.25 - first["found"]["male"], 0.75 - first["found"]["female"]]
    assert second["q"] == pytest.approx(moved if max(map(abs, moved)) >= 0.05 else [0.0, 0.0])
    assert read_concept(out).phrases == ("doctor",)


def test_command_edits_in_templates_too(sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edits = tmp_path / "edits.json"
    edits.write_text(json.dumps([{"edit": "erase", "from": "cubism", "to": "photograph"}]))
    arguments = ["edit-concepts", edits, "--base", sd, "--num-captions", "2", "--json", "--rows", "last"]
    reports = []
    for number, more in enumerate(([], ["--expand", "art"], ["--expand", "object"])):
        assert command(*arguments, *more, "-o", tmp_path / f"{number}.safetensors") == 0
        reports.append(json.loads(capsys.readouterr().out)["edits"][0])
    # the bare text, and in five templates
    assert [report["num_rows"] for report in reports] == [1, 6, 6]
    weights = [read_concept(tmp_path / f"{number}.safetensors").weights for number in range(3)]
    name = next(iter(weights[0]))
    assert not torch.equal(weights[1][name], weights[2][name])
    assert command(*arguments, "--expand", "arts", "-o", tmp_path / "no.safetensors") == 2
    assert "no templates 'arts'" in capsys.readouterr().err


def test_shares_that_are_nearly_met_are_left_alone() -> None:
    q, wanted = torch.tensor([0.2, -0.2]), torch.tensor([0.5, 0.5])
    assert next_shares(q, wanted, torch.tensor([0.52, 0.48])) is q
    moved = next_shares(q, wanted, torch.tensor([0.9, 0.1]), step=0.5)
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.0]), atol=1e-7, rtol=0)


def test_a_chain_is_made_from_the_base_and_told(sd: Path) -> None:
    chain = [GRAPES, {"edit": "redirect", "from": "red apple", "to": "tree"}]
    assert any(
        "is edited too" in note for note in edit_concepts(chain, base=sd, captions=CAPTIONS[:1]).report.notes
    )


BAD = {
    "same row": ([{**GRAPES, "to": "Grapes"}], {}, "'grapes' and 'Grapes' are the same text row"),
    "contradiction": ([GRAPES, {**GRAPES, "to": "tree"}], {}, "two edits send 'grapes' to different places"),
    "twice": ([GRAPES, GRAPES], {}, "given twice"),
    "kept": ([GRAPES, {"edit": "keep", "text": "Grapes"}], {}, "'Grapes' is edited and kept"),
    "empty": ([{**GRAPES, "from": " "}], {}, "an empty text to change"),
    "too long": ([{**GRAPES, "from": "cat " * 90}], {}, "too long for an edit"),
    "verb": ([{**GRAPES, "edit": "redirekt"}], {}, "there is no edit 'redirekt'.*redirect"),
    "key": ([{**GRAPES, "strenght": 1}], {}, "an edit has no 'strenght'.*strength"),
    "no target": ([{"edit": "redirect", "from": "cat"}], {}, "has no target"),
    "soften": ([{**GRAPES, "edit": "soften", "strength": 1.5}], {}, r"outside \(0, 1\]"),
    "nan": (
        [{**GRAPES, "edit": "add", "strength": float("nan")}],
        {},
        "strength of the edit of 'grapes' is nan",
    ),
    "weight": ([{**GRAPES, "weight": 0}], {}, "weight of the edit of 'grapes' is 0"),
    "one attribute": (
        [{"edit": "debias", "from": "doctor", "to": {"male": 1.0}}],
        {},
        "needs two attributes",
    ),
    "shares": (
        [{"edit": "debias", "from": "doctor", "to": {"male": 0.5, "female": 0.6}}],
        {},
        "sum to 1.1",
    ),
    "no classifier": (
        [{"edit": "debias", "from": "doctor", "to": {"male": 0.5, "female": 0.5}}],
        {},
        "needs a classifier",
    ),
    "too many rows": ([GRAPES], {"form": "constraint"}, "75 rows cannot all be held in a width of 24.*ridge"),
    "form": ([GRAPES], {"form": "rigde"}, "form='rigde' is not known"),
    "rows": ([GRAPES], {"rows": "tails"}, "rows='tails' is not known"),
    "share": ([GRAPES], {"share": 0.0}, "cannot have the weight 0"),
    "expand": ([GRAPES], {"expand": "objects"}, "no templates 'objects'"),
    "nothing": ([{"edit": "keep", "text": "tree"}], {}, "nothing to edit"),
    "no list": ("grapes.json", {}, "the file of edits cannot be read"),
    "nobody watched": ([GRAPES], {"pictures": 2}, "pictures of which other texts"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_edits_are_refused_by_name(name: str, sd: Path, tmp_path: Path) -> None:
    edits, options, message = BAD[name]
    with pytest.raises(GenzooError, match=f"(?s){message}"):
        edit_concepts(edits, base=sd, **{"captions": CAPTIONS, **options}, output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_without_a_ridge_directions_that_nothing_holds_are_refused() -> None:
    C, P = torch.randn(2, 6, generator=torch.Generator().manual_seed(1)), torch.eye(6)[:3]
    with pytest.raises(UsageError, match="span 3 of 6 directions"):
        plan_edit(C, keep_factor(P, lamb=0.0))


def test_a_base_on_a_hub_cannot_be_copied(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)lies on a hub.*hf download owner/model"):
        edit_concepts([GRAPES], base="owner/model", output=tmp_path / "out")


WATCHED = ["bicycle", "tree", "house"]


def test_the_base_that_ships_is_redirected_and_names_among_the_sentences_hold_others_better() -> None:
    def moved(captions: list[str] | None) -> EditReport:
        base = "assets:text_to_image_emoji"
        edited = edit_concepts([GRAPES], base=base, captions=captions, pictures=4, others=WATCHED)
        return edited.report.edits[0]

    report, sentences = moved(None), moved(default_captions(300))
    assert report.residual < 0.2
    assert report.to_target is not None
    assert report.to_target < 0.1
    assert report.verdict.startswith("made; pictures of 'bicycle' move along")
    assert report.others_moved["tree"] < 0.4
    mean, before = (sum(one.others_moved.values()) / 3 for one in (report, sentences))
    assert mean < 0.52
    assert mean < 0.85 * before


def test_names_stand_among_the_sentences_that_are_kept() -> None:
    texts = names_and_sentences(2700)
    names = {concept["name"] for concept in load_concepts()}
    assert all((text in names) == (index % 2 == 0) for index, text in enumerate(texts))
    assert len(set(texts[:1338])) == 1338
    assert texts[1::2] == default_captions(2700)[1::2]
