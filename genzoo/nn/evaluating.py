"""A model in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and the former mode again at the end."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
