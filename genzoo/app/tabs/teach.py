"""Teach: photographs, a base and a word become a concept, which is watched, stopped and continued."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from genzoo.app.library import curves, previews
from genzoo.app.page import PRIVATE, QUIET, Page, a_number, a_text, complain, note
from genzoo.app.tabs.merge import merge_form
from genzoo.app.text import plain
from genzoo.core.errors import GenzooError, UsageError

MOST_PHOTOS, MOST_BYTES = 50, 200 * 1024**2
LESSONS = "lessons"
KINDS = [".png", ".jpg", ".jpeg", ".webp", ".bmp"]
EVERY = 3.0
HOW = "Drop three or more photographs of one thing: from different sides, in different places."
NOTHING = "What you teach appears here while it is learnt."


def teach_tab(page: Page, blocks: gr.Blocks) -> None:
    """Build the tab."""
    photos, drawn = gr.State(None), gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=320, elem_classes="form-column"):
            files = gr.File(
                label="Photographs",
                file_count="multiple",
                file_types=KINDS,
                height=140,
                elem_id="teach-files",
            )
            name = gr.Textbox(
                label="What is it?", placeholder="my cat", max_length=80, elem_id="teach-name",
                info="As you would say it; the last words say what kind of thing",
            )  # fmt: skip
            word = gr.Textbox("<new1>", label="New word", max_length=32, info="Stands for it in prompts")
            base = gr.Dropdown(
                _bases(page), value=next((value for _, value in _bases(page)), None), label="Model to teach"
            )
            with gr.Accordion("More settings", open=False):
                kind = gr.Slider(
                    0, 200, value=20, step=1, label="Pictures of its kind", elem_id="teach-kind",
                    info="The model paints them first, to remember what others look like; 0 is quicker",
                )  # fmt: skip
                steps = gr.Slider(10, 1000, value=250, step=10, label="Steps of training")
            said = note(HOW, "teach-said", lines=2, most=8)
            sheet = gr.Image(
                label="As training sees them",
                interactive=False,
                visible=False,
                buttons=["fullscreen"],
                elem_id="teach-sheet",
            )
            begin = gr.Button("Teach it", variant="primary", elem_id="teach-begin")
        with gr.Column(scale=3, min_width=320, elem_classes="result-column"):
            lesson = gr.Dropdown([], label="Taught here", elem_id="teach-lesson")
            state = note(NOTHING, "teach-state", lines=2, most=10)
            pictures = gr.Gallery(
                label="Pictures while it learns", show_label=False, columns=2, height="auto",
                object_fit="contain", interactive=False, buttons=["fullscreen"], elem_id="teach-pictures",
            )  # fmt: skip
            with gr.Row():
                stop = gr.Button("Stop and save", size="sm", elem_id="teach-stop")
                resume = gr.Button("Go on", size="sm", elem_id="teach-resume")
            merge_form(page, blocks)
    asked = [photos, name, word, base]
    look = partial(look_at_photos, page)
    files.change(partial(take_photos, page), files, photos, **QUIET).then(look, asked, [said, sheet], **QUIET)
    for change in (name.blur, word.blur, base.input):
        change(look, asked, [said, sheet], **QUIET)
    shown = [lesson, state, pictures, drawn]
    begin.click(partial(teach, page), [*asked, kind, steps], lesson, **PRIVATE)
    watch = partial(watch_lesson, page)
    for when in (blocks.load, gr.Timer(EVERY).tick, lesson.change):
        when(watch, [lesson, drawn], shown, **QUIET)
    stop.click(partial(stop_lesson, page), lesson, None, **PRIVATE)
    resume.click(partial(resume_lesson, page), lesson, None, **PRIVATE)


def take_photos(page: Page, files: Any) -> str | None:
    """Copies of uploaded pictures under names of ours; None for none. Too many or too much is refused."""
    paths = [Path(file) for file in files] if isinstance(files, list) else []
    if not paths:
        return None
    try:
        if len(paths) > MOST_PHOTOS or sum(path.stat().st_size for path in paths) > MOST_BYTES:
            raise UsageError(f"at most {MOST_PHOTOS} photographs of {MOST_BYTES // 1024**2} MB together")
    except UsageError as error:
        complain(error)
        return None
    place = page.new_place()
    place.mkdir(parents=True)
    for number, path in enumerate(paths):
        kind = path.suffix.lower() if path.suffix.lower() in KINDS else ".png"
        shutil.copyfile(path, place / f"{number:03d}{kind}")
    return str(place)


def look_at_photos(page: Page, photos: Any, name: Any, word: Any, base: Any) -> list[Any]:
    """What was found in the photographs, in words and as a sheet."""
    if not isinstance(photos, str):
        return [HOW, gr.Image(visible=False)]
    try:
        found = _checked(page, photos, name, word, base)
    except GenzooError as error:
        told = [error.what, error.why, error.fix]
        return [plain("\n".join(filter(None, told)), longest=800, lines=True), gr.Image(visible=False)]
    words = [f"{found['count']} photographs, {found['size']} pixels wide in training.", *found["notes"]]
    if name:
        words.append(f"In prompts it will be: {found['prompt']}")
    text = plain("\n".join(words), longest=1500, lines=True)
    return [text, gr.Image(found["sheet"], visible=True)]


def teach(page: Page, photos: Any, name: Any, word: Any, base: Any, kind: Any, steps: Any) -> Any:
    """Start `genzoo teach`; the lesson is chosen, so that it is watched."""
    try:
        if not isinstance(photos, str):
            raise UsageError("there are no photographs yet", fix=HOW)
        called = a_text(name, "what it is", longest=80).strip()
        if not called or called.startswith("-"):
            raise UsageError("it has no name yet", fix="say what it is, such as my cat")
        found = _checked(page, photos, called, word, base)
        number = a_number(kind, "pictures of its kind", 0, 1000)
        length = a_number(steps, "steps", 1, 100_000)
        run = _free_name(page, called)
        lesson = page.library.folder / LESSONS / run
        options = [
            "--base",
            page.library.base(base),
            "--word",
            word,
            "--num-class",
            str(number),
            "--steps",
            str(length),
        ]
        options += ["--output", str(lesson), "--run", str(page.jobs.new_folder(run))]
        page.jobs.start(run, ["teach", called, photos, *options])
    except GenzooError as error:
        complain(error)
        return gr.skip()
    gr.Info(plain(f"It learns {found['count']} photographs. You may close this page."))
    return gr.Dropdown(_lessons(page), value=run)


def watch_lesson(page: Page, chosen: Any, drawn: Any) -> Iterator[list[Any]]:
    """How far a lesson is, in words and pictures; only what changed is sent."""
    lessons = _lessons(page)
    names = [name for _, name in lessons]
    name = chosen if isinstance(chosen, str) and chosen in names else (names[0] if names else None)
    words, made = (NOTHING, []) if name is None else _told(page, name)
    now = {"lessons": lessons, "name": name, "words": words, "pictures": [str(path) for path, _ in made]}
    before = drawn or {}
    if now == before:
        yield [gr.skip()] * 4
        return
    out: list[Any] = [gr.skip(), words, gr.skip(), now]
    if lessons != before.get("lessons") or name != chosen:
        out[0] = gr.Dropdown(lessons, value=name)
    if now["pictures"] != before.get("pictures"):
        out[2] = [(copy, label) for path, label in made if (copy := page.shown(path)) is not None]
    yield out


def stop_lesson(page: Page, name: Any) -> None:
    """Ask it to save and stop."""
    gr.Info(
        "It saves what it has and stops."
        if isinstance(name, str) and name in _names(page) and page.jobs.stop(name)
        else "It is not learning now."
    )


def resume_lesson(page: Page, name: Any) -> None:
    """Go on where it stopped."""
    try:
        run = page.library.run(name)
        if run.state == "finished":
            raise UsageError("it is learnt already", fix="try it in the tab Sample")
        page.jobs.resume(run)
    except GenzooError as error:
        complain(error)
    else:
        gr.Info("It goes on where it stopped.")


def _checked(page: Page, photos: str, name: Any, word: Any, base: Any) -> Any:
    target = page.new_place() / "sheet.png"
    called = a_text(name, "what it is", longest=80).strip() or "thing"
    return page.worker.ask(
        "photographs",
        folder=photos,
        base=page.library.base(base),
        name=called,
        word=a_text(word, "the new word", longest=40).strip(),
        target=str(target),
    )


def _told(page: Page, name: str) -> tuple[str, list[tuple[Path, str]]]:
    run = next((run for run in page.library.runs() if run.name == name), None)
    if run is None:
        alive = page.jobs.works_on(name)
        first = (
            "It prepares: the model paints pictures of its kind first."
            if alive
            else "It ended before training began."
        )
        return plain(f"{first}\n{page.jobs.last_words(name)}", longest=1500, lines=True), []
    loss = curves(run.path).get("loss", [])
    told = f", loss {loss[-1][1]:.3f}" if loss else ""
    states = {
        "running": "It learns",
        "finished": "It is learnt. Try it in the tab Sample",
        "interrupted": "It is stopped and can go on",
    }
    measuring = run.state == "finished" and page.jobs.works_on(name)
    usual = f"It ended: {run.status.get('reason') or run.state}"
    words = "It is learnt and being written" if measuring else states.get(run.state, usual)
    made = [(path, f"step {step:,}") for step, path in previews(run.path)[-4:][::-1]]
    return plain(f"{words}. Step {run.status.get('step', 0):,} of {run.status.get('steps', 0):,}{told}"), made


def _free_name(page: Page, called: str) -> str:
    """A name for the run that nothing has yet."""
    stem = "-".join(re.findall(r"[^\W_]+", called.lower()))[:60] or "concept"
    for number in range(1, 1000):
        name = stem if number == 1 else f"{stem}-{number}"
        taken = (page.library.folder / name, page.library.folder / LESSONS / name)
        if not any(path.exists() for path in taken) and not page.jobs.works_on(name):
            return name
    raise UsageError(f"there are too many called {stem}", fix="choose another name")


def _lessons(page: Page) -> list[tuple[str, str]]:
    """What was taught below the folder, the latest first: its folder of photographs says that it was."""
    taught = page.library.folder / LESSONS
    begun = [job.name for job in page.jobs.unborn() if job.record.get("command", [""])[0] == "teach"]
    known = [run.name for run in page.library.runs() if (taught / run.name / "concepts.json").is_file()]
    return [(plain(name, longest=80), name) for name in [*begun, *known]]


def _names(page: Page) -> list[str]:
    return [name for _, name in _lessons(page)]


def _bases(page: Page) -> list[tuple[str, str]]:
    return [(plain(label, longest=100), name) for name, label in page.library.bases().items()]
