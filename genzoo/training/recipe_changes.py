"""Two recipes of one run compared key by key: what may change between two steps, and what may not."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from genzoo.core.recipe import Recipe
from genzoo.core.recipe_tree import flatten
from genzoo.core.registry import CODECS, DATASETS, MODELS, OPTIMIZERS, SAMPLERS, TASKS, default_of
from genzoo.training.config import TrainConfig

ASIDE = (
    *("name", "sampler*", "preview*", "evaluation*", "held_out*", "report*", "init_from*", "task.prompts*"),
    *("model.gradient_checkpointing", "model.offload", "model.scan_backend"),
    *("codec.slice_size", "codec.channels_last"),
    *(
        "train.checkpoint_every",
        "train.save",
        "train.keep_last",
        "train.keep_every",
        "train.log_every",
        "train.snapshot_every",
    ),
    *("train.num_workers", "train.loader_timeout", "train.max_bad", "train.micro_batch_size"),
    *("train.trackers*", "train.tracker_project"),
    *("train.tensorboard", "train.deterministic", "train.collective_timeout"),
    *("train.sharding", "train.shard_size", "train.compile", "train.allow_tf32"),
    "train.frozen_in_16_bits",
)
"""What a step computes does not depend on these, but for rounding."""

STEPS = ("optim.*", "train.steps", "train.clip_*", "train.ema_*", "train.precision")
"""These change the steps that come, and may."""

FIXED = ("optim.name", "held_out.share", "train.seed", "train.batch_size")
"""These may not, although they look like the others."""

IDENTIFIED = ("data*", "codec*")
"""Settings that may change where they lead to the same data and the same codec, such as a moved folder."""

_REGISTRIES = {
    "model": MODELS,
    "data": DATASETS,
    "codec": CODECS,
    "task": TASKS,
    "optim": OPTIMIZERS,
    "sampler": SAMPLERS,
}
_SHOWN = 12


class Change(NamedTuple):
    """One setting. Values that are not set are `UNSET`."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"

    @property
    def is_aside(self) -> bool:
        """Whether the steps are the same with both values."""
        return _any(self.key, ASIDE) and not _any(self.key, FIXED)

    @property
    def is_allowed(self) -> bool:
        """Whether a run may go on with the new value."""
        return _any(self.key, (*ASIDE, *STEPS, *IDENTIFIED)) and not _any(self.key, FIXED)


UNSET = "(not set)"


def changes(old: Recipe, new: Recipe) -> list[Change]:
    """The settings that differ, in the order of the new recipe; a default that is spelt out is the same."""
    before, after = dict(flatten(_filled(old.data, new.data))), dict(flatten(_filled(new.data, old.data)))
    found = [Change(key, before.get(key, UNSET), after.get(key, UNSET)) for key in {**after, **before}]
    return [change for change in found if change.old != change.new and not _is_nothing(change)]


def listed(found: Sequence[Change]) -> str:
    """The changes for a message, on a line each."""
    lines = [str(change) for change in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append(f"and {len(found) - _SHOWN} more")
    return "\n         ".join(lines)


def _any(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def _is_nothing(change: Change) -> bool:
    """Whether one recipe leaves out what the other sets to nothing, such as `report: []`."""
    return all(value in (UNSET, None, [], {}) for value in change[1:])


def _filled(data: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The data with the defaults of those options that only the other recipe spells out."""
    filled = dict(data)
    for name, section in data.items():
        theirs = other.get(name)
        if isinstance(section, Mapping) and isinstance(theirs, Mapping):
            filled[name] = {**section, **dict(_defaults(name, section, theirs))}
    return filled


def _defaults(name: str, section: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for option in other.keys() - section.keys() - {"name"}:
        if name == "train":
            known = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
            default = known.get(option, UNSET)
        elif name in _REGISTRIES:
            default = default_of(_REGISTRIES[name], str(section.get("name", "adamw")), option)
        else:
            continue
        yield option, list(default) if isinstance(default, tuple) else default
