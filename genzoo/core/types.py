"""The seams: small protocols and records through which families, data and the trainer meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from genzoo.core.node import Node
    from genzoo.core.recipe import Recipe
    from genzoo.core.seeds import SampleStreams

Batch = Mapping[str, Any]
"""Tensors with a leading batch axis, or lists of strings; each data set's docstring names its keys."""

Sampler = Callable[..., "Tensor"]
"""(denoise, x_T, schedule, generator, *, steps, ...) -> x_0; a plain function."""


@dataclass(frozen=True)
class LossOutput:
    """loss: (), differentiable.   metrics: detached scalars, logged as given."""

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


def mean_loss(terms: Mapping[str, Tensor]) -> LossOutput:
    """The mean of "loss", and of every term as a metric.   terms: each (b,)."""
    return LossOutput(terms["loss"].mean(), {name: term.detach().mean() for name, term in terms.items()})


class Task(Protocol):
    """What to optimise: the one thing a family hands to the trainer.

    What only some tasks can do is in genzoo.core.contracts.tasks.
    """

    model: nn.Module

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the model and the frozen helpers (codec, text encoder, base); dtype goes to the helpers."""

    def prepare_batch(self, batch: Batch, generator: SampleStreams) -> Batch:
        """Encode, tokenise, drop labels; runs without gradients."""

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams) -> LossOutput:
        """The mean loss over the batch. `model` is the PREPARED module: using self.model would bypass DDP."""

    def conditions(self, num: int, **options: Any) -> Batch:
        """What to condition `num` samples on, from a user's options (class_labels=..., prompt=..., ...).

        Options left out get a sensible default. Raises UsageError for an option this task has no use for.
        """

    def sample(self, model: nn.Module, conditions: Batch, generator: SampleStreams, **options: Any) -> Tensor:
        """Samples (n, c, h, w) or (n, f, c, h, w) in [-1, 1]; options (steps, ...) override the recipe."""


class Dataset(Protocol):
    """Map-style data. `fetch` draws its augmentation from the generator it is given, and nothing else.

    What only some data sets can do is in genzoo.core.contracts.datasets.
    """

    sample_shape: tuple[int, ...]  # of the pixels: (c, h, w) or (f, c, h, w)
    num_classes: int | None
    class_names: list[str] | None

    @property
    def fingerprint(self) -> str:
        """Changes with the data and with the settings that shape them."""

    def __len__(self) -> int: ...

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """One item as a dict, such as {"pixels": (c, h, w) float32 in [-1, 1], "class_labels": int64 ()}.

        Without a generator there is no augmentation. Raises DataError naming the file when it cannot be read.
        """


class DrawnSamples(Protocol):
    """What sampling a run gives; pictures that save themselves."""

    @property
    def pixels(self) -> Tensor:
        """(n, c, h, w) or (n, f, c, h, w) float in [-1, 1], on the CPU."""

    @property
    def images(self) -> Tensor:
        """The same as uint8."""

    def grid(self, *, columns: int | None = None) -> Any:
        """All in one picture, which has `save(path)`."""

    def animation(self, *, columns: int | None = None) -> Any:
        """All clips side by side, which have `save(path)`."""


class MeasuredPlan(Protocol):
    """What a metric may know of a recipe."""

    @property
    def data(self) -> Node: ...

    @property
    def model(self) -> Node: ...

    @property
    def sampler(self) -> Node | None: ...


class MeasuredRun(Protocol):
    """What a metric takes: a trained run, its data and task, and samples of it.

    folder: where pictures and files go.   plan: what its recipe says.   step: of the newest checkpoint.
    """

    @property
    def folder(self) -> Path: ...

    @property
    def plan(self) -> MeasuredPlan: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def step(self) -> int: ...

    def dataset(self) -> Dataset:
        """The data set of training; of cached latents or controls, the images."""

    def task(self) -> Task:
        """The task with its trained weights, the averaged ones where there are any, in evaluation mode."""

    def sample(self, *, num: int | None = None, seed: int = 0, **options: Any) -> DrawnSamples:
        """Samples with those weights; options say what (class_labels, ...) and how (steps, ...)."""

    def variant(self, name: str, changes: Mapping[str, Any]) -> MeasuredRun:
        """The same recipe with other settings (dotted keys), trained once into the run's folder."""


class LatentCodec(Protocol):
    """Pixels to latents and back. Clips (b, f, ...) go frame by frame and come back as clips.

    Letters: pixels (b, p, H, W) in [-1, 1], or (b, f, p, H, W); latents (b, c, h, w), or (b, f, c, h, w),
    scaled to about unit variance.   fingerprint: changes with the weights and with the settings that change
    latents.
    """

    fingerprint: str

    def latent_shape(self, pixel_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(p, H, W) or (f, p, H, W) of one sample -> (c, h, w) or (f, c, h, w). Raises ShapeError."""

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the weights; dtype is that of their arithmetic, latents stay float32."""

    def moments(self, pixels: Tensor) -> Tensor:
        """Pixels -> what a cache stores: mean and log-variance, 2c channels; or latents, c. Unscaled."""

    def sample_moments(self, moments: Tensor, generator: SampleStreams) -> Tensor:
        """Moments -> scaled latents, drawn from each sample's own stream where there is a variance."""

    def encode(self, pixels: Tensor, generator: SampleStreams) -> Tensor:
        """`sample_moments` of the `moments`: pixels -> scaled latents."""

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> pixels in about [-1, 1], not clamped."""


class ControlExtractor(Protocol):
    """Pictures to control pictures, such as their edges; CONTROLS holds factories.

    channels: 1 for grey controls, whose three channels are alike, else 3.   fingerprint: changes with the
    name, the settings and the weights; data and checkpoints record it.
    """

    channels: int
    fingerprint: str

    def to(self, device: torch.device | str) -> None: ...
    def __call__(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> controls of that shape and range, each from its own picture alone."""


@dataclass(frozen=True)
class Conversion:
    """Foreign weights made ours: what `create_model(model, **arguments)` loads, and each entry's fate.

    report: (foreign entry, our key or None when it is not carried over, why).
    """

    model: str
    arguments: dict[str, Any]
    weights: dict[str, Tensor]
    report: list[tuple[str, str | None, str]]


class Converter(Protocol):
    """Reads and writes one layout of released weights; CONVERTERS holds factories without arguments.

    A foreign file is read as `tree`: tensors by name, or mappings of them, with other entries beside.
    """

    recipe: str  # the one that such weights are usually sampled with: its codec, sampler and task

    def detect(self, tree: Mapping[str, Any]) -> bool:
        """Whether the file is in this layout."""

    def to_genzoo(self, tree: Mapping[str, Any], **arguments: Any) -> Conversion:
        """Our model and weights; `arguments` settle what the tensors cannot tell. Raises WeightsError."""

    def from_genzoo(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same weights in the foreign layout. Raises WeightsError when they are not of that model."""
