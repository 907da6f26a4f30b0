"""What a run computes once: features of prompts without new words, moments of pictures that never change.

Each is computed alone and never within a batch, so that its value does not depend on what came before: a
resumed run, whose memory is empty, goes on bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genzoo.core.types import LatentCodec
from genzoo.pretrained.text_features import TextFeatures, concatenate

MAX_PROMPTS, MAX_PICTURES = 4096, 8192


class RememberedText:
    """Features of prompts by their text, on the CPU."""

    def __init__(self, encode: Callable[[Sequence[str]], TextFeatures], limit: int = MAX_PROMPTS) -> None:
        self._encode, self._limit = encode, limit
        self._known: dict[str, TextFeatures] = {}

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], like: Tensor, *, chunks: int = 1) -> TextFeatures:
        """One row per prompt, on the device and in the dtype of `like`; all as long as `chunks` readings,
        filled up with those of the empty prompt.
        """
        rows = [self._one(prompt) for prompt in prompts]
        if chunks > 1:
            empty = self._one("").hidden
            rows = [one.padded(chunks * empty.shape[1], empty) for one in rows]
        return concatenate(rows).to(like)

    def _one(self, prompt: str) -> TextFeatures:
        if prompt in self._known:
            return self._known[prompt]
        features = self._encode([prompt])
        pooled = None if features.pooled is None else features.pooled.cpu()
        found = TextFeatures(features.hidden.cpu(), pooled)
        if len(self._known) < self._limit:
            self._known[prompt] = found
        return found


class RememberedMoments:
    """Moments of pictures by a key that names their pixels, on the CPU. An empty key is not remembered."""

    def __init__(self, codec: LatentCodec, limit: int = MAX_PICTURES) -> None:
        self._codec, self._limit = codec, limit
        self._known: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._known)

    @torch.no_grad()
    def __call__(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """(b, 2c, h, w) of pixels (b, 3, H, W)."""
        fresh = [index for index, key in enumerate(keys) if not key]
        rows: dict[int, Tensor] = {}
        if fresh:
            rows.update(zip(fresh, self._codec.moments(pixels[fresh]), strict=True))
        for index, key in enumerate(keys):
            if key:
                rows[index] = self._one(pixels[index : index + 1], key).to(pixels.device)
        return torch.stack([rows[index].to(pixels.device) for index in range(len(keys))])

    def _one(self, pixels: Tensor, key: str) -> Tensor:
        if key not in self._known:
            moments = self._codec.moments(pixels)[0].cpu()
            if len(self._known) >= self._limit:
                return moments
            self._known[key] = moments
        return self._known[key]
