"""Concepts end to end on tiny random bases of the shapes of Stable Diffusion and SDXL."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families.custom_diffusion.tiny_bases import make_concept
from safetensors.torch import load_file, save_file
from torch import Tensor

import genzoo
from genzoo.cli import main
from genzoo.core.errors import CheckpointError, GenzooError, NonFiniteError, UsageError, WeightsError
from genzoo.families.custom_diffusion.apply import apply_concept
from genzoo.families.custom_diffusion.base import BaseWeights, fingerprint
from genzoo.families.custom_diffusion.captions import default_captions, regularisation_rows
from genzoo.families.custom_diffusion.delta import ConceptDelta
from genzoo.families.custom_diffusion.export import LAYOUTS, write_concept
from genzoo.families.custom_diffusion.foreign import read_concept
from genzoo.families.custom_diffusion.merging import merge_concepts
from genzoo.pretrained.prompts import load_prompt_encoder

CAPTIONS = default_captions(60)


@pytest.fixture
def concepts(sd: Path, tmp_path: Path) -> list[Path]:
    """A cat with a token, a pot with a token, and a gate without."""
    made = [
        make_concept(sd, 1, token="<new1>", phrase="<new1> cat"),
        make_concept(sd, 2, token="<new2>", phrase="<new2> wooden pot"),
        make_concept(sd, 3, token=None, phrase="moongate"),
    ]
    return [write_concept(delta, tmp_path / f"{k}.safetensors") for k, delta in enumerate(made)]


@pytest.fixture
def pipeline(sd: Path) -> Any:
    """What `apply_concept` needs of a pipeline."""
    return tiny_pipeline(sd, ("",))


def tiny_pipeline(base: Path, suffixes: tuple[str, ...]) -> Any:
    from diffusers import UNet2DConditionModel

    encoder = load_prompt_encoder(base)
    parts: dict[str, Any] = {"unet": UNet2DConditionModel.from_pretrained(base / "unet").eval()}
    for suffix, tokenizer, model in zip(suffixes, encoder.tokenizers, encoder.models, strict=True):
        parts |= {f"tokenizer{suffix}": tokenizer, f"text_encoder{suffix}": model}
    return SimpleNamespace(**parts)


@torch.no_grad()
def output(unet: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    latents, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 6, 24, generator=generator)
    return unet(latents, torch.tensor([3, 700]), text).sample


def trained(pipeline: Any, concept: ConceptDelta) -> Tensor:
    """The output of the base with the concept's matrices in place, written by hand."""
    state = pipeline.unet.state_dict()
    before = {name: state[name].clone() for name in concept.weights}
    pipeline.unet.load_state_dict({**state, **concept.weights})
    result = output(pipeline.unet)
    pipeline.unet.load_state_dict({**pipeline.unet.state_dict(), **before})
    return result


def target_values(base: Path, concept: ConceptDelta, prompt: str) -> dict[str, Tensor]:
    """Keys and values of a prompt's own words under a concept's weights and tokens."""
    encoder = load_prompt_encoder(base)
    encoder.add_tokens(concept.tokens)
    rows = encoder.encode([prompt])[0].rows[1:]
    return {name: rows @ weight.T for name, weight in concept.weights.items()}


# --- merging


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
    with pytest.raises(OSError, match="No space"):
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


# --- bad input


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


# --- formats


def same_concept(one: ConceptDelta, other: ConceptDelta, tolerance: float = 0.0) -> None:
    assert set(one.weights) == set(other.weights)
    for name, weight in one.weights.items():
        torch.testing.assert_close(other.weights[name], weight, atol=tolerance, rtol=0)
    assert list(one.tokens) == list(other.tokens)
    for token, rows in one.tokens.items():
        assert all(torch.equal(a, b) for a, b in zip(rows, other.tokens[token], strict=True))


@pytest.mark.parametrize("layout", ["genzoo", "official", "compvis", "diffusers"])
def test_layouts_round_trip(sd: Path, tmp_path: Path, layout: str) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    same_concept(concept, read_concept(write_concept(concept, tmp_path / "file", layout=layout)))


@pytest.mark.parametrize("layout", ["genzoo", "official", "compvis"])
def test_compressed_concepts_are_recognised_and_expand(sd: Path, tmp_path: Path, layout: str) -> None:
    base = dict(BaseWeights(sd))
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    small = concept.compressed(base, rank=2)
    found = read_concept(write_concept(small, tmp_path / "file", layout=layout))
    assert set(found.factors) == set(concept.weights)
    assert not found.weights
    # the change has rank 2, so nothing is lost
    same_concept(concept, found.expanded(base), 1e-5)


def test_compression_keeps_what_crosses_the_share(sd: Path) -> None:
    base = dict(BaseWeights(sd))
    concept = make_concept(sd, 1, token=None, phrase="moongate")
    for name, (u, v) in concept.compressed(base, keep=0.01).factors.items():
        assert u.shape[1] == v.shape[0] == 1, name
    for measure in ("sum", "energy"):
        small = concept.compressed(base, keep=0.9, measure=measure).expanded(base)
        for name, weight in concept.weights.items():
            change = (weight - base[name]).norm()
            assert (small.weights[name] - weight).norm() < 0.5 * change, name


def test_own_file_says_where_it_comes_from(sd: Path, tmp_path: Path) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    found = read_concept(write_concept(concept, tmp_path / "c.safetensors", dtype=torch.float16))
    assert (found.base_model, found.base_fingerprint, found.phrases) == (
        "sd",
        concept.base_fingerprint,
        ("<new1> cat",),
    )
    assert {weight.dtype for weight in found.weights.values()} == {torch.float16}


