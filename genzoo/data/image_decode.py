"""Files to pictures, for files nobody has looked at: whatever is wrong is a DataError with name and reason.

Only JPEG, PNG and WebP decoders run, whatever the extension says; a file is decoded to its last byte,
because headers of truncated files look fine; sizes are limited before memory is used. Pictures come out as a
viewer shows them: EXIF rotation applied, transparency on white, 16 bits scaled (not clipped) to 8. The
transparent colour of a PNG is compared with the samples as they are stored, at every bit depth. Colour
profiles are not applied, and of an animation the first picture is taken. A JPEG with flipped bits, or a
PNG with too few rows, that still decodes cannot be told from a good one.
"""

from __future__ import annotations

import io
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from genzoo.core.errors import DataError
from genzoo.core.reading import reason, shown

FORMATS = ("JPEG", "PNG", "WEBP")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
MAX_PIXELS = 89_478_485  # where Pillow begins to warn of decompression bombs: 256 MiB as RGB
MAX_BYTES = 512 * 1024**2
ORIENTATION = 0x0112  # EXIF tag
TURNED, ON_WHITE, SCALED = "turned upright", "laid on white", "scaled from 16 bits"
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(
    path: Path, *, root: Path | None = None, channels: int = 3, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """The picture in a file, mode "RGB" (channels 3) or "L" (channels 1).

    root: resolved folder that the file must lie in after following links; None allows any place.
    """
    return decode_image(
        read_file(path, root=root), where=shown(path), channels=channels, max_pixels=max_pixels
    )


def read_file(path: Path, *, root: Path | None = None, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file that lies under `root`; never opens pipes or devices."""
    where = shown(path)
    try:
        if root is not None and not path.resolve(strict=True).is_relative_to(root):
            raise DataError(
                "this file is a link that leads out of the data folder",
                where=where,
                fix="copy the file in, or allow links with data.follow_links=true",
            )
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError("this is not a regular file", where=where)
        if not 0 < status.st_size <= max_bytes:
            raise DataError(f"the file has {status.st_size} bytes; 1 to {max_bytes} are allowed", where=where)
        return path.read_bytes()
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # ValueError: NUL in a name; RuntimeError: loop of links
        if isinstance(error, DataError):
            raise
        raise DataError("this file cannot be read", where=where, why=reason(error)) from error


def decode_image(data: bytes, *, where: str, channels: int = 3, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in these bytes, mode "RGB" or "L"; `where` names them in errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF, odd palettes: judged by the result; bombs: below
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise DataError(
                        f"the picture has {width} x {height} pixels; at most {max_pixels} are allowed",
                        where=where,
                        fix="make it smaller, or allow more with data.max_pixels",
                    )
                image.load()
                return _upright(_flatten(image, data), image).convert("RGB" if channels == 3 else "L")
    except DataError:
        raise
    except UnidentifiedImageError as error:
        is_one = data.startswith(SIGNATURES) or data[8:12] == b"WEBP"
        raise DataError(
            "this picture is damaged" if is_one else "this is not a JPEG, PNG or WebP picture",
            where=where,
            why=f"it begins with {data[:12]!r}",
        ) from error
    except Exception as error:  # hostile bytes make decoders raise nearly anything
        raise DataError("this picture cannot be decoded", where=where, why=reason(error)) from error


def changes_of(data: bytes) -> list[str]:
    """What decoding does to these bytes beyond decoding; looks at headers, and says nothing of bad files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.format == "PNG" and "exif" not in image.info and b"eXIf" in data:
                    image.load()  # it may stand behind the pixels
                turned = image.format != "PNG" or "exif" in image.info
                clear = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
                deep = image.format == "PNG" and data[24] == 16
                found = {TURNED: turned and image.getexif().get(ORIENTATION, 1) in _TURN}
                return [name for name, is_so in {**found, ON_WHITE: clear, SCALED: deep}.items() if is_so]
    except Exception:  # hostile bytes make decoders raise nearly anything; whoever decodes them says so
        return []


def _flatten(image: Image.Image, data: bytes) -> Image.Image:
    """8-bit picture without transparency, which is laid on white."""
    key = image.info.get("transparency")
    if image.format == "PNG" and key is not None and image.mode != "P":
        return _on_white(image, key, data)
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if key is not None or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    grey = np.clip((values + 128) // 257, 0, 255).astype(np.uint8)  # 65535 / 255 = 257, rounded
    return Image.fromarray(grey)


def _on_white(image: Image.Image, key: int | tuple[int, ...], data: bytes) -> Image.Image:
    """A grey or RGB PNG with one transparent colour, `key`, which is given at the depth that is stored."""
    depth = data[24]  # of the header, always the first chunk of a PNG
    mask = 2**depth - 1
    if image.mode.startswith("I"):
        values, picture = np.asarray(image), np.array(_from_16_bits(image))
    elif depth == 16:
        values, picture = _sixteen_bit_colours(data), np.array(image)
    else:  # fewer than 8 bits of grey come out scaled to 255, and of one bit, the key too
        picture = np.array(image.convert("L") if image.mode == "1" else image)
        values = picture // (255 // mask)
        key = int(key != 0) if image.mode == "1" else key
    hidden = values == np.bitwise_and(key, mask)
    picture[hidden if hidden.ndim == 2 else hidden.all(-1)] = 255
    return Image.fromarray(picture)


def _sixteen_bit_colours(data: bytes) -> np.ndarray:
    """(h, w, 3) of a 16-bit RGB PNG. Pillow keeps 8 bits of each sample: the upper ones, then the lower."""
    halves = []
    for order in ("RGB;16B", "RGB;16L"):
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.tile = [part._replace(args=order) for part in image.tile]
            halves.append(np.asarray(image).astype(np.int64))
    return halves[0] * 256 + halves[1]


def _upright(picture: Image.Image, source: Image.Image) -> Image.Image:
    try:
        turn = _TURN.get(source.getexif().get(ORIENTATION, 1))
    except (
        Exception
    ):  # a damaged EXIF block says nothing about orientation; viewers show the picture as stored
        turn = None
    return picture if turn is None else picture.transpose(turn)
