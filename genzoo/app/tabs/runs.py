"""Runs: what is being trained and what was, its curves and pictures side by side; start, stop, go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import gradio as gr

from genzoo.app.library import curves, previews
from genzoo.app.page import PRIVATE, QUIET, Page, complain, note, texts
from genzoo.app.tabs.start import start_form
from genzoo.app.text import plain
from genzoo.core.errors import GenzooError, UsageError

EVERY = 3.0  # seconds between two looks at the files
TOGETHER = 6  # runs whose curves and pictures are shown at once
LAST_PREVIEWS = 12
USUAL_CURVE = "loss"
NO_RUNS = (
    "There are no runs here yet. Open “Train something new” below: the quick starts take a minute or two."
)
STATES = {
    "running": "training",
    "finished": "finished",
    "interrupted": "stopped, can go on",
    "dead": "ended unexpectedly, can go on",
    "failed": "failed",
    "starting": "starting",
    "measuring": "trained, now measured",
    "unreadable": "cannot be read",
}


def runs_tab(page: Page, blocks: gr.Blocks) -> None:
    """Build the tab."""
    drawn = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=320, elem_classes="form-column"):
            chosen = gr.CheckboxGroup(
                [],
                label="Runs",
                info="Tick one to look at it, several to compare",
                elem_classes="runs",
                elem_id="runs-list",
            )
            empty = note(NO_RUNS, "runs-empty", lines=2, also="empty", visible=False)
            with gr.Row():
                stop = gr.Button("Stop and save", size="sm", elem_id="runs-stop")
                resume = gr.Button("Go on", size="sm", elem_id="runs-resume")
            with gr.Accordion("Train something new", open=False, elem_id="runs-new"):
                started = start_form(page)
        with gr.Column(scale=3, min_width=320, elem_classes="result-column"):
            curve = gr.Dropdown([USUAL_CURVE], value=USUAL_CURVE, label="Curve", elem_id="runs-curve")
            # its colours are those of the first value that is not None: it must begin with None
            plot = gr.LinePlot(
                None,
                x="step",
                y="value",
                color="run",
                height=300,
                elem_id="runs-plot",
                x_title="step",
                y_title=" ",
                colors_in_legend=None,
            )
            pictures = gr.Gallery(
                label="Pictures while training",
                show_label=False,
                columns=2,
                height="auto",
                object_fit="contain",
                interactive=False,
                buttons=["fullscreen"],
                elem_id="runs-pictures",
            )
            told = note("", "runs-told", most=14, also="mono")
    timer = gr.Timer(EVERY)
    shown = [chosen, empty, curve, plot, pictures, told, drawn]
    look = partial(look_at, page)
    for when in (blocks.load, timer.tick, chosen.change, curve.input, started.change):
        when(look, [chosen, curve, drawn], shown, **QUIET, concurrency_limit=AT_ONCE)
    stop.click(partial(stop_runs, page), chosen, None, **PRIVATE).then(
        look, [chosen, curve, drawn], shown, **QUIET
    )
    resume.click(partial(resume_runs, page), chosen, None, **PRIVATE).then(
        look, [chosen, curve, drawn], shown, **QUIET
    )


AT_ONCE = 8


def look_at(page: Page, chosen: Any, curve: Any, drawn: Any) -> Iterator[list[Any]]:
    """What changed since the last look, and only that: the list, the curves, the pictures, the last words.

    drawn: what is on the page already.
    """
    rows = listed(page)
    names = [name for name in texts(chosen) if name in dict(rows)][:TOGETHER]
    if not drawn and not names and rows:
        names = [rows[0][0]]  # the first look shows the newest
    runs = [run for run in page.library.runs() if run.name in names]
    logged = {run.name: curves(run.path) for run in runs}
    kinds = sorted({kind for one in logged.values() for kind in one} - {"samples"}) or [USUAL_CURVE]
    kind = (
        curve
        if isinstance(curve, str) and curve in kinds
        else USUAL_CURVE
        if USUAL_CURVE in kinds
        else kinds[0]
    )
    points = [(name, step, value) for name, one in logged.items() for step, value in one.get(kind, ())]
    made = _pictures_of(runs)
    words = "\n\n".join(filter(None, (_told(page, name) for name in names)))
    now = {
        "rows": rows,
        "names": names,
        "kinds": kinds,
        "points": [kind, len(points), points[-1:]],
        "words": words,
    }
    now |= {
        "with curves": sorted({name for name, _, _ in points}),
        # a picture that is still being copied is looked at again
        "pictures": [(str(path), path.stat().st_size) for path, _ in made if path.is_file()],
    }
    before = drawn or {}
    new = {key for key in now if before.get(key) != now[key]}
    if not new:
        yield [gr.skip()] * 7
        return
    out: list[Any] = [gr.skip()] * 7
    if "rows" in new or texts(chosen) != names:
        # ticks are left alone where they hold: one may have been made since this look began
        ticks = {} if texts(chosen) == names else {"value": names}
        out[0] = gr.CheckboxGroup([(label, name) for name, label in rows], visible=bool(rows), **ticks)
        out[1] = gr.Textbox(visible=not rows)
    if "kinds" in new or kind != curve:
        out[2] = gr.Dropdown([(word.replace("_", " "), word) for word in kinds], value=kind)
    if "pictures" in new:
        out[4] = [(copy, label) for path, label in made if (copy := page.shown(path)) is not None]
    out[5], out[6] = words, now
    if new & {"points", "with curves"}:
        if now["with curves"] != before.get("with curves"):
            # another set of runs gets colours only after nothing was drawn
            yield [*[gr.skip()] * 3, None, *[gr.skip()] * 3]
        out[3] = _frame(points)
    yield out  # all at once: another look may run beside this one, and what is drawn is remembered with it


def listed(page: Page) -> list[tuple[str, str]]:
    """(name, line) of every run, and of what was started and is none yet."""
    found = []
    for job in page.jobs.unborn():
        state = "starting" if job.alive else "failed"
        found.append((job.name, f"{plain(job.name, longest=60)} — {STATES[state]}"))
    for run in page.library.runs():
        state = run.state
        if state != "running" and page.jobs.works_on(run.name):
            state = "measuring" if state == "finished" else "starting"
        step, steps = run.status.get("step"), run.status.get("steps")
        counted = (
            f" · {step:,} of {steps:,} steps" if isinstance(step, int) and isinstance(steps, int) else ""
        )
        found.append(
            (
                run.name,
                f"{plain(run.name, longest=60)} — {STATES.get(state, plain(state, longest=30))}{counted}",
            )
        )
    return found


def stop_runs(page: Page, chosen: Any) -> None:
    """Ask the ticked runs to save and stop."""
    names = texts(chosen)
    if not names:
        gr.Info("Tick a run first.")
        return
    asked = [name for name in names if page.jobs.stop(name)]
    gr.Info("It saves what it has and stops." if asked else "None of the ticked runs is training.")


def resume_runs(page: Page, chosen: Any) -> None:
    """Go on with the ticked runs."""
    names = texts(chosen)
    if not names:
        gr.Info("Tick a run first.")
        return
    for name in names:
        try:
            run = page.library.run(name)
            if run.state == "finished":
                raise UsageError(f"{name} is finished", fix="start a new run for more")
            page.jobs.resume(run)
        except GenzooError as error:
            complain(error)
        else:
            gr.Info("It goes on where it stopped.")


def _pictures_of(runs: Sequence[Any]) -> list[tuple[Any, str]]:
    """The newest overview of each run; of a single one, those of its way."""
    found = []
    for run in runs:
        for step, path in previews(run.path)[-LAST_PREVIEWS if len(runs) == 1 else -1 :]:
            found.append((path, f"{plain(run.name, longest=40)}, step {step:,}"))
    return found[::-1] if len(runs) == 1 else found


def _told(page: Page, name: str) -> str:
    """Why a run stopped, or the end of what it printed."""
    for run in page.library.runs():
        if run.name == name:
            reason = run.status.get("reason")
            return plain(f"{name}: {reason}", longest=600) if isinstance(reason, str) else ""
    return plain(page.jobs.last_words(name), longest=2000, lines=True)


def _frame(points: list[tuple[str, int, float]]) -> Any:
    import pandas

    shown = [(plain(name, longest=40), step, value) for name, step, value in points]
    return pandas.DataFrame(shown, columns=["run", "step", "value"]) if shown else None
