"""Below Teach: concepts merged with a strength each, a heat map of how they disturb each other; export."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr
from PIL import Image, ImageDraw, ImageFont

from genzoo.app.page import PRIVATE, QUIET, Page, a_choice, a_number, a_text, archived, complain, note, texts
from genzoo.app.text import plain
from genzoo.core.claims import is_name
from genzoo.core.errors import GenzooError, UsageError

OWN_NAME = "concept.safetensors"
MOST = 4  # concepts in one merge
CLIENTS = ("comfyui", "a1111", "invoke", "diffusers", "peft")
LIGHT, DARK = (236, 244, 243), (15, 118, 110)
CELL, MARGIN = 88, 150


def merge_form(page: Page, blocks: gr.Blocks) -> None:
    """Build both parts."""
    with gr.Accordion("Merge what was taught", open=False, elem_id="merge") as merging:
        concepts = gr.CheckboxGroup(
            [], label="Concepts", info="Two to four of one model", elem_id="merge-concepts"
        )
        sliders = [
            gr.Slider(0, 1.5, value=1, step=0.05, label=f"Strength {n + 1}", visible=False)
            for n in range(MOST)
        ]
        base = gr.Dropdown(_bases(page), value=next((v for _, v in _bases(page)), None), label="Their model")
        name = gr.Textbox(
            "",
            label="Name of the merged one",
            placeholder="cat-and-chair",
            max_length=100,
            elem_id="merge-name",
        )
        merge = gr.Button("Merge", elem_id="merge-begin")
        heat = gr.Image(
            label="How much each column disturbs each row",
            interactive=False,
            visible=False,
            buttons=["download", "fullscreen"],
            elem_id="merge-heat",
        )
        said = note("", "merge-said", most=10)
    with gr.Accordion("Use it in another program", open=False, elem_id="export") as exporting:
        source = gr.Dropdown([], label="Concept", elem_id="export-source")
        client = gr.Dropdown(list(CLIENTS), value=CLIENTS[0], label="Program")
        export = gr.Button("Write its files", elem_id="export-begin")
        archive = gr.File(label="Its files", interactive=False, visible=False, elem_id="export-file")
        how = note("", "export-how", most=12)
    for when in (blocks.load, merging.expand, exporting.expand):
        when(partial(listed, page), None, [concepts, source], **QUIET)
    concepts.change(strengths_of, concepts, sliders, **QUIET)
    merged = merge.click(
        partial(merge_chosen, page), [concepts, base, name, *sliders], [heat, said], **PRIVATE
    )
    merged.then(partial(listed, page), None, [concepts, source], **QUIET)
    export.click(partial(export_chosen, page), [source, client], [archive, how], **PRIVATE)


def listed(page: Page) -> list[Any]:
    """The files of concepts that are there now."""
    found = [(plain(name, longest=100), name) for name in page.library.concepts()]
    return [gr.CheckboxGroup(found), gr.Dropdown(found, value=found[0][1] if found else None)]


def strengths_of(chosen: Any) -> list[Any]:
    """A slider for each ticked concept, under its name."""
    names = texts(chosen)
    return [
        gr.Slider(
            visible=n < len(names),
            label=f"Strength of {plain(names[n], longest=60)}" if n < len(names) else "",
        )
        for n in range(MOST)
    ]


def merge_chosen(page: Page, chosen: Any, base: Any, name: Any, *strengths: Any) -> list[Any]:
    """Merge into a new file of the page's folder; the heat map and what it means."""
    known = page.library.concepts()
    try:
        ticked = [a_choice(one, known, "concept") for one in texts(chosen)]
        if not 2 <= len(ticked) <= MOST:
            raise UsageError(f"tick two to {MOST} concepts")
        called = a_text(name, "the name", longest=100).strip()
        if not is_name(called):
            raise UsageError("the merged concept has no name yet", fix="one word without slashes")
        target = page.library.folder / f"{called.removesuffix('.safetensors')}.safetensors"
        if target.exists():
            raise UsageError(f"there is something called {called} already", fix="choose another name")
        numbers = [a_number(one, "a strength", 0, 5, whole=False) for one in strengths[: len(ticked)]]
        paths = [str(known[one]) for one in ticked]
        found = page.worker.ask(
            "merge", concepts=paths, strengths=numbers, base=page.library.base(base), output=str(target)
        )
    except GenzooError as error:
        complain(error)
        return [gr.skip(), plain(error.what, longest=600)]
    lines = [f"{label}: {verdict}" for label, verdict in zip(found["labels"], found["verdicts"], strict=True)]
    lines += [f"{old} is called {new} in the merged one" for old, new in found["renamed"].items()]
    text = plain(
        "\n".join([f"Written: {target.name}. Try it in the tab Sample.", *lines]), longest=2000, lines=True
    )
    return [gr.Image(heat_map(found["interference"], found["labels"]), visible=True), text]


def export_chosen(page: Page, source: Any, client: Any) -> list[Any]:
    """A concept's files for another program, in one archive, and where they go."""
    known = page.library.concepts()
    try:
        source, client = a_choice(source, known, "concept"), a_choice(client, CLIENTS, "program")
        path = known[source]
        # what a training leaves is called by its run
        stem = path.parent.name if path.name == OWN_NAME else path.stem
        folder = page.new_place() / stem
        found = page.worker.ask("export", source=str(path), client=client, output=str(folder))
        archive = archived(folder.with_name(f"{stem}-{client}.zip"), folder, found["files"])
    except GenzooError as error:
        complain(error)
        return [gr.skip(), plain(error.what, longest=600)]
    return [gr.File(str(archive), visible=True), plain("\n".join(found["lines"]), longest=3000, lines=True)]


def heat_map(values: list[list[float]], labels: list[str]) -> Image.Image:
    """Interference as squares, 0 light and 1 dark, with the numbers written in them."""
    count = len(labels)
    picture = Image.new("RGB", (MARGIN + count * CELL + 8, 40 + count * CELL), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=14)
    for row in range(count):
        draw.text((6, 40 + row * CELL + CELL / 2 - 8), _short(labels[row], 18), fill="black", font=font)
        draw.text((MARGIN + row * CELL + 4, 14), _short(labels[row], 10), fill="black", font=font)
        for column in range(count):
            share = min(1.0, max(0.0, values[row][column]))
            colour = tuple(round(a + (b - a) * share) for a, b in zip(LIGHT, DARK, strict=True))
            left, top = MARGIN + column * CELL, 40 + row * CELL
            draw.rectangle((left, top, left + CELL - 4, top + CELL - 4), fill=colour)
            ink = "white" if share > 0.5 else "black"
            draw.text(
                (left + CELL / 2 - 16, top + CELL / 2 - 10), f"{values[row][column]:.2f}", fill=ink, font=font
            )
    return picture


def _short(text: str, letters: int) -> str:
    shown = plain(text)
    return shown if len(shown) <= letters else f"{shown[: letters - 1]}…"


def _bases(page: Page) -> list[tuple[str, str]]:
    return [(plain(label, longest=100), name) for name, label in page.library.bases().items()]
