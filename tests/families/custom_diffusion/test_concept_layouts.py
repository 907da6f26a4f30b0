"""Files of concepts: every layout there and back, compression, and what a layout cannot hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from families.custom_diffusion.tiny_bases import make_concept
from safetensors.torch import load_file

from genzoo.cli import main
from genzoo.core.errors import UsageError, WeightsError
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights, fingerprint
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.files.write_layouts import LAYOUTS, write_concept


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
