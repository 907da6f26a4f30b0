"""A data set that one process builds and all others receive: a million files are listed once."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable

from genzoo.core.processes import World
from genzoo.core.types import Dataset

logger = logging.getLogger(__name__)


def built_once(world: World, build: Callable[[], Dataset]) -> Dataset:
    """What `build` makes, in every process; an error of the first is raised in all.

    Loader workers receive data sets in the same way, as arrays; one that cannot travel is built by each.
    """
    if world.size == 1:
        return build()
    own: list[Dataset] = []

    def first() -> bytes | None:
        own.append(build())
        _ = own[0].fingerprint  # looks at every file, and is kept where it is found
        try:
            return pickle.dumps(own[0], protocol=5)
        except Exception as error:  # whatever its parts raise
            logger.info("every process builds its own data set, as it cannot be sent: %s", error)
            return None

    told = world.on_first(first)
    if own:
        return own[0]
    if told is None:
        return build()
    received: Dataset = pickle.loads(told)
    return received
