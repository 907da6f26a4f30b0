"""What only some tasks can do, or say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genzoo.core.contracts import able

if TYPE_CHECKING:
    from torch import Tensor, nn

    from genzoo.core.seeds import SampleStreams
    from genzoo.core.types import Batch, ControlExtractor, LatentCodec


class RecordsFacts(Protocol):
    """facts: strings that checkpoints record, and that must not differ where they are used again, such as
    which extractor made the controls."""

    facts: Mapping[str, str]


def recorded_facts(task: object) -> Mapping[str, str]:
    """What a task wants recorded; empty for most."""
    recording = able(task, RecordsFacts)
    return {} if recording is None else recording.facts


class DrawsAgain(Protocol):
    """Previews and evaluations during training then draw pictures of the data again."""

    def conditions_from(self, batch: Batch) -> dict[str, Any]:
        """Options for `conditions` that draw a batch's items again."""


class HoldsOut(Protocol):
    """The loss can be looked at sample by sample, at levels of noise that are chosen for it."""

    def held_out_batch(self, batch: Batch, generator: SampleStreams, level: Tensor) -> Batch:
        """A prepared batch with nothing hidden.   level: (b,) in [0, 1), 0 all noise, 1 none."""

    def sample_losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Losses of a prepared batch, (b,)."""

    def level_density(self, level: Tensor) -> Tensor:
        """How often training meets these levels (b,), relative to meeting all alike."""


class SuppliesLossOptions(Protocol):
    """Of the class of a task. supplies: options of a loss that the task sets, so that a recipe may not."""

    supplies: Sequence[str]


class Predicts(Protocol):
    """prediction: what the model predicts, such as "noise" or "x_0"; weights do not move between these."""

    prediction: str


class KnowsLatentShape(Protocol):
    """latent_shape: of one sample, (c, h, w), or (f, c, h, w) where samples are clips."""

    latent_shape: tuple[int, ...]


def frames_of(task: object) -> int | None:
    """How many frames the samples of a task have, as its model counts them; None of pictures."""
    shaped = able(task, KnowsLatentShape)
    return shaped.latent_shape[0] if shaped is not None and len(shaped.latent_shape) == 4 else None


def makes_clips(task: object) -> bool:
    """Whether the samples of a task are clips (f, c, h, w)."""
    return frames_of(task) is not None


class KnowsSides(Protocol):
    """pixel_size: height and width of the pictures that a task makes and is controlled by."""

    @property
    def pixel_size(self) -> tuple[int, int]: ...


class HasCodec(Protocol):
    """codec: between pixels and what the task trains on; None for a task on pixels."""

    codec: LatentCodec | None


class ExtractsControls(Protocol):
    """extract: makes the controls, (b, 3, h, w) in [-1, 1] -> the same; None for a task without."""

    extract: ControlExtractor | None


class ChoosesSampler(Protocol):
    """sampler: the section that `sample` starts from, {"name": ..., options}; empty where there is none."""

    sampler: Mapping[str, Any]


class SharesSamplingOptions(Protocol):
    """Of the class of a task. sampling_options: callables whose parameters every sampler section may hold."""

    sampling_options: Sequence[Callable[..., Any]]


class HasKinds(Protocol):
    """Of the class of a task that stands for several: it is asked for settings and abilities before a model
    is there, and its kind for the model is built."""

    def kind_for(self, model: nn.Module) -> Callable[..., Any]:
        """The class that is called with the model and the recipe's settings."""


class SamplesAsTrained(Protocol):
    """run_precision: of the training, such as "bf16", which sampling follows unless told otherwise."""

    run_precision: str


class SamplesRounded(Protocol):
    """A task draws samples with frozen weights that lie in 16 bits, and widens those itself that it must."""

    def sampling_pass(self, num: int) -> None:
        """What `sample` holds at its most for `num` samples: one call of the network, and their decoding; on
        weights that may be shapes alone, for whoever counts memory."""


class TakesRuns(Protocol):
    """run_options: options of `conditions` that name other runs; they arrive as {place: its task}."""

    run_options: Sequence[str]


class TakesOnceForAll(Protocol):
    """once_for_all: options of `conditions` that hold for all samples, lists though they may be."""

    once_for_all: Sequence[str]


class ExportsPart(Protocol):
    """A task that trains a part of its model, or has layouts of its own, writes what was trained."""

    def export(self, path: str | Path, *, layout: str | None, half: bool, **notes: Any) -> Path:
        """Write the file or folder and return its path. layout: None is the task's own. half: 16 bits."""


class ExportsForClients(Protocol):
    """A task writes what was trained as the files of another program, such as a web interface."""

    def export_for(self, path: str | Path, *, client: str) -> tuple[Path, list[str]]:
        """Write a new folder; the lines say where its files go, and what to type there."""
