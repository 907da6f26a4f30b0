"""Each tab in a real browser on small models; hostile names; two people; phones; restarts."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_cases import CHROMIUM, Server, until, visiting

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, such as Debian's package"),
]

HOSTILE = ['<img src=x onerror="window.PWN=1">', "a\u202egnp.exe", "[c](javascript:window.PWN=1)"]
LEVELS = """() => {
  const shown = document.querySelector('#sample-control img'), canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [shown.naturalWidth, shown.naturalHeight];
  const drawn = canvas.getContext('2d');
  drawn.drawImage(shown, 0, 0);
  const values = drawn.getImageData(0, 0, canvas.width, canvas.height).data.filter((_, at) => at % 4 === 0);
  return {least: Math.min(...values), most: Math.max(...values)} }"""
READS_LATE = """(() => {
  const fetched = window.fetch;
  window.fetch = async (...asked) => {
    const answer = await fetched(...asked);
    if (!answer.url.includes('/queue/data')) return answer;
    const later = () => new Promise((done) => setTimeout(done, 1500));
    const late = new TransformStream({
      transform: (words, to) => { later().then(() => to.enqueue(words)) }, flush: later });
    return new Response(answer.body.pipeThrough(late), answer) } })()"""
TABS = {
    "Teach": "#teach-begin",
    "Runs": "#runs-list",
    "Evaluate": "#evaluate-begin",
    "Sample": "#sample-make",
}
TINY = ["train.batch_size=4", "train.checkpoint_every=2", "preview.every=2", "preview.num=4", "report=null"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps."""
    from genzoo.api.run import train
    from genzoo.core.recipe import load_recipe

    folder = tmp_path_factory.mktemp("made") / "digits"
    train(load_recipe("quickstart/dim_digits", [*TINY, "train.steps=4"]), output=folder)
    return folder


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "runs"
    shutil.copytree(run, place / "digits")
    return place


@pytest.fixture(scope="module")
def controlled(folder: Path) -> str:
    """The name of a run that follows a control."""
    from genzoo.api.run import train
    from genzoo.core.recipe import load_recipe

    changes = ["train.steps=1", "train.batch_size=2", "preview=null", "report=null"]
    train(load_recipe("quickstart/car_canny_emoji", changes), output=folder / "follows")
    return "follows"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    made = Server(folder, folder.parent / "server.log")
    yield made
    made.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from browser_cases import ARGUMENTS

    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGUMENTS)
        yield made
        made.close()


def test_sampling_with_the_keyboard_alone(browser: Any, server: Server) -> None:
    with visiting(browser, server.link) as visit:
        visit.wait_text("#sample-about", "of training")
        visit.page.locator("#sample-model input").focus()
        for _ in range(30):
            visit.page.keyboard.press("Tab")
            if visit.page.evaluate("document.activeElement.textContent.trim()") == "Make pictures":
                break
        outline = visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        visit.page.keyboard.press("Enter")
        visit.wait("() => document.querySelectorAll('#sample-gallery img').length >= 4")
        visit.wait_text("#sample-told", "4 pictures · seed 0")


def test_a_prompt_of_markup_is_text_and_its_settings_come_back(browser: Any, server: Server) -> None:
    prompt = f"a cat {HOSTILE[0]}"
    with visiting(browser, server.link) as visit:
        visit.choose("#sample-model", "text_to_image_emoji")
        visit.page.locator("#sample-prompt textarea").fill(prompt)
        visit.page.get_by_label("number input for Pictures").fill("1")
        visit.page.get_by_role("button", name="More settings").first.click()
        visit.page.get_by_label("number input for Steps").fill("2")
        visit.page.locator("#sample-make").click()
        visit.wait_text("#sample-told", "1 picture · seed 0 · 2 steps")
        assert prompt in visit.text("#sample-told")
        visit.page.locator("#sample-prompt textarea").fill("something else")
        visit.page.locator("#sample-reuse").click()
        visit.wait_text("#sample-prompt", HOSTILE[0])
        assert visit.page.locator("img[src='x']").count() == 0


