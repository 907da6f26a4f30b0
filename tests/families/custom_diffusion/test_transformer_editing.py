"""Edits of bases with a transformer: whole folders in, whole folders out, with text as their pipelines read
it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.transformer_bases import BASES, Bases, build_transformer_base
from torch import Tensor

from genzoo.cli import main
from genzoo.core.errors import GenzooError, UsageError
from genzoo.families.custom_diffusion.edit.attention_models import Text, text_rows
from genzoo.families.custom_diffusion.edit.concepts import edit_concepts
from genzoo.families.custom_diffusion.edit.text_models import TransformerTexts
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.pretrained.pipeline_text import PipelineText

CAPTIONS = ["a bicycle by the sea", "photo of a tree", "an old house with snow"]
GRAPES = {"edit": "redirect", "from": "grapes", "to": "red apple"}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return Bases(tmp_path_factory.mktemp("bases"), build_transformer_base)


def painter(base: Path) -> Any:
    """The whole transformer as diffusers loads it."""
    import diffusers

    kind = json.loads((base / "transformer" / "config.json").read_text())["_class_name"]
    return getattr(diffusers, kind).from_pretrained(base, subfolder="transformer").double().eval()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def own_tail(base: Path, model: Any, text: str, count: int | None = None) -> dict[str, list[Tensor]]:
    """Rows of a text's last token and what follows it, by projection, from the whole model; for each of its
    sequences.
    """
    parts = PipelineText(base).read(text)
    rows = text_rows(model, Text(tuple(part.rows.double() for part in parts)))
    found = {}
    for name, every in rows.items():
        pieces = every.split([len(part.rows) for part in parts])
        found[name] = [piece[len(piece) - 1 - part.ends :] for piece, part in zip(pieces, parts, strict=True)]
    return found


@pytest.mark.parametrize("name", BASES)
def test_rows_go_to_the_target_in_the_model_that_was_written(
    name: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    base, out = bases[name], tmp_path / "out"
    before = contents(base)
    edited = edit_concepts([GRAPES], base=base, captions=CAPTIONS, share=20.0, output=out)
    assert contents(base) == before
    written = contents(out)
    changed = {path for path in written if written[path] != before.get(path)}
    assert changed == {"edits.json", "edits.txt", "transformer/diffusion_pytorch_model.safetensors"}
    old, new = painter(base), painter(out)
    c, g = own_tail(base, old, "grapes"), own_tail(base, old, "red apple")
    left, needed = 0.0, 0.0
    for projection in c:
        source, goal = torch.cat(c[projection]), torch.cat(g[projection])
        W_0 = old.get_submodule(projection).weight
        W = new.get_submodule(projection).weight
        left += float((source @ W.T - goal @ W_0.T).detach().square().sum())
        needed += float((source @ W_0.T - goal @ W_0.T).detach().square().sum())
    (report,) = edited.report.edits
    assert report.residual == pytest.approx((left / needed) ** 0.5, rel=1e-3)
    assert report.residual < 0.35
    assert edited.report.num_matrices == len(c)


def test_padding_that_pictures_look_at_is_kept(bases: dict[str, Path]) -> None:
    for name, count in (("hunyuan", 77 + 256), ("wan", 1), ("pixart", 0)):
        base = bases[name]
        texts = TransformerTexts(base, BaseWeights(base).files)
        kept = texts.kept(CAPTIONS, ["grapes"])
        assert (0 if texts.padding is None else len(texts.padding)) == count
        if count:
            assert texts.padding is not None
            assert torch.equal(kept.rows[-count:], texts.padding)
            assert kept.weights[-1] == len(CAPTIONS)


def test_layers_with_norms_of_their_own_are_solved_apart(bases: dict[str, Path]) -> None:
    texts = TransformerTexts(bases["lumina"], BaseWeights(bases["lumina"]).files)
    groups = texts.groups(BaseWeights(bases["lumina"]).key_values)
    assert [len(group.names) for group in groups] == [2, 2]
    rows = torch.randn(3, 12, dtype=torch.float64)
    assert not torch.allclose(groups[0](rows), groups[1](rows))
    shared = TransformerTexts(bases["sana"], BaseWeights(bases["sana"]).files)
    assert len(shared.groups(BaseWeights(bases["sana"]).key_values)) == 1


def test_texts_of_different_length_are_paired_at_their_ends(bases: dict[str, Path]) -> None:
    # T5: one token a byte, then an end; Gemma: a beginning, and no end
    for name, ends in (("pixart", True), ("lumina", False)):
        texts = TransformerTexts(bases[name], BaseWeights(bases[name]).files)
        source, target = texts.paired(["pot", "cup of tea"], "tail")
        assert len(source) == len(target) == 1 + ends
        (whole,) = texts.sequences(texts.encoder.read("cup of tea"))
        assert torch.equal(target, whole[-1 - ends :])
        first, last = texts.paired(["cup of tea", "pot"], "all")
        assert len(first) == len(last) == 10 + 1
        assert torch.equal(last[0], last[1])
        assert len(texts.paired(["pot", "cup"], "last")[0]) == 1


def test_keys_and_values_alone_are_a_file(bases: dict[str, Path], tmp_path: Path) -> None:
    path = edit_concepts(
        [GRAPES], base=bases["sana"], captions=CAPTIONS, output=tmp_path / "grapes.safetensors"
    ).path
    assert path is not None
    delta = read_concept(path)
    assert sorted(delta.weights) == sorted(BaseWeights(bases["sana"]).key_values)


def test_command_edits_an_edited_base_again(
    bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    edits = tmp_path / "edits.json"
    edits.write_text(json.dumps([{"edit": "soften", "from": "grapes", "to": "tree", "strength": 0.5}]))
    for base, out in ((bases["pixart"], first), (first, second)):
        with pytest.raises(SystemExit) as ended:
            main(["edit-concepts", str(edits), "--base", str(base), "--num-captions", "3", "-o", str(out)])
        assert not ended.value.code
    assert "soften 'grapes'" in capsys.readouterr().out
    names = BaseWeights(first).key_values
    assert any(not torch.equal(BaseWeights(first)[name], BaseWeights(second)[name]) for name in names)


def test_what_cannot_be_done_there_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases["pixart"]
    with pytest.raises(UsageError, match="pictures would sample the base"):
        edit_concepts([GRAPES], base=base, captions=CAPTIONS, pictures=2, others=["tree"])
    debias = {"edit": "debias", "from": "doctor", "to": {"male": 0.5, "female": 0.5}}
    with pytest.raises(UsageError, match="debias would sample the base"):
        edit_concepts([debias], base=base, captions=CAPTIONS, classifier=lambda pictures, labels: [0])
    with pytest.raises(UsageError, match="too long for an edit"):
        edit_concepts([{**GRAPES, "from": "g" * 200}], base=base, captions=CAPTIONS)
    with pytest.raises(UsageError, match="are the same text row"):
        edit_concepts([{**GRAPES, "to": "grapes"}], base=base, captions=CAPTIONS)


@pytest.mark.parametrize(
    "kind", ["SD3Transformer2DModel", "FluxTransformer2DModel", "QwenImageTransformer2DModel"]
)
def test_bases_whose_text_meets_the_picture_are_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"_class_name": kind}))
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(GenzooError, match=f"change with the picture in {kind}"):
        edit_concepts([GRAPES], base=tmp_path, captions=CAPTIONS)


def test_a_transformer_without_its_weights_or_pipeline_is_named(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "cut"
    shutil.copytree(bases["pixart"], folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "SomePipeline"}))
    with pytest.raises(UsageError, match="nothing is known about how SomePipeline reads text"):
        edit_concepts([GRAPES], base=folder, captions=CAPTIONS)
    (folder / "model_index.json").write_text(json.dumps(index))
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(GenzooError, match="cannot read the base's text encoders"):
        edit_concepts([GRAPES], base=folder, captions=CAPTIONS)
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(GenzooError, match="no transformer/diffusion_pytorch_model"):
        edit_concepts([GRAPES], base=folder, captions=CAPTIONS)
