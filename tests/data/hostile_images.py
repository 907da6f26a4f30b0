"""Pictures nobody wants: a corpus of odd and hostile image files, and one of odd but good ones."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def photo(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    """A smooth coloured picture: red grows to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 // (width - 1), y * 255 // (height - 1)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 90)], -1).astype(np.uint8)).convert(mode)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG put together by hand, so that headers may lie."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = b"".join(extra) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def bad_bytes() -> dict[str, bytes]:
    """Name -> bytes that must be refused."""
    jpeg, png_file, webp = (encode(photo(), form) for form in ("JPEG", "PNG", "WEBP"))
    text_bomb = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80 * 1024**2)))
    return {
        "empty.png": b"",
        "one_byte.jpg": b"\xff",
        "text.jpg": b"this is not a picture\n" * 9,
        "page.png": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "zeros.webp": bytes(4096),
        "script.jpg": b"#!/bin/sh\necho hello\n",
        "pickle.png": b"\x80\x04\x95\x1f" + bytes(7) + b"\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "zip.jpg": b"PK\x03\x04" + bytes(60),
        "pdf.png": b"%PDF-1.7\n" + bytes(60),
        "eps.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "gif_renamed.png": encode(photo(mode="P"), "GIF"),
        "bmp_renamed.jpg": encode(photo(), "BMP"),
        "tiff_renamed.png": encode(photo(), "TIFF"),
        "ico_renamed.png": encode(photo(48, 48), "ICO"),
        "truncated_half.jpg": jpeg[: len(jpeg) // 2],
        "truncated_end.jpg": jpeg[:-40],
        "truncated_header.jpg": jpeg[:20],
        "truncated_half.png": png_file[: len(png_file) // 2],
        "truncated_header.png": png_file[:30],
        "truncated_half.webp": webp[: len(webp) // 2],
        "truncated_header.webp": webp[:14],
        "signature_only.png": b"\x89PNG\r\n\x1a\n",
        "bomb.png": png(20000, 20000, 1, 0, b"\0" * 2501),
        "bomb_warning_range.png": png(10000, 10000, 1, 0, b"\0" * 1251),
        "bomb_huge.png": png(2**31 - 1, 2**31 - 1, 8, 2, b""),
        "bomb_text.png": png(9, 9, 8, 2, (b"\0" + bytes(27)) * 9, text_bomb),
        "zero_size.png": png(0, 9, 8, 2, b""),
        "bad_crc.png": png_file.replace(b"IHDR", b"IHDX", 1),
        "bad_depth.png": png(9, 9, 7, 2, b"\0" * 300),
        "not_zlib.png": png_file[:33] + png_chunk(b"IDAT", b"garbage") + png_chunk(b"IEND", b""),
        "long_strip.png": png(1_000_000, 1, 8, 0, b"\0" + bytes(1_000_000)),
    }


def write_bad(folder: Path, outside: Path) -> list[Path]:
    """All bad files under `folder`, with the ones that only a file system can make."""
    for name, data in bad_bytes().items():
        (folder / name).write_bytes(data)
    outside.write_bytes(encode(photo(), "PNG"))
    (folder / "link_out.png").symlink_to(outside)
    (folder / "link_relative_out.png").symlink_to(os.path.relpath(outside, folder))
    (folder / "link_to_passwd.png").symlink_to("/etc/passwd")
    (folder / "link_to_nowhere.png").symlink_to(folder / "nowhere.png")
    (folder / "link_to_itself.png").symlink_to(folder / "link_to_itself.png")
    (folder / "link_to_device.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    names = [*bad_bytes(), *(f"link_{to}.png" for to in ("out", "relative_out", "to_passwd", "to_nowhere"))]
    return [folder / name for name in [*names, "link_to_itself.png", "link_to_device.png", "pipe.png"]]


def good_files() -> dict[str, bytes]:
    """Name -> bytes of odd pictures that must decode."""
    image = photo()
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = image.quantize(16)
    grey16 = np.linspace(0, 65535, 60 * 40).reshape(40, 60).astype(np.uint16)
    return {
        "plain.jpg": encode(image, "JPEG"),
        "progressive.jpg": encode(image, "JPEG", progressive=True),
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG"),
        "grey.jpg": encode(image.convert("L"), "JPEG"),
        "turned.jpg": encode(image, "JPEG", exif=exif),
        "broken_exif.jpg": encode(image, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "png_in_disguise.jpg": encode(image, "PNG"),
        "SHOUTING.PNG": encode(image, "PNG"),
        "palette.png": encode(palette, "PNG"),
        "palette_transparent.png": encode(palette, "PNG", transparency=0),
        "bilevel.png": encode(image.convert("1"), "PNG"),
        "alpha.png": encode(image.convert("RGBA"), "PNG"),
        "grey_alpha.png": encode(image.convert("LA"), "PNG"),
        "sixteen.png": encode(Image.fromarray(grey16), "PNG"),
        "interlaced_text.png": encode(image, "PNG", pnginfo=None, dpi=(7, 7)),
        "alpha.webp": encode(image.convert("RGBA"), "WEBP"),
        "lossless.webp": encode(image, "WEBP", lossless=True),
        "one_pixel.png": encode(photo(2, 2).crop((0, 0, 1, 1)), "PNG"),
        "trailing_bytes.jpg": encode(image, "JPEG") + b"appended",
    }
