"""Weights, chunks and weighted features of prompts, against those recorded from the web interfaces."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch
from golden.manifest import golden_root, read_golden

from genzoo.pretrained.clip_vocabulary import clip_tokenizer
from genzoo.pretrained.prompt_text import parse_weights
from genzoo.pretrained.text_features import tokenize_weighted, weighted_features

FOLDER = golden_root() / "concept_editing"


def cases(key: str) -> list[dict[str, Any]]:
    path = FOLDER / "prompts.json"
    return json.loads(path.read_text())[key] if path.is_file() else []


@pytest.mark.parametrize("number", range(len(cases("parses"))))
def test_weights_are_read_as_a1111_reads_them(number: int) -> None:
    case = cases("parses")[number]
    found = parse_weights(case["text"])
    assert [text for text, _ in found] == [text for text, _ in case["a1111"]]
    for (text, weight), (_, theirs) in zip(found, case["a1111"], strict=True):
        # inside a weighted group their mark of a new chunk becomes a word with a weight below 0: not copied
        assert weight == pytest.approx(-1.0 if text == "BREAK" else theirs, rel=1e-12)


@pytest.mark.parametrize("number", range(len(cases("chunks"))))
def test_long_prompts_are_cut_where_a1111_cuts_them(number: int) -> None:
    case = cases("chunks")[number]
    ids, weights = tokenize_weighted(clip_tokenizer(), [case["text"]], 77)
    runs = list(itertools.chain(*case["a1111"]["chunks"]))
    wanted = [(token, weight) for token, weight, count in runs for _ in range(count)]
    assert ids[0].tolist() == [token for token, _ in wanted]
    assert weights[0].tolist() == pytest.approx([weight for _, weight in wanted], rel=1e-6)


@pytest.mark.parametrize("number", range(len(cases("weighting"))))
def test_weighted_features_are_those_of_comfyui(number: int) -> None:
    case, tensors = cases("weighting")[number], read_golden(FOLDER / "prompt_weights.safetensors")
    hidden, weights = (tensors[f"{case['key']}/comfy_{name}"].double() for name in ("features", "weights"))
    empty = tensors["empty"].double().repeat(case["chunks"], 1)
    ours = weighted_features(hidden[None], weights[None], empty[None])[0]
    torch.testing.assert_close(ours, tensors[f"{case['key']}/comfyui"].double(), atol=1e-9, rtol=0)
    assert torch.equal(ours[weights == 1], hidden[weights == 1])
