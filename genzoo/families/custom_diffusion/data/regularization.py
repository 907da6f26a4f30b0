"""Regularisation pictures in the official folder layout: from a folder, generated, or out of a collection.

OUTPUT/images/  images.txt (absolute paths)  caption.txt  urls.txt  scores.json
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genzoo.core.errors import DataError, UsageError
from genzoo.core.files import write_folder
from genzoo.core.seeds import SampleStreams
from genzoo.data.captioned import CAPTIONS, IMAGE_LIST, IMAGES, read_collection
from genzoo.data.image_decode import read_file
from genzoo.families.custom_diffusion.data.collection import select, similarities
from genzoo.families.custom_diffusion.data.pictures import URLS, folder_pictures
from genzoo.pretrained.clip import Clip

logger = logging.getLogger(__name__)
THRESHOLD = 0.85  # of the paper
SAMPLER = {"name": "ddim", "steps": 50, "eta": 1.0, "guidance_scale": 6.0}
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Made:
    """One picture for the folder."""

    name: str
    content: bytes
    caption: str
    url: str
    score: float | None = None


def from_folder(source: str | Path, output: str | Path, *, class_name: str, num: int | None = None) -> Path:
    """Copies of a folder's pictures under the class's name. Raises DataError when there are too few."""
    pictures = folder_pictures(Path(source).expanduser())
    _require(len(pictures), num, "the folder")
    paths = [pictures.path(index) for index in range(len(pictures))]
    made = [
        Made(f"{index:06d}{path.suffix.lower()}", read_file(path), class_name, path.resolve().as_uri())
        for index, path in enumerate(paths[:num])
    ]
    return write_layout(output, made, {"source": "folder"})


def generated(
    base: str | Path,
    output: str | Path,
    *,
    class_name: str,
    num: int = 200,
    prompt: str = "photo of a {}",
    seed: int = 0,
    batch_size: int = 4,
    device: str = "cpu",
    sampler: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Pictures that the base model itself paints of the class. prompt: {} stands for the class."""
    from genzoo.diffusion.prompted import sample_prompts, schedule_from
    from genzoo.families.custom_diffusion.data.pictures import to_image
    from genzoo.pretrained.text_to_image import load_parts

    _check_output(output)
    text = prompt.replace("{}", class_name)
    parts = load_parts(base)
    parts.to(device)
    diffusion, chosen = schedule_from(parts.scheduler), {**SAMPLER, **(sampler or {})}
    made: list[Made] = []
    for start in range(0, num, batch_size):
        # always a full batch: a picture then depends on the seed and on its index alone
        streams = SampleStreams.from_seeds(seed, "sample", positions=range(start, start + batch_size))
        pixels = sample_prompts(parts, diffusion, [text] * batch_size, streams, sampler=chosen)
        for index, picture in enumerate(pixels[: num - start], start):
            content = io.BytesIO()
            to_image(picture.cpu()).save(content, format="JPEG", quality=95)
            name = f"{index}-{hashlib.sha1(content.getvalue(), usedforsecurity=False).hexdigest()}.jpg"
            made.append(Made(name, content.getvalue(), text, f"generated:seed={seed},index={index}"))
        if progress is not None:
            progress(len(made), num)
    return write_layout(output, made, {"source": "generated", "sampler": chosen, "seed": seed})


def retrieved(
    collection: str | Path,
    output: str | Path,
    *,
    class_name: str,
    encoder: Clip,
    num: int = 200,
    held_out: int = 0,
    threshold: float = THRESHOLD,
    relax: bool = False,
    min_size: int = 256,
    cache: str | Path | None = None,
) -> Path:
    """Real pictures whose captions are nearest to the class in open_clip's text features.

    held_out: further ones in OUTPUT/held_out, to measure forgetting with; no picture is in both.   threshold:
    least cosine to the class's name or "photo of a {name}"; the paper's holds for its own encoder.   relax:
    take the nearest ones below it too where there are too few. Raises DataError.
    """
    _check_output(output)
    pictures = read_collection(collection)
    queries = [class_name, f"photo of a {class_name}"]
    place = Path(cache) if cache is not None else None
    scores = similarities(encoder, [one.caption for one in pictures], queries, cache=place)
    wanted = num + held_out
    found = select(pictures, scores, num=wanted, threshold=None if relax else threshold, min_size=min_size)
    if len(found.chosen) < wanted:
        raise DataError(
            f"the collection has {len(found.chosen)} fitting pictures of {class_name!r}, not {wanted}",
            where=str(collection),
            why=f"{found.num_similar} of {len(pictures)} captions are nearer than {threshold}; "
            f"{found.num_unreadable} unreadable, {found.num_small} too small, {found.num_repeated} repeated",
            fix="a larger collection, a lower --threshold, or --relax to take the nearest ones",
        )
    lowest = min((score for _, score in found.chosen), default=1.0)
    if lowest <= threshold:
        logger.warning("similarity had to go down to %.3f, below the threshold %.3f", lowest, threshold)
    made = [
        Made(f"{i:06d}{one.path.suffix.lower()}", content, one.caption, one.url or one.path.as_uri(), score)
        for i, ((one, score), content) in enumerate(zip(found.chosen, found.contents, strict=True))
    ]
    about = {"source": "collection", "encoder": encoder.tag, "threshold": threshold, "lowest": lowest}
    path = write_layout(output, made[:num], about)
    if held_out:
        write_layout(path / "held_out", made[num:], about)
    return path


def write_layout(output: str | Path, pictures: Sequence[Made], about: Mapping[str, Any]) -> Path:
    """The whole folder or none."""
    target = Path(output).expanduser().resolve()
    paths = [target / IMAGES / one.name for one in pictures]
    scores = {one.name: one.score for one in pictures if one.score is not None}
    files = {f"{IMAGES}/{one.name}": one.content for one in pictures}
    for name, lines in (
        (IMAGE_LIST, map(str, paths)),
        (CAPTIONS, (" ".join(one.caption.split()) for one in pictures)),
        (URLS, (one.url for one in pictures)),
    ):
        files[name] = "".join(f"{line}\n" for line in lines).encode()
    files["scores.json"] = (json.dumps({**about, "scores": scores}, indent=2) + "\n").encode()
    return write_folder(target, files)


def _check_output(output: str | Path) -> None:
    if Path(output).expanduser().exists():
        raise UsageError(f"{output} exists already", fix="name another output, or remove it")


def _require(found: int, num: int | None, what: str) -> None:
    if num is not None and found < num:
        raise DataError(f"{what} has {found} pictures, not {num}", fix=f"--num {found}, or add pictures")
