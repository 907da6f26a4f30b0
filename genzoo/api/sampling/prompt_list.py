"""Many prompts at once: a folder for each, and prompts.json, which evaluation of concepts reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genzoo.core.claims import claim_folder, strangers
from genzoo.core.errors import DataError
from genzoo.core.files import write_json
from genzoo.core.processes import World
from genzoo.core.reading import read_record
from genzoo.data.text_files import read_json, read_lines

PROMPTS = "prompts.json"
MAX_SLUG = 48


def read_prompt_list(path: str | Path) -> list[str]:
    """One prompt a line, or a JSON list. Raises DataError for none, and for one that is there twice."""
    if Path(path).suffix == ".json":
        prompts = read_json(path)
    else:
        prompts = [line for line in read_lines(path, "this list of prompts") if line.strip()]
    if not isinstance(prompts, list) or not all(isinstance(one, str) and one.strip() for one in prompts):
        raise DataError(
            "this is no list of prompts", where=str(path), fix='one a line, or a JSON list ["a cat"]'
        )
    found = [prompt.strip() for prompt in prompts]
    if not found:
        raise DataError("there is no prompt in the list", where=str(path), fix="one a line")
    repeated = next((prompt for prompt in found if found.count(prompt) > 1), None)
    if repeated is not None:
        raise DataError(f"the prompt {repeated!r} is in the list twice", where=str(path), fix="each once")
    return found


def folder_name(number: int, prompt: str) -> str:
    """007-a-cat-in-a-pot: unique, in the list's order, and readable."""
    words = "-".join(re.findall(r"[a-z0-9]+", prompt.lower()))[:MAX_SLUG].strip("-")
    return f"{number:03d}-{words}" if words else f"{number:03d}"


def _is_own(folder: Path) -> bool:
    """Whether folders of samples and their table are all that lies in a folder, but for what is hidden."""
    names = [name for name in strangers(folder) if not name.startswith(".")]
    samples = [name for name in names if name != PROMPTS]
    if not samples or (PROMPTS in names and not read_record(folder / PROMPTS)):
        return False  # a list or table of the user's own
    return all((folder / name / "samples.json").is_file() for name in samples)


def sample_list_to(
    sample_to: Callable[..., Any], folder: str | Path, prompts: Sequence[str], *, num: int, **options: Any
) -> Path:
    """`num` samples of each prompt, each prompt in a folder of its own, and prompts.json: name -> prompt.

    sample_to: of a run. The same call again makes what is missing.
    """
    root = Path(folder)
    World.current().on_first(lambda: claim_folder(root, what="samples of prompts", is_ours=_is_own))
    table: dict[str, str] = {}
    for number, prompt in enumerate(prompts):
        name = folder_name(number, prompt)
        sample_to(root / name, prompt=prompt, num=num, **options)
        table |= {f"{name}/{index:06d}": prompt for index in range(num)}
    if World.current().is_first:
        write_json(root / PROMPTS, table)
    return root