def test_an_empty_prompt_is_refused_in_words(browser: Any, server: Server) -> None:
    with visiting(browser, server.link) as visit:
        visit.choose("#sample-model", "text_to_image_emoji")
        visit.page.wait_for_selector("#sample-prompt")
        visit.page.locator("#sample-make").click()
        visit.page.get_by_text("say what the picture shows").first.wait_for()


def test_answers_come_to_a_page_that_reads_its_stream_late(browser: Any, server: Server) -> None:
    with visiting(browser, server.link, script=READS_LATE) as visit:
        visit.wait_text("#sample-about", "of training")
        with visit.page.expect_request_finished(lambda asked: "/queue/join" in asked.url):
            visit.page.locator("#sample-model input").click()  # asks for the list again
        visit.page.wait_for_timeout(700)  # it is there and its stream ends, of which the page has not read
        visit.page.get_by_role("option", name="text_to_image_emoji").first.click()
        visit.wait_text("#sample-about", "Words it knows")


def test_curves_of_runs_that_come_later_are_drawn(
    browser: Any, server: Server, run: Path, folder: Path
) -> None:
    strokes = (
        "[...document.querySelectorAll('#runs-plot .mark-line path')].map(p => p.getAttribute('stroke'))"
    )
    with visiting(browser, server.link) as visit:
        visit.tab("Runs")
        visit.wait(f"() => ({strokes}).length == 1 && !({strokes}).includes('none')")
        shutil.copytree(run, folder / "later")
        visit.page.locator("#runs-list label", has_text="later").wait_for()
        visit.tick("#runs-list", "later")
        visit.wait(f"() => new Set({strokes}).size == 2 && !({strokes}).includes('none')")
        visit.wait("() => document.querySelectorAll('#runs-pictures img').length >= 2")


def test_hostile_names_and_messages_are_text(browser: Any, server: Server, run: Path, folder: Path) -> None:
    for name in HOSTILE:
        shutil.copytree(run, folder / name)
    with visiting(browser, server.link) as visit:
        visit.tab("Runs")
        visit.page.locator("#runs-list label", has_text="onerror").wait_for()
        visit.page.get_by_role("button", name="Train something new").click()
        visit.page.locator("#start-name textarea, #start-name input").first.fill(HOSTILE[0])
        visit.page.locator("#start-begin").click()
        visit.page.get_by_text("choose another name").first.wait_for()  # a toast that holds the name
        for name in HOSTILE:
            visit.tick("#runs-list", {HOSTILE[1]: "gnp.exe"}.get(name, name))
        visit.wait("() => document.querySelectorAll('#runs-plot .mark-line path').length >= 3")
        shown = visit.page.evaluate("document.body.innerText")
        assert "\u202e" not in shown
        assert "a\\u202egnp.exe" in shown
        assert HOSTILE[0] in shown
        assert visit.page.locator("img[src='x'], a[href^='javascript']").count() == 0
    for name in HOSTILE:
        shutil.rmtree(folder / name)


def test_two_people_see_the_same_runs_and_not_each_others_forms(browser: Any, server: Server) -> None:
    with visiting(browser, server.link) as one, visiting(browser, server.link) as other:
        for visit in (one, other):
            visit.tab("Runs")
            visit.page.get_by_role("button", name="Train something new").click()
        one.page.locator("#start-settings textarea").fill("train.steps=oops")
        one.page.keyboard.press("Tab")  # out of the field
        one.wait_text("#start-said", "train.steps")
        assert other.text("#start-settings") == ""
        one.page.locator("#start-settings textarea").fill("train.steps=1 report=null train.batch_size=2")
        one.page.locator("#start-name input, #start-name textarea").first.fill("of-both")
        one.wait_text("#start-said", "Looks right: 1 step")
        one.page.locator("#start-begin").click()
        other.page.locator("#runs-list label", has_text="of-both").wait_for()
        assert other.text("#start-name") == ""


