"""Names that only a process which is gone could have given."""

import multiprocessing
from pathlib import Path
from typing import Any

from genzoo.core.leftovers import temporary


def _name(path: Path, queue: Any) -> None:
    queue.put(temporary(path))


def name_of_the_dead(path: Path) -> Path:
    """A temporary name beside `path`, of a process that has ended."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_name, args=(path, queue))
    child.start()
    name: Path = queue.get(timeout=60)
    child.join(60)
    return name
