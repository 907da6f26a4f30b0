"""Rebuild the emoji pack (emoji/*.webp and emoji/meta.json) from three npm packages.

    npm pack @iconify-json/noto@1.2.9 @iconify-json/fluent-emoji-flat@1.2.6 @lobehub/fluent-emoji-3d@1.1.0
    pip install resvg-py
    python -m genzoo.assets.build_emoji FOLDER_WITH_THE_THREE_TGZ

A concept is in the pack when all three sets draw it. Left out: skin tones, and the categories Flags and
Symbols (the 3D package has flags of unknown origin). Names and categories are those of the Noto package.
Drawings are rendered at 64 x 64 on white and laid out in the order of their code points, 32 in a row; each
style is one WebP file, quality 90.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

SIZE, COLUMNS = 64, 32
PACKAGES = {
    "noto": "iconify-json-noto-1.2.9.tgz",
    "fluent_flat": "iconify-json-fluent-emoji-flat-1.2.6.tgz",
    "fluent_3d": "lobehub-fluent-emoji-3d-1.1.0.tgz",
}
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
LEFT_OUT = {"Flags", "Symbols"}


def build(packages: Path, output: Path) -> None:
    """Write three atlases and meta.json."""
    noto, flat, solid = (read_package(packages / name) for name in PACKAGES.values())
    names, flat_names = json.loads(noto["chars.json"]), json.loads(flat["chars.json"])
    drawings = sorted((path for path in solid if path.startswith("assets/")), key=len, reverse=True)
    solid_files = {
        plain(path[7:-5]): path for path in drawings
    }  # of two for one concept, the shorter name wins
    concepts = list(choose(names, flat_names, solid_files, json.loads(noto["metadata.json"])["categories"]))
    codes = [concept["code"] for concept in concepts]
    noto_icons, flat_icons = json.loads(noto["icons.json"]), json.loads(flat["icons.json"])
    output.mkdir(parents=True, exist_ok=True)
    save_atlas(output / "noto_64.webp", (render(noto_icons, names[code]) for code in codes), len(codes))
    save_atlas(output / "fluent_flat_64.webp", (render(flat_icons, flat_names[c]) for c in codes), len(codes))
    save_atlas(output / "fluent_3d_64.webp", (shrink(solid[solid_files[c]]) for c in codes), len(codes))
    (output / "meta.json").write_text(json.dumps(concepts), encoding="utf-8")


def read_package(path: Path) -> dict[str, bytes]:
    """The files of an npm package by name; nothing is unpacked to disk."""
    with tarfile.open(path) as archive:
        members = [member for member in archive if member.isfile()]
        return {m.name.removeprefix("package/"): archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]


def plain(code: str) -> str:
    """A code point sequence without the variation selector, which the sets use differently."""
    return "-".join(part for part in code.split("-") if part != "fe0f")


def choose(
    names: dict[str, str], flat: dict[str, str], solid: dict[str, str], categories: dict[str, list[str]]
) -> Iterator[dict[str, str]]:
    """The concepts of the pack as {"code", "name", "category"}, by code."""
    category_of = {name: category for category, members in categories.items() for name in members}
    for code in sorted(names.keys() & flat.keys() & solid.keys()):
        category = category_of.get(names[code])
        if category is not None and category not in LEFT_OUT and not SKIN_TONES & set(code.split("-")):
            yield {"code": code, "name": names[code].replace("-", " "), "category": category}


def render(icons: dict[str, Any], name: str) -> Image.Image:
    """An icon of an iconify set as SIZE x SIZE pixels on white."""
    import resvg_py  # type: ignore[import-not-found,unused-ignore]

    icon = icons["icons"].get(name) or icons["icons"][icons["aliases"][name]["parent"]]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = (
        f'<svg {space} width="{width}" height="{height}" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE))
    return on_white(Image.open(io.BytesIO(png)))


def shrink(data: bytes) -> Image.Image:
    """A drawing of the 3D set as SIZE x SIZE pixels on white."""
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    return on_white(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def on_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", rgba.size, "white")
    canvas.paste(rgba, mask=rgba)
    return canvas


def save_atlas(path: Path, images: Iterator[Image.Image], count: int) -> None:
    """Lay images out row by row; unused cells stay white."""
    atlas = Image.new("RGB", (COLUMNS * SIZE, -(-count // COLUMNS) * SIZE), "white")
    for i, image in enumerate(images):
        atlas.paste(image, (i % COLUMNS * SIZE, i // COLUMNS * SIZE))
    atlas.save(path, quality=90, method=6)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("packages", type=Path, help="folder with the three .tgz files")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("emoji"))
    arguments = parser.parse_args()
    build(arguments.packages, arguments.output)