def test_a_training_outlives_page_and_server(browser: Any, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    first = Server(folder, tmp_path / "first.log")
    lines = lambda: (folder / "long" / "metrics.jsonl").read_text().splitlines()  # noqa: E731
    with visiting(browser, first.link) as visit:
        visit.tab("Runs")
        assert "no runs here yet" in visit.text("#runs-empty")
        visit.page.get_by_role("button", name="Train something new").click()
        visit.page.locator("#start-name input, #start-name textarea").first.fill("long")
        settings = "train.steps=100000 train.batch_size=2 train.log_every=1 preview.every=0 report=null"
        visit.page.locator("#start-settings textarea").fill(settings)
        visit.page.locator("#start-begin").click()
        until(lambda: (folder / "long" / "metrics.jsonl").is_file() and len(lines()) > 3)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    before = len(lines())
    until(lambda: len(lines()) > before + 3)
    second = Server(folder, tmp_path / "second.log")
    try:
        with visiting(browser, second.link) as visit:
            visit.tab("Runs")
            visit.page.locator("#runs-list label", has_text="training").wait_for()
            visit.page.locator("#runs-stop").click()
            visit.page.locator("#runs-list label", has_text="stopped, can go on").wait_for()
            stopped = json.loads((folder / "long" / "status.json").read_text())
            assert stopped["state"] == "interrupted"
            visit.page.locator("#runs-resume").click()
            until(lambda: len(lines()) > stopped["step"] + 3)
            visit.page.locator("#runs-list label", has_text="training").wait_for()
            visit.page.locator("#runs-stop").click()
            visit.page.locator("#runs-list label", has_text="stopped, can go on").wait_for()
    finally:
        second.end()
    steps = [json.loads(line)["step"] for line in lines()]
    assert steps == list(range(1, len(steps) + 1))


def test_teaching_merging_and_export(browser: Any, server: Server, folder: Path, tmp_path: Path) -> None:
    photos = [
        {"name": f"../../x{HOSTILE[0]}{n}.png", "mimeType": "image/png", "buffer": a_photo(n)}
        for n in range(3)
    ]
    with visiting(browser, server.link) as visit:
        visit.tab("Teach")
        visit.page.locator("#teach-files input[type=file]").set_input_files(photos)
        visit.wait_text("#teach-said", "3 photographs")
        visit.page.locator("#teach-name input, #teach-name textarea").first.fill("my cat")
        visit.page.get_by_role("button", name="More settings").last.click()
        visit.page.get_by_label("number input for Pictures of its kind").fill("0")
        visit.page.get_by_label("number input for Steps of training").fill("10")
        visit.page.locator("#teach-begin").click()
        visit.wait_text("#teach-state", "It is learnt. Try it", patience=600)  # a training and its samples
        visit.wait("() => document.querySelectorAll('#teach-pictures img').length >= 1")
        taught = folder / "my-cat" / "concept.safetensors"
        assert taught.is_file()
        write_another_concept(taught, folder / "dog.safetensors")
        visit.page.locator("#merge > button").click()
        for name in ("my-cat/concept", "dog"):
            visit.tick("#merge-concepts", name)
        visit.page.locator("#merge-name input, #merge-name textarea").first.fill("both")
        visit.page.locator("#merge-begin").click()
        visit.wait_text("#merge-said", "Written: both.safetensors")
        visit.wait("() => document.querySelector('#merge-heat img')?.naturalWidth > 100")
        visit.page.locator("#export > button").click()
        visit.page.locator("#export-begin").click()
        visit.wait_text("#export-how", "new1")
    assert (folder / "both.safetensors").is_file()


def test_judging_and_comparing(browser: Any, server: Server) -> None:
    with visiting(browser, server.link) as visit:
        visit.tab("Evaluate")
        visit.tick("#evaluate-runs", "digits")
        visit.page.locator("#evaluate-num input").fill("32")
        visit.page.locator("#evaluate-begin").click()
        visit.wait("() => document.querySelector('#evaluate-table')?.innerText.includes('is better')")
        assert "digits" in visit.page.locator("#evaluate-table").inner_text()


def test_a_drawing_is_followed(browser: Any, server: Server, controlled: str) -> None:
    with visiting(browser, server.link) as visit:
        visit.choose("#sample-model", controlled)  # as soon as one can: what was chosen stays so
        visit.page.get_by_role("button", name="Or draw").click()
        visit.page.get_by_role("button", name="Use the drawing").click()
        visit.page.get_by_text("nothing is drawn yet").first.wait_for()
        visit.page.get_by_role("button", name="Brush", exact=True).click()
        visit.draw("#sample-canvas canvas")
        visit.page.get_by_role("button", name="Use the drawing").click()
        visit.wait("() => document.querySelector('#sample-control img')?.naturalWidth > 100")
        levels = visit.page.evaluate(LEVELS)
        assert levels["most"] > 200
        assert levels["least"] < 30
        visit.page.get_by_label("number input for Pictures").fill("1")
        visit.page.locator("#sample-make").click()
        visit.wait_text("#sample-told", "1 picture · seed 0 · strength 1")
        visit.wait("() => document.querySelectorAll('#sample-gallery img').length >= 1")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_width_and_theme(browser: Any, server: Server, dark: bool) -> None:
    with visiting(browser, server.link, dark=dark) as visit:
        for width in (1280, 390):
            visit.page.set_viewport_size({"width": width, "height": 900})
            for tab, shown in TABS.items():
                visit.tab(tab)
                visit.page.locator(shown).wait_for()
                visit.wait(f"() => location.search.includes('tab={tab.lower()}')")
                # what is drawn a moment later may be too wide: it has to fit whenever one looks
                visit.wait("() => document.documentElement.scrollWidth <= window.innerWidth")
        visit.tab("Sample")
        visit.wait_text("#sample-about", "of training")  # else the reload cuts its opening off
        visit.page.reload()
        visit.page.wait_for_selector("#sample-make")


def test_long_names_stay_within_their_lists(browser: Any, server: Server, run: Path, folder: Path) -> None:
    name = "a_run_with_a_rather_long_name_of_many_words"
    shutil.copytree(run, folder / name)
    try:
        with visiting(browser, server.link) as visit:
            visit.page.set_viewport_size({"width": 390, "height": 900})
            visit.tab("Runs")
            visit.page.locator("#runs-list label", has_text=name).wait_for()
            within = (
                "label.getBoundingClientRect().right <= label.closest('.block').getBoundingClientRect().right"
            )
            visit.wait(f"() => [...document.querySelectorAll('#runs-list label')].every(label => {within})")
            style = "(input) => [getComputedStyle(input).textOverflow, getComputedStyle(input).paddingRight]"
            for list_ in ("#runs-curve input", "#sample-model input"):
                assert visit.page.locator(list_).first.evaluate(style) == ["ellipsis", "34px"]
    finally:
        shutil.rmtree(folder / name)


def write_another_concept(taught: Path, target: Path) -> None:
    """A concept of the same base that differs: the same one twice is refused."""
    from dataclasses import replace

    from genzoo.families.custom_diffusion import read_concept, write_concept

    delta = read_concept(taught)
    weights = {name: 1.01 * weight + 0.001 for name, weight in delta.weights.items()}
    write_concept(replace(delta, weights=weights), target)


def a_photo(number: int) -> bytes:
    """A picture unlike the others."""
    import io

    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (72, 64), (40 * number, 90, 200 - 60 * number))
    ImageDraw.Draw(picture).ellipse(
        (8 + 9 * number, 10, 50, 30 + 10 * number), fill=(250, 180 - 70 * number, 30)
    )
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
