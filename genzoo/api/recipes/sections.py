"""The sections of a recipe that name no factory, as records that check their own values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from genzoo.core.errors import RecipeError, UsageError

BLOCK_SIZE = 16
HIGHER_IS_BETTER = ("precision", "recall", "density", "coverage", "vendi", "inception_score", "class_score")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What a recipe's `sampler:` section says about every sampler, beside the arguments of the one it names.

    block_size: samples in one forward pass; the last bits of a sample may depend on it.   compile,
    cuda_graphs, allow_tf32: how the network runs, see `api.sampling.execution.Execution`; previews and
    evaluations while it trains run as training does.
    """

    block_size: int = BLOCK_SIZE
    compile: bool = False
    cuda_graphs: bool = False
    allow_tf32: bool = False

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise RecipeError(f"sampler.block_size: must be at least 1, not {self.block_size}")


@dataclass(frozen=True, kw_only=True)
class InitFrom:
    """A recipe's `init_from:` section.

    path: a run, in a folder, on a hub ("hf://user/repo"), in a file that `export` wrote or that ships
    ("assets:NAME"); a weights file of a known layout; or several, the later ones taking precedence.
    weights: "ema" or "raw", of run folders.   checkpoint: its step, the newest when left out.
    """

    path: str | Sequence[str]
    weights: Literal["ema", "raw"] = "ema"
    checkpoint: int | None = None

    def __post_init__(self) -> None:
        if self.weights not in ("ema", "raw"):
            raise RecipeError(f'init_from.weights: is "ema" or "raw", not {self.weights!r}')

    @property
    def paths(self) -> list[str]:
        """Every source, in order."""
        return [self.path] if isinstance(self.path, str) else list(self.path)


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A recipe's `preview:` section.

    every: optimizer steps between two previews; 0 draws none.   num: pictures.   columns: of the grid.
    class_labels: one for each picture; every class in turn when left out.   steps, guidance_scale: in place
    of the recipe's sampler section. A task that is steered by pictures gets those of `num` items, spread over
    the data set, and the grid shows each above its sample.
    """

    every: int = 1000
    num: int = 16
    seed: int = 0
    columns: int | None = None
    class_labels: Sequence[int] | None = None
    steps: int | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.every < 0:
            problems.append(f"preview.every: must not be negative, not {self.every}")
        if self.num < 1:
            problems.append(f"preview.num: must be at least 1, not {self.num}")
        if self.class_labels is not None and len(self.class_labels) != self.num:
            problems.append(
                f"preview.class_labels: has {len(self.class_labels)} labels for {self.num} pictures"
            )
        if problems:
            raise RecipeError("\n".join(problems))

    def options(self) -> dict[str, Any]:
        """What to hand to the sampler."""
        return {"class_labels": self.class_labels, "steps": self.steps, "guidance_scale": self.guidance_scale}


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A recipe's `held_out:` section: data that are not trained on, and the loss there.

    share: of the items of `data`, which training then leaves out; an item's fate depends on its file or its
    pixels alone, not on the seed.   data: or changes to the `data:` section that name others, such as
    {split: test} or {root: VALIDATION}.   every: optimizer steps between two measurements; the last step is
    measured too.   num: at most so many items.   strata: of the noise level, each with every item once.
    block_size: items in one forward pass.
    """

    share: float | None = None
    data: Mapping[str, Any] | None = None
    every: int = 1000
    num: int = 256
    strata: int = 8
    block_size: int = 64

    def __post_init__(self) -> None:
        problems = [
            f"held_out.{name}: must be at least 1, not {value}"
            for name in ("every", "num", "strata", "block_size")
            if (value := getattr(self, name)) < 1
        ]
        if (self.share is None) == (self.data is None):
            problems.append("held_out.share: give either a share of the data, or other data, and not both")
        if self.share is not None and not 0 < self.share < 1:
            problems.append(f"held_out.share: lies between 0 and 1, not {self.share}")
        if problems:
            raise RecipeError("\n".join(problems))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A recipe's `evaluation:` section.

    every: optimizer steps between two evaluations; the last step is judged too.   protocol, num: as for
    `genzoo evaluate`; the reference is the data set itself.   keep_best: a metric's name, such as lite0_kid:
    the checkpoint with its best value is kept in best/, whatever keep_last says.   better: "lower" or
    "higher", known for the metrics that come with the library.   weights: file of the feature network.
    steps, guidance_scale: in place of the recipe's sampler section.
    """

    every: int = 5000
    protocol: str = "quick"
    num: int | None = None
    seed: int = 0
    keep_best: str | None = None
    better: Literal["lower", "higher"] | None = None
    weights: str | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        problems = [
            f"evaluation.{name}: must be at least {least}, not {value}"
            for name, value, least in (
                ("every", self.every, 1),
                ("num", self.num or 2, 2),
                ("batch_size", self.batch_size, 1),
            )
            if value < least
        ]
        problems += _protocol_problems(self.protocol)
        if problems:
            raise RecipeError("\n".join(problems))

    def lower_is_better(self) -> bool:
        """Whether a smaller value of `keep_best` is the better one."""
        if self.better is not None:
            return self.better == "lower"
        return not any((self.keep_best or "").endswith(name) for name in HIGHER_IS_BETTER)


def _protocol_problems(name: str) -> list[str]:
    from genzoo.evaluation.protocols import load_protocol

    try:
        kind = load_protocol(name).kind
    except UsageError as error:
        return [f"evaluation.protocol: {error.what}"]
    return [] if kind == "images" else [f"evaluation.protocol: {name} does not judge images"]
