"""Every kind of PNG with transparency and without comes out as it looks, plain and interlaced."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hostile_images import png_chunk

from genzoo.data.image_decode import decode_image

HEIGHT, WIDTH = 9, 11
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
KINDS = [(colour, depth) for colour, depths in DEPTHS.items() for depth in depths]
KEYED = [kind for kind in KINDS if kind[0] in (GREY, RGB)]
# first column, first row, and steps between columns and rows of the seven passes
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def samples(colour: int, depth: int) -> np.ndarray:
    """(h, w, c) stored values with both ends of the range, and neighbours that differ in the lowest bit."""
    random = np.random.default_rng(depth + 16 * colour)
    values = random.integers(0, 2**depth, (HEIGHT, WIDTH, CHANNELS[colour]))
    values[0, :2], values[1, 0] = 0, 2**depth - 1
    values[2, 3] = values[2, 2] ^ 1
    return values


def png(values: np.ndarray, colour: int, depth: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, int(interlaced))
    parts = [values[y::dy, x::dx] for x, y, dx, dy in PASSES] if interlaced else [values]
    rows = b"".join(b"\0" + packed(row, depth) for part in parts if part.size for row in part)
    body = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body) + png_chunk(b"IEND", b"")


def packed(row: np.ndarray, depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = (row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def shown(values: np.ndarray, depth: int) -> np.ndarray:
    """(h, w, 3) levels 0..255, not rounded."""
    levels = values * 255.0 / (2**depth - 1)
    return np.repeat(levels, 3, -1) if values.shape[-1] < 3 else levels[..., :3]


def read(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data, where="x")).astype(float)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("key", [(2, 2), (0, 0), (1, 0)])  # in the middle, black, and white
@pytest.mark.parametrize(("colour", "depth"), KEYED)
def test_the_transparent_colour_is_compared_as_it_is_stored(
    colour: int, depth: int, key: tuple[int, int], interlaced: bool
) -> None:
    values = samples(colour, depth)
    chosen = values[key]
    chunk = png_chunk(b"tRNS", chosen.astype(">u2").tobytes())
    expected = shown(values, depth)
    expected[(values == chosen).all(-1)] = 255
    found = read(png(values, colour, depth, chunk, interlaced=interlaced))
    assert np.abs(found - expected).max() <= 1
    assert (found[(values == chosen).all(-1)] == 255).all()


# of a one-bit key Pillow keeps only whether it is 0
@pytest.mark.parametrize(("colour", "depth"), [kind for kind in KEYED if 1 < kind[1] < 16])
def test_bits_of_the_transparent_colour_beyond_the_depth_do_not_count(colour: int, depth: int) -> None:
    values = samples(colour, depth)
    plain, high = (
        png(values, colour, depth, png_chunk(b"tRNS", (values[2, 2] + more).astype(">u2").tobytes()))
        for more in (0, 2**15)
    )
    assert np.array_equal(read(plain), read(high))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "depth"), [kind for kind in KINDS if kind[0] not in (PALETTE,)])
def test_depths_are_scaled_and_alpha_is_laid_on_white(colour: int, depth: int, interlaced: bool) -> None:
    values = samples(colour, depth)
    expected = shown(values[..., :1] if colour == GREY_ALPHA else values, depth)
    if colour in (GREY_ALPHA, RGBA):
        alpha = values[..., -1:] / (2**depth - 1)
        expected = expected * alpha + 255 * (1 - alpha)
    assert np.abs(read(png(values, colour, depth, interlaced=interlaced)) - expected).max() <= 2


@pytest.mark.parametrize("alpha", ["none", "first", "short", "all"])
@pytest.mark.parametrize("depth", DEPTHS[PALETTE])
def test_palettes_show_their_colours_on_white(depth: int, alpha: str) -> None:
    values, size = samples(PALETTE, depth), 2**depth
    colours = np.random.default_rng(depth).integers(0, 256, (size, 3))
    opaque = np.full(size, 255)
    stored = {
        "none": opaque[:0],
        "first": np.array([0]),
        "short": np.array([128, 7])[: size - 1],
        "all": np.random.default_rng(9).integers(0, 256, size),
    }[alpha]
    opaque[: len(stored)] = stored
    chunks = [png_chunk(b"PLTE", colours.astype(np.uint8).tobytes())]
    chunks += [png_chunk(b"tRNS", stored.astype(np.uint8).tobytes())] if len(stored) else []
    share = opaque[values] / 255
    expected = colours[values[..., 0]] * share + 255 * (1 - share)
    assert np.abs(read(png(values, PALETTE, depth, *chunks)) - expected).max() <= 1
