"""What every registered codec keeps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from contract_cases import streams
from smallest import Workshop
from torch import Tensor

from genzoo.core.registry import CODECS

every_codec = pytest.mark.parametrize("name", list(CODECS))


@pytest.fixture(scope="module")
def made(workshop: Workshop) -> Callable[[str], Any]:
    return cache(lambda name: workshop.build(CODECS, name))


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@every_codec
def test_latents_have_the_shape_that_is_told_and_decode_to_pixels(
    made: Callable[[str], Any], pixels: Tensor, name: str
) -> None:
    codec = made(name)
    latents = codec.encode(pixels, streams(0, 1))
    assert tuple(latents.shape) == (2, *codec.latent_shape((3, 8, 8)))
    assert latents.dtype == torch.float32
    decoded = codec.decode(latents)
    assert decoded.shape == pixels.shape
    assert torch.isfinite(decoded).all()


@every_codec
def test_encoding_is_sampling_the_moments_that_a_cache_stores(
    made: Callable[[str], Any], pixels: Tensor, name: str
) -> None:
    codec = made(name)
    stored = codec.moments(pixels)
    assert torch.equal(codec.sample_moments(stored, streams(0, 1)), codec.encode(pixels, streams(0, 1)))


@every_codec
def test_latents_depend_on_their_own_picture_and_stream(
    made: Callable[[str], Any], pixels: Tensor, name: str
) -> None:
    codec, before = made(name), torch.random.get_rng_state()
    other = torch.cat([pixels[:1], -pixels[1:]])
    first, second = codec.encode(pixels, streams(0, 1)), codec.encode(other, streams(0, 2))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was used"


@every_codec
def test_codecs_are_known_by_fingerprints(made: Callable[[str], Any], workshop: Workshop, name: str) -> None:
    codec = made(name)
    assert isinstance(codec.fingerprint, str)
    assert codec.fingerprint == workshop.build(CODECS, name).fingerprint
    assert codec.fingerprint not in {made(other).fingerprint for other in CODECS if other != name}


@every_codec
def test_nothing_of_a_codec_is_trained(made: Callable[[str], Any], pixels: Tensor, name: str) -> None:
    codec = made(name)
    assert not codec.encode(pixels, streams(0, 1)).requires_grad
    codec.to("cpu", torch.float32)
    assert codec.decode(codec.encode(pixels, streams(0, 1))).dtype == torch.float32