def test_fingerprint_survives_half_precision(sd: Path) -> None:
    base = dict(BaseWeights(sd))
    assert fingerprint({name: value.half() for name, value in base.items()}) == fingerprint(base)
    name = next(name for name in base if name.endswith("to_k.weight"))
    assert fingerprint({**base, name: base[name] * 1.01}) != fingerprint(base)


def test_applying_equals_the_trained_model_and_undoes(sd: Path, pipeline: Any) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    base_output, expected = output(pipeline.unet), trained(pipeline, concept)
    applied = apply_concept(concept, pipeline)
    assert torch.equal(output(pipeline.unet), expected)
    assert not torch.allclose(expected, base_output)
    token_id = pipeline.tokenizer.convert_tokens_to_ids("<new1>")
    assert torch.equal(
        pipeline.text_encoder.get_input_embeddings().weight[token_id], concept.tokens["<new1>"][0]
    )
    with pytest.raises(WeightsError, match="knows the word"):
        apply_concept(concept, pipeline, any_base=True)
    applied.undo()
    assert torch.equal(output(pipeline.unet), base_output)


def test_applying_what_has_no_effect_is_an_error(sd: Path, pipeline: Any) -> None:
    base_weights = dict(BaseWeights(sd))
    same = make_concept(sd, 1, token="<new1>", phrase="<new1> cat", size=0)
    with pytest.raises(WeightsError, match="did not change what the model computes"):
        apply_concept(same, pipeline)
    assert len(pipeline.tokenizer) == 49408
    assert all(torch.equal(pipeline.unet.state_dict()[name], value) for name, value in base_weights.items())


def test_applying_to_another_base_is_refused(sd: Path, pipeline: Any) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    with torch.no_grad():
        pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight.mul_(1.5)
    with pytest.raises(WeightsError, match="another base model"):
        apply_concept(concept, pipeline)


def diffusers_pipeline(sd: Path) -> Any:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline

    parts = tiny_pipeline(sd, ("",))
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.mark.parametrize("layout", ["lora", "kohya"])
def test_diffusers_loads_the_exported_lora_and_tokens(sd: Path, tmp_path: Path, layout: str) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    pipe = diffusers_pipeline(sd)
    base_output, expected = output(pipe.unet), trained(pipe, concept)
    folder = write_concept(concept, tmp_path / layout, layout=layout, base=BaseWeights(sd))
    name = "pytorch_lora_weights.safetensors" if layout == "lora" else "lora.safetensors"
    pipe.load_lora_weights(folder, weight_name=name)
    torch.testing.assert_close(output(pipe.unet), expected, atol=1e-5, rtol=0)
    assert (expected - base_output).abs().max() > 1e-3
    inversion = "<new1>.safetensors" if layout == "lora" else "new1.safetensors"
    pipe.load_textual_inversion(folder, weight_name=inversion, token="<new1>")
    token_id = pipe.tokenizer.convert_tokens_to_ids("<new1>")
    row = pipe.text_encoder.get_input_embeddings().weight[token_id]
    assert torch.equal(row, concept.tokens["<new1>"][0])


def test_diffusers_loads_the_exported_processors(sd: Path, tmp_path: Path) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    pipe = diffusers_pipeline(sd)
    expected = trained(pipe, concept)
    folder = write_concept(concept, tmp_path / "files", layout="diffusers")
    pipe.unet.load_attn_procs(folder, weight_name="pytorch_custom_diffusion_weights.bin", _pipeline=pipe)
    torch.testing.assert_close(output(pipe.unet), expected, atol=1e-5, rtol=0)


def test_sdxl_tokens_are_exported_for_both_encoders(sdxl: Path, tmp_path: Path) -> None:
    concept = make_concept(sdxl, 1, token="<new1>", phrase="<new1> cat")
    folder = write_concept(concept, tmp_path / "kohya", layout="kohya", base=BaseWeights(sdxl))
    tokens = load_file(folder / "new1.safetensors")
    assert {name: tuple(value.shape) for name, value in tokens.items()} == {
        "clip_l": (1, 24),
        "clip_g": (1, 40),
    }
    same_concept(concept, read_concept(write_concept(concept, tmp_path / "delta.bin", layout="official")))


def test_what_a_layout_cannot_hold_is_refused(sd: Path, tmp_path: Path) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    bias = next(iter(concept.weights)).replace("to_k.weight", "to_out.0.bias")
    more = dataclasses.replace(concept, weights={**concept.weights, bias: torch.ones(16)})
    with pytest.raises(WeightsError, match="biases"):
        write_concept(more, tmp_path / "x", layout="lora", base=BaseWeights(sd))
    with pytest.raises(UsageError, match="stores differences"):
        write_concept(concept, tmp_path / "x", layout="kohya")
    with pytest.raises(UsageError, match="did you mean 'kohya'"):
        write_concept(concept, tmp_path / "x", layout="koya")
    assert not list(tmp_path.iterdir())
    assert set(LAYOUTS) == {"genzoo", "official", "compvis", "diffusers", "lora", "kohya"}


def test_command_converts_and_compresses(sd: Path, concepts: list[Path], tmp_path: Path) -> None:
    given = ["convert-concept", str(concepts[0]), "--base", str(sd)]
    for options in (
        ["--to", "kohya", "-o", str(tmp_path / "web")],
        ["--compress", "0.9", "-o", str(tmp_path / "s")],
    ):
        with pytest.raises(SystemExit) as ended:
            main([*given, *options])
        assert not ended.value.code
    assert sorted(path.name for path in (tmp_path / "web").iterdir()) == [
        "lora.safetensors",
        "new1.safetensors",
    ]
    assert read_concept(tmp_path / "s").factors
    with pytest.raises(SystemExit) as ended:
        main(["convert-concept", str(concepts[0]), "--compress", "0.9", "-o", str(tmp_path / "t")])
    assert ended.value.code == 2


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
