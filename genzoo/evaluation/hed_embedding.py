"""Figure 5 of CAR: HED features of originals, of samples under their controls and without, in one plane."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import interpolate

from genzoo.core.errors import UsageError
from genzoo.core.files import write_file
from genzoo.evaluation.controlled_samples import as_seen, controlled_samples
from genzoo.evaluation.measures.tsne import tsne
from genzoo.pretrained.hed import HED, MULTIPLE, load_hed

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import MeasuredRun

SIDE, MARGIN, LEGEND = 420, 12, 30
COLOURS = {"originals": "#8a8a8a", "under control": "#2c7a5b", "without control": "#c8843c"}
STYLE = """text{fill:#222;font:12px ui-sans-serif,system-ui,sans-serif}
@media(prefers-color-scheme:dark){text{fill:#eee}}"""


def hed_embedding(
    run: MeasuredRun,
    *,
    num: int = 64,
    classes: str = "unseen",
    seed: int = 0,
    guidance_scale: float | None = None,
    size: int = 256,
    perplexity: float = 30.0,
    weights: str | None = None,
) -> dict[str, Any]:
    """Sample under the controls of `num` pictures and without; lay HED's features of all in a plane (t-SNE).

    The paper states neither layer nor pooling: here the 512 channels before the last side output, averaged
    over the picture at `size` pixels. Pairs share label and seed.   weights: HED's, as of the control `hed`.
    Returns mean feature distances of samples from their own originals, under control and without; of either
    kind the share that is nearer to an original than to the other kind; and samples/hed_embedding.svg, whose
    distances between groups mean nothing.
    """
    if size < MULTIPLE or size % MULTIPLE:
        raise UsageError(f"size is {size}", fix=f"HED looks at multiples of {MULTIPLE}")
    options: dict[str, Any] = {"seed": seed}
    options |= {} if guidance_scale is None else {"guidance_scale": guidance_scale}
    network = load_hed(weights)
    made = controlled_samples(run, num=num, classes=classes, options=options)
    pictures = dict(zip(COLOURS, (made.pictures, made.samples.pixels, made.without.pixels), strict=True))
    groups = {name: hed_features(network, as_seen(part), size=size) for name, part in pictures.items()}
    path = run.folder / "samples" / "hed_embedding.svg"
    plane = tsne(torch.cat(list(groups.values())), perplexity=perplexity, seed=seed)
    write_file(path, scatter(dict(zip(groups, plane.split(num), strict=True))))
    return {**agreement(groups), "num": num, "size": size, "classes": made.classes, "picture": str(path)}


@torch.no_grad()
def hed_features(network: HED, pixels: Tensor, *, size: int, block: int = 8) -> Tensor:
    """(n, 3, h, w) in [-1, 1] -> (n, 512): the last stage at `size` x `size` pixels, averaged."""
    parts = []
    for part in pixels.float().split(block):
        seen = interpolate(part, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(
            -1, 1
        )
        parts.append(network.last_stage((seen + 1) * 127.5).mean((2, 3)))
    return torch.cat(parts)


def agreement(groups: Mapping[str, Tensor]) -> dict[str, float]:
    """Distances of pairs, and the share of originals next to each kind of sample."""
    originals, under, without = (groups[name].double() for name in COLOURS)
    return {
        "distance": (under - originals).norm(dim=1).mean().item(),
        "distance_uncontrolled": (without - originals).norm(dim=1).mean().item(),
        "next_to_originals": _share_next(under, originals, without),
        "next_to_originals_uncontrolled": _share_next(without, originals, under),
    }


def _share_next(group: Tensor, originals: Tensor, others: Tensor) -> float:
    near = torch.cdist(group, originals).amin(1), torch.cdist(group, others).amin(1)
    return (near[0] < near[1]).double().mean().item()


def scatter(groups: Mapping[str, Tensor]) -> str:
    """Positions (n, 2) of each group as dots of its colour: SVG for light and dark pages."""
    everything = torch.cat(list(groups.values()))
    low, reach = everything.amin(0), (everything.amax(0) - everything.amin(0)).clamp_min(1e-12)
    size = f'viewBox="0 0 {SIDE} {SIDE + LEGEND}" width="{SIDE}" height="{SIDE + LEGEND}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        "<title>t-SNE of HED features: distances between groups mean nothing</title>",
        f"<style>{STYLE}</style>",
    ]
    for number, (name, points) in enumerate(groups.items()):
        x = MARGIN + number * (SIDE - MARGIN) // len(groups)
        places = MARGIN + (points - low) / reach * (SIDE - 2 * MARGIN)
        dots = "".join(f"M{a:.0f} {b:.0f}h0" for a, b in places.tolist())
        pen = f'stroke="{COLOURS[name]}" stroke-width="7" stroke-linecap="round" stroke-opacity=".75"'
        parts.append(f'<path {pen} d="{dots}"/><path {pen} d="M{x} {SIDE + 14}h0"/>')
        parts.append(f'<text x="{x + 10}" y="{SIDE + 18}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])
