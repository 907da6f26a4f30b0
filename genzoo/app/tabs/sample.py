"""Sample: choose a model, say what to show, look at pictures, vary and keep them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import gradio as gr

from genzoo.app.page import PRIVATE, QUIET, Page, complain, note
from genzoo.app.tabs.sample_form import MOST_SEED, Wish, options_of
from genzoo.app.tabs.sample_results import finished, look_back, model_again, settings_again
from genzoo.app.text import plain
from genzoo.core.errors import GenzooError, UsageError

FIRST = "Choose a model and press Make pictures. What you make appears here, with its settings."
CANVAS = 256


def sample_tab(page: Page, blocks: gr.Blocks) -> None:
    """Build the tab."""
    form, history, control = gr.State(None), gr.State([]), gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=320, elem_classes="form-column"):
            source = gr.Dropdown(
                _sources(page),
                value=None,
                label="Model",
                info="A run, a file of weights or a taught concept",
                interactive=False,  # until the first one is chosen, which would undo what somebody chose
                elem_id="sample-model",
            )
            about = note("Looking for models …", "sample-about")
            prompt = gr.Textbox(
                label="Prompt",
                lines=2,
                max_length=2000,
                placeholder="what the picture shows",
                visible=False,
                elem_id="sample-prompt",
            )
            classes = gr.Dropdown(
                [],
                label="Class",
                info="Several in turn; every class when left empty",
                multiselect=True,
                visible=False,
                elem_id="sample-class",
            )
            with gr.Group(visible=False) as controlled:
                photo = gr.Image(
                    label="Follow this photograph",
                    type="filepath",
                    sources=["upload", "clipboard"],
                    height=220,
                    elem_id="sample-photo",
                )
                with gr.Accordion("Or draw", open=False):
                    canvas = gr.Sketchpad(
                        label="Take the brush: dark lines on white",
                        type="pil",
                        image_mode="L",
                        canvas_size=(CANVAS, CANVAS),
                        fixed_canvas=True,
                        brush=gr.Brush(colors=["#000000"], default_size=6),
                        layers=False,
                        elem_id="sample-canvas",
                    )
                    use_drawing = gr.Button("Use the drawing", size="sm")
                seen = gr.Image(
                    label="What the model follows",
                    interactive=False,
                    height=160,
                    visible=False,
                    buttons=["fullscreen"],
                    elem_id="sample-control",
                )
                strength = gr.Slider(
                    0, 2, value=1, step=0.05, label="Strength", info="0 ignores it, 1 as trained"
                )
            num = gr.Slider(1, 16, value=4, step=1, label="Pictures")
            seed = gr.Number(
                value=0,
                precision=0,
                minimum=0,
                maximum=MOST_SEED,
                label="Seed",
                info="The same seed gives the same pictures",
            )
            with gr.Accordion("More settings", open=False):
                negative = gr.Textbox(
                    label="Avoid", max_length=2000, visible=False, info="What the pictures should not show"
                )
                guidance = gr.Slider(
                    0,
                    20,
                    value=4,
                    step=0.05,
                    label="Guidance",
                    info="How strictly to follow what you ask for",
                    visible=False,
                )
                steps = gr.Slider(
                    1, 250, value=50, step=1, label="Steps", info="More are slower and finer", visible=False
                )
                sampler = gr.Dropdown([], label="Sampler", visible=False)
            with gr.Row():
                make = gr.Button("Make pictures", variant="primary", elem_id="sample-make")
                again = gr.Button("Another seed", elem_id="sample-again")
                stop = gr.Button("Stop", visible=False, elem_id="sample-stop")
        with gr.Column(scale=3, min_width=320, elem_classes="result-column"):
            gallery = gr.Gallery(
                label="Pictures",
                show_label=False,
                columns=4,
                height="auto",
                object_fit="contain",
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="sample-gallery",
            )
            told = note(FIRST, "sample-told")
            with gr.Column(visible=False) as after:
                earlier = gr.Dropdown([], label="Results of this visit", elem_id="sample-earlier")
                with gr.Row():
                    reuse = gr.Button("Use these settings again", size="sm", elem_id="sample-reuse")
                    download = gr.DownloadButton("Download all", size="sm", elem_id="sample-download")
                with gr.Accordion("The same in a terminal", open=False):
                    command = gr.Textbox(
                        show_label=False,
                        container=False,
                        interactive=False,
                        lines=2,
                        elem_classes="mono",
                        buttons=["copy"],
                    )

    fields = [prompt, negative, classes, strength, num, seed, steps, guidance, sampler]
    shaped = [form, about, prompt, classes, controlled, negative, guidance, steps, sampler, control, seen]
    results = [gallery, told, history, after, earlier, download, command, make, stop]
    shape = partial(describe, page)
    for chosen in (source.input, blocks.load(partial(first_model, page), None, source, **QUIET).then):
        chosen(opening, [source, form], [form, about], **QUIET).then(shape, [source, form], shaped, **QUIET)
    source.focus(partial(refreshed, page), None, source, **QUIET)
    photo.upload(partial(control_of_photo, page), [source, photo], [control, seen], **PRIVATE)
    photo.clear(lambda: (None, gr.Image(None, visible=False)), None, [control, seen], **QUIET)
    use_drawing.click(partial(control_of_drawing, page), [source, canvas], [control, seen], **PRIVATE)
    asked = [source, form, control, history, *fields]
    made = partial(make_pictures, page)
    make.click(made, asked, results, **QUIET)
    prompt.submit(made, asked, results, **QUIET)
    again.click(lambda now: (int(now or 0) + 1) % MOST_SEED, seed, seed, **QUIET).then(
        made, asked, results, **QUIET
    )
    stop.click(page.worker.stop, None, None, **QUIET)
    earlier.input(look_back, [history, earlier], [gallery, told, download, command], **QUIET)
    # the form of that model first, which sets its fields to what is usual
    back = reuse.click(model_again, [history, earlier], source, **QUIET).then(shape, source, shaped, **QUIET)
    back.then(settings_again, [history, earlier], [control, *fields], **QUIET)


def first_model(page: Page) -> Any:
    """What can be sampled now; the newest run is chosen, or what comes with genzoo."""
    choices = _sources(page)
    return gr.Dropdown(choices, value=choices[0][1] if choices else None, interactive=True)


def opening(source: Any, form: Any) -> list[Any]:
    """What is said while a model is looked at; nothing can be made of the one before.

    A list that is left without a choice names the model that is open already: its form stays as it is.
    """
    return [gr.skip(), gr.skip()] if _is_of(form, source) else [None, "Opening the model …"]


def refreshed(page: Page) -> Any:
    """The list again, with the runs that came meanwhile."""
    return gr.Dropdown(_sources(page))


def describe(page: Page, source: Any, open_form: Any = None) -> list[Any]:
    """The form of a model: the fields that it has, with its own values; nothing new if it is `open_form`."""
    if _is_of(open_form, source):
        return [gr.skip()] * 11
    try:
        form = page.worker.ask("describe", source=page.library.source(source)) | {"source": source}
    except GenzooError as error:
        return [None, plain(error.what), *[gr.skip()] * 9] if source else [gr.skip()] * 11
    words = f"Words it knows: {'; '.join(form['prompts'][:3])}" if form["prompts"] else ""
    many = "" if form["step"] == 1 else "s"
    trained = f"after {form['step']:,} step{many} of training" if form["step"] else "ready to use"
    return [
        form,
        plain(
            ". ".join(
                part for part in (f"{'Clips' if form['clips'] else 'Pictures'}, {trained}", words) if part
            )
        ),
        gr.Textbox(
            visible=form["prompt"], placeholder=plain(next(iter(form["prompts"]), "what the picture shows"))
        ),
        gr.Dropdown(
            [(plain(name, longest=60), name) for name in form["classes"] or []],
            value=[],
            visible=bool(form["classes"]),
        ),
        gr.Group(visible=form["control"]),
        gr.Textbox(visible=form["negative"]),
        gr.Slider(value=form["guidance_scale"] or 1, visible=form["guidance_scale"] is not None),
        gr.Slider(value=form["steps"] or 1, visible=form["steps"] is not None),
        gr.Dropdown(form["samplers"], value=form["sampler"], visible=len(form["samplers"]) > 1),
        None,
        gr.Image(None, visible=False),
    ]


def control_of_photo(page: Page, source: Any, photo: str | None) -> list[Any]:
    """What the model will follow of an uploaded photograph."""
    return _control(page, source, photo, drawn=False)


def control_of_drawing(page: Page, source: Any, drawing: Any) -> list[Any]:
    """What the model will follow of a drawing: its dark lines."""
    picture = (
        None if not isinstance(drawing, Mapping) else drawing.get("composite") or drawing.get("background")
    )
    if picture is None:
        complain(UsageError("nothing is drawn yet", fix="draw dark lines, or choose a photograph"))
        return [gr.skip(), gr.skip()]
    place = page.new_place()
    place.mkdir(parents=True)
    picture.convert("RGB").save(place / "drawing.png")
    return _control(page, source, str(place / "drawing.png"), drawn=True)


def _control(page: Page, source: Any, picture: str | None, *, drawn: bool) -> list[Any]:
    if picture is None:
        return [None, gr.Image(None, visible=False)]
    try:
        target = page.new_place() / "control.png"
        path = page.library.source(source)
        made = page.worker.ask("control", source=path, picture=str(picture), target=str(target), drawn=drawn)
    except GenzooError as error:
        complain(error)
        return [gr.skip(), gr.skip()]
    return [made, gr.Image(made, visible=True)]


def make_pictures(
    page: Page, source: Any, form: Any, control: str | None, history: list[dict[str, Any]], *fields: Any
) -> Iterator[list[Any]]:
    """Sample, telling how far it is; the result is remembered for the visit."""
    nothing = [gr.skip()] * 9
    try:
        path = page.library.source(source)
        if not _is_of(form, source):
            raise UsageError("this model is not ready yet", fix="wait a moment, or choose another one")
        wish = _wish(control, fields)
        options = options_of(form, wish)
        place = page.new_place()
        yield _busy("Starting …")
        for kind, value in page.worker.steps("sample", source=path, folder=str(place), options=options):
            if kind == "progress":
                yield _busy(f"{value[0]} of {value[1]} …")
            else:
                yield finished(source, path, place, options, wish, value, history)
    except GenzooError as error:
        complain(error)
        nothing[1] = plain(error.what)
        yield [*nothing[:7], gr.Button(interactive=True), gr.Button(visible=False)]


def _is_of(form: Any, source: Any) -> bool:
    return isinstance(form, Mapping) and form.get("source") == source


def _busy(text: str) -> list[Any]:
    return [gr.skip(), text, *[gr.skip()] * 5, gr.Button(interactive=False), gr.Button(visible=True)]


def _wish(control: str | None, fields: tuple[Any, ...]) -> Wish:
    prompt, negative, classes, strength, num, seed, steps, guidance, sampler = fields
    return Wish(prompt, negative, classes, control, strength, num, seed, steps, guidance, sampler)


def _sources(page: Page) -> list[tuple[str, str]]:
    return [(plain(label, longest=120), name) for name, label in page.library.sources().items()]
