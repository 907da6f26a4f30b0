"""A run whose samples are real clips, changed in a known way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch


class FixedRun:
    """clips: those of the class asked for are sampled in turn, changed.   dataset: what the run knows."""

    folder = Path("run")

    def __init__(self, clips: Any, change: Any, dataset: Any) -> None:
        self.clips, self.change, self.data = clips, change, dataset

    def dataset(self) -> Any:
        return self.data

    def sample(self, *, class_labels: list[int], seed: int) -> Any:
        labels = self.clips.labels
        of_class = {label: (labels == label).nonzero().flatten().tolist() for label in set(class_labels)}
        rows = [of_class[label][i % len(of_class[label])] for i, label in enumerate(class_labels)]
        clips = torch.stack([self.clips.fetch(row)["pixels"] for row in rows])
        return SimpleNamespace(pixels=self.change(clips))
