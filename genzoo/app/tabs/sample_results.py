"""Results of Sample: what was made, remembered for the visit, looked at and used again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from genzoo.app.page import archived
from genzoo.app.tabs.sample_form import Wish, command_of
from genzoo.app.text import plain

KEPT = 20  # results that a visit remembers
FEW_PIXELS = 96


def finished(
    source: str,
    path: str,
    place: Path,
    options: Mapping[str, Any],
    wish: Wish,
    done: Mapping[str, Any],
    history: list[dict[str, Any]],
) -> list[Any]:
    files = [Path(file) for file in done["files"]]
    number = history[-1]["number"] + 1 if history else 1
    title = _title(source, done["settings"], options)
    label = f"{number}. {title}"
    entry = {
        "number": number,
        "label": plain(label, longest=90),
        "source": source,
        "wish": asdict(wish),
        "files": [str(file) for file in files],
        "told": plain(" · ".join([title, *_said(options)])),
        "zip": str(_zipped(place, files)),
        "command": plain(command_of(path, options), longest=4000),
    }
    history = [*history, entry][-KEPT:]
    earlier = gr.Dropdown([one["label"] for one in history], value=entry["label"])
    rest = [
        history,
        gr.Column(visible=True),
        earlier,
        gr.DownloadButton(value=entry["zip"]),
        entry["command"],
    ]
    return [_pictures(entry), entry["told"], *rest, gr.Button(interactive=True), gr.Button(visible=False)]


def look_back(history: list[dict[str, Any]], label: Any) -> list[Any]:
    """An earlier result of the visit."""
    entry = next((one for one in history if one["label"] == label), None)
    if entry is None:
        return [gr.skip()] * 4
    return [_pictures(entry), entry["told"], gr.DownloadButton(value=entry["zip"]), entry["command"]]


def model_again(history: list[dict[str, Any]], label: Any) -> Any:
    """The model of an earlier result."""
    return next((one["source"] for one in history if one["label"] == label), gr.skip())


def settings_again(history: list[dict[str, Any]], label: Any) -> list[Any]:
    """The fields as they were for an earlier result."""
    entry = next((one for one in history if one["label"] == label), None)
    if entry is None:
        return [gr.skip()] * 10
    wish = Wish(**entry["wish"])
    fields = [wish.prompt, wish.negative, wish.classes, wish.strength, wish.num, wish.seed]
    return [wish.control, *fields, wish.steps, wish.guidance, wish.sampler]


def _pictures(entry: Mapping[str, Any]) -> Any:
    """Of a result; pictures of few pixels are shown with their pixels."""
    files = [Path(file) for file in entry["files"]]
    small = bool(files) and files[0].suffix == ".png" and _width(files[0]) < FEW_PIXELS
    shown = [(str(file), str(number)) for number, file in enumerate(files, 1)]
    return gr.Gallery(shown, elem_classes=["pixels"] if small else [])


def _width(file: Path) -> int:
    with Image.open(file, formats=("PNG",)) as picture:
        return picture.width


def _said(options: Mapping[str, Any]) -> list[str]:
    """Settings as one would say them."""
    words = {
        "num": "{} picture" if options.get("num") == 1 else "{} pictures",
        "seed": "seed {}",
        "steps": "{} steps",
        "guidance_scale": "guidance {:g}",
    }
    words |= {"control_scale": "strength {:g}", "sampler": "sampler {}", "negative_prompt": "without {}"}
    return [words[name].format(value) for name, value in options.items() if name in words]


def _title(source: str, settings: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    classes = ", ".join(map(str, (settings.get("classes") or {}).values()))
    return str(options.get("prompt") or classes or source)


def _zipped(place: Path, files: list[Path]) -> Path:
    more = [path for path in (place / "samples.json", place / "grid.png") if path.is_file()]
    return archived(place / "pictures.zip", place, [*files, *more])
