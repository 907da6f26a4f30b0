"""What a run computes once: features of prompts without new words, moments of pictures that never change.

Each is computed alone and never within a batch, so that its value does not depend on what came before: a
resumed run, whose memory is empty, goes on bit for bit. With a shelf, what another run has computed is read
from its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genzoo.core.types import LatentCodec
from genzoo.families.custom_diffusion.training.shelf import Shelf, content
from genzoo.pretrained.text_features import TextFeatures, concatenate

MAX_PROMPTS, MAX_PICTURES = 4096, 8192


class RememberedText:
    """Features of prompts by their text, on the CPU.

    shelf: where they are kept, under the name that `encoder` gives the text encoders' weights.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], TextFeatures],
        limit: int = MAX_PROMPTS,
        *,
        shelf: Shelf | None = None,
        encoder: Callable[[], str] = str,
    ) -> None:
        self._encode, self._limit = encode, limit
        self._shelf, self._encoder = shelf, encoder
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
        found = self._computed(prompt) if self._shelf is None else self._shelved(prompt, self._shelf)
        if len(self._known) < self._limit:
            self._known[prompt] = found
        return found

    def _computed(self, prompt: str) -> TextFeatures:
        features = self._encode([prompt])
        pooled = None if features.pooled is None else features.pooled.cpu()
        return TextFeatures(features.hidden.cpu(), pooled)

    def _shelved(self, prompt: str, shelf: Shelf) -> TextFeatures:
        key = f"text|{self._encoder()}|{prompt}"
        stored = shelf.get(key)
        if stored is None:
            found = self._computed(prompt)
            stored = {"hidden": found.hidden} | ({} if found.pooled is None else {"pooled": found.pooled})
            shelf.put(key, stored)
        return TextFeatures(stored["hidden"], stored.get("pooled"))


class RememberedMoments:
    """Moments of pictures by a key that names their pixels, on the CPU. An empty key is not remembered.

    shelf: where they are kept, by the pixels themselves and the autoencoder.
    """

    def __init__(self, codec: LatentCodec, limit: int = MAX_PICTURES, *, shelf: Shelf | None = None) -> None:
        self._codec, self._limit, self._shelf = codec, limit, shelf
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
            moments = self._computed(pixels) if self._shelf is None else self._shelved(pixels, self._shelf)
            if len(self._known) >= self._limit:
                return moments
            self._known[key] = moments
        return self._known[key]

    def _computed(self, pixels: Tensor) -> Tensor:
        return self._codec.moments(pixels)[0].cpu()

    def _shelved(self, pixels: Tensor, shelf: Shelf) -> Tensor:
        key = f"moments|{self._codec.fingerprint}|{content(pixels)}"
        stored = shelf.get(key)
        if stored is None:
            stored = {"moments": self._computed(pixels)}
            shelf.put(key, stored)
        return stored["moments"]
