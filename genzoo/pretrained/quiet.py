"""Third parties that fetch and read weights draw no bars: lines of ours say what is being waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_bars() -> Iterator[None]:
    """No progress bars of transformers in a block; those that somebody wanted are back behind it."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def without_pipeline_bars() -> Iterator[None]:
    """None of diffusers in a block, and none of transformers."""
    from diffusers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with without_bars():
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def without_hub_bars() -> Iterator[None]:
    """None of the hub's library in a block, unless HF_HUB_DISABLE_PROGRESS_BARS decides about them."""
    from huggingface_hub import constants, utils

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()
