"""How far colours are apart as seen: CIE L*a*b* of sRGB, and the difference formula CIEDE2000."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# sRGB (IEC 61966-2-1) to XYZ, relative to the white D65
TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
WHITE = (0.95047, 1.0, 1.08883)
LINEAR_BELOW = (6 / 29) ** 3
CHROMA_PIVOT = 25.0**7


def lab(pixels: Tensor) -> Tensor:
    """CIE L*a*b* under D65, (b, 3, h, w) float64.   pixels: sRGB (b, 3, h, w) in [-1, 1]."""
    rgb = (pixels.double() + 1) / 2
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp_min(0) + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("xc,bchw->bxhw", linear.new_tensor(TO_XYZ), linear)
    ratio = xyz / xyz.new_tensor(WHITE)[:, None, None]
    root = torch.where(
        ratio > LINEAR_BELOW, ratio.clamp_min(0) ** (1 / 3), ratio * (29 / 6) ** 2 / 3 + 4 / 29
    )
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def ciede2000(one: Tensor, other: Tensor) -> Tensor:
    """CIEDE2000 of L*a*b* colours (b, 3, *), shape (b, *); about 1 is just visible.

    Sharma, Wu and Dalal, "The CIEDE2000 Color-Difference Formula", 2005; all weights 1.
    """
    (l_1, a_1, b_1), (l_2, a_2, b_2) = one.double().unbind(1), other.double().unbind(1)
    stretch = 1 + _pull((torch.hypot(a_1, b_1) + torch.hypot(a_2, b_2)) / 2) / 2
    (c_1, h_1), (c_2, h_2) = _polar(a_1 * stretch, b_1), _polar(a_2 * stretch, b_2)
    lightness, chroma = (l_1 + l_2) / 2, (c_1 + c_2) / 2
    turn, hue = _hues(h_1, h_2, grey=c_1 * c_2 == 0)
    t = 1 - 0.17 * _cos(hue - 30) + 0.24 * _cos(2 * hue) + 0.32 * _cos(3 * hue + 6) - 0.2 * _cos(4 * hue - 63)
    squared = (lightness - 50) ** 2
    d_l = (l_2 - l_1) / (1 + 0.015 * squared / (20 + squared).sqrt())
    d_c = (c_2 - c_1) / (1 + 0.045 * chroma)
    d_h = 2 * (c_1 * c_2).sqrt() * torch.sin(torch.deg2rad(turn) / 2) / (1 + 0.015 * chroma * t)
    angle = 60 * torch.exp(-(((hue - 275) / 25) ** 2))
    rotation = -2 * (1 - _pull(chroma)) * torch.sin(torch.deg2rad(angle))
    return (d_l**2 + d_c**2 + d_h**2 + rotation * d_c * d_h).clamp_min(0).sqrt()


def _pull(chroma: Tensor) -> Tensor:
    """1 for greys, falling to 0 for saturated colours."""
    power = chroma**7
    return 1 - (power / (power + CHROMA_PIVOT)).sqrt()


def _polar(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Chroma, and hue in degrees from 0 to 360."""
    return torch.hypot(a, b), torch.rad2deg(torch.atan2(b, a)) % 360


def _hues(h_1: Tensor, h_2: Tensor, *, grey: Tensor) -> tuple[Tensor, Tensor]:
    """The shorter turn from one hue to the other, and the hue between them; a grey has none of its own."""
    turn = (h_2 - h_1 + 180) % 360 - 180
    turn = torch.where((h_2 - h_1) == 180, -turn, turn)
    total, far = h_1 + h_2, (h_1 - h_2).abs() > 180
    between = torch.where(far, torch.where(total < 360, total + 360, total - 360), total) / 2
    return torch.where(grey, torch.zeros_like(turn), turn), torch.where(grey, total, between)


def _cos(degrees: Tensor) -> Tensor:
    return torch.cos(degrees * (math.pi / 180))
