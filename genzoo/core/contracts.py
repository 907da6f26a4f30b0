"""Optional abilities, one small protocol for each, and `able`, the one place that asks for them.

What everything of a kind must have stands in genzoo.core.types. What only some have is here: a task, data
set, model or codec has an ability by having the members, and needs no import and no base class. Ask with

    flips = able(dataset, Flips)
    if flips is not None and flips.horizontal_flip: ...

and compare with None: an empty data set is false.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from genzoo.core.node import Node
    from genzoo.core.processes import World
    from genzoo.core.seeds import SampleStreams
    from genzoo.core.types import Batch, ControlExtractor, Dataset, LatentCodec

T = TypeVar("T")


def able(x: object, ability: type[T]) -> T | None:
    """`x` as something with the ability, or None when it lacks a member of that protocol.

    A method set to None is a method that is not there.
    """
    attributes, methods = _attributes(ability), _methods(ability)
    has_all = all(hasattr(x, name) for name in attributes)
    return cast(T, x) if has_all and all(callable(getattr(x, name, None)) for name in methods) else None


def members(ability: type[Any]) -> tuple[str, ...]:
    """The attributes and methods that a protocol of this module asks for."""
    return (*_attributes(ability), *_methods(ability))


def _attributes(ability: type[Any]) -> list[str]:
    return list(inspect.get_annotations(ability))


def _methods(ability: type[Any]) -> list[str]:
    return [name for name, value in vars(ability).items() if callable(value) and not name.startswith("_")]


# Tasks


class RecordsFacts(Protocol):
    """facts: strings that checkpoints record, and that must not differ where they are used again, such as
    which extractor made the controls."""

    facts: Mapping[str, str]


class ReadsInChunks(Protocol):
    """A model of prompts reads long ones several times; those of one length are sampled together."""

    def num_chunks(self, prompt: str) -> int:
        """How often it reads to reach the prompt's end."""


class DrawsAgain(Protocol):
    """Previews and evaluations during training then draw pictures of the data again."""

    def conditions_from(self, batch: Batch) -> dict[str, Any]:
        """Options for `conditions` that draw a batch's items again."""


class ExportsPart(Protocol):
    """A task that trains a part of its model, or has layouts of its own, writes what was trained."""

    def export(self, path: str | Path, *, layout: str | None, half: bool, **notes: Any) -> Path:
        """Write the file or folder and return its path. layout: None is the task's own. half: 16 bits."""


class ExportsForClients(Protocol):
    """A task writes what was trained as the files of another program, such as a web interface."""

    def export_for(self, path: str | Path, *, client: str) -> tuple[Path, list[str]]:
        """Write a new folder; the lines say where its files go, and what to type there."""


class ExtractsControls(Protocol):
    """extract: makes the controls, (b, 3, h, w) in [-1, 1] -> the same; None for a task without."""

    extract: ControlExtractor | None


class SaysSettings(Protocol):
    """described: name and settings of an extractor, for people; `build_control` sets it."""

    described: str


class KnowsSides(Protocol):
    """pixel_size: height and width of the pictures that a task makes and is controlled by."""

    @property
    def pixel_size(self) -> tuple[int, int]: ...


class Predicts(Protocol):
    """prediction: what the model predicts, such as "noise" or "x_0"; weights do not move between these."""

    prediction: str


class KnowsLatentShape(Protocol):
    """latent_shape: of one sample, (c, h, w), or (f, c, h, w) where samples are clips."""

    latent_shape: tuple[int, ...]


class ChoosesSampler(Protocol):
    """sampler: the section that `sample` starts from, {"name": ..., options}; empty where there is none."""

    sampler: Mapping[str, Any]


class SharesSamplingOptions(Protocol):
    """Of the class of a task. sampling_options: callables whose parameters every sampler section may hold."""

    sampling_options: Sequence[Callable[..., Any]]


class SamplesAsTrained(Protocol):
    """run_precision: of the training, such as "bf16", which sampling follows unless told otherwise."""

    run_precision: str


class SuppliesLossOptions(Protocol):
    """Of the class of a task. supplies: options of a loss that the task sets, so that a recipe may not."""

    supplies: Sequence[str]


class ShapesSlots(Protocol):
    """An optimizer of which some slots are not shaped as their parameter."""

    def slot_shape(self, slot: str, parameter: Tensor) -> tuple[int, ...] | None:
        """The shape of such a slot; None for those that are shaped as their parameter."""


class RefitsTensors(Protocol):
    """A model that can begin with tensors of another shape than its own."""

    def refitted(self, name: str, weights: Mapping[str, Tensor]) -> Tensor | None:
        """Tensor `name` of other weights as this model takes it, such as positions of other maps."""


class TakesRuns(Protocol):
    """run_options: options of `conditions` that name other runs; they arrive as {place: its task}."""

    run_options: Sequence[str]


class TakesOnceForAll(Protocol):
    """once_for_all: options of `conditions` that hold for all samples, lists though they may be."""

    once_for_all: Sequence[str]


def recorded_facts(task: object) -> Mapping[str, str]:
    """What a task wants recorded; empty for most."""
    recording = able(task, RecordsFacts)
    return {} if recording is None else recording.facts


def makes_clips(task: object) -> bool:
    """Whether the samples of a task are clips (f, c, h, w)."""
    return frames_of(task) is not None


def frames_of(task: object) -> int | None:
    """How many frames the samples of a task have, as its model counts them; None of pictures."""
    shaped = able(task, KnowsLatentShape)
    return shaped.latent_shape[0] if shaped is not None and len(shaped.latent_shape) == 4 else None


class NeedsClasses(Protocol):
    """Of a metric. needs_classes: it asks for samples by class, so that data without classes say nothing."""

    needs_classes: bool


class HoldsOut(Protocol):
    """The loss can be looked at sample by sample, at levels of noise that are chosen for it."""

    def held_out_batch(self, batch: Batch, generator: SampleStreams, level: Tensor) -> Batch:
        """A prepared batch with nothing hidden.   level: (b,) in [0, 1), 0 all noise, 1 none."""

    def sample_losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Losses of a prepared batch, (b,)."""

    def level_density(self, level: Tensor) -> Tensor:
        """How often training meets these levels (b,), relative to meeting all alike."""


# Data sets


class TellsModel(Protocol):
    """tells: names of attributes that a model's `auto` arguments may ask for; of the class or factory too."""

    tells: Sequence[str]


class Augments(Protocol):
    """augments: whether `fetch` makes use of a generator; a data set that does not say is taken to."""

    augments: bool


class Flips(Protocol):
    """horizontal_flip: whether half of the items are mirrored, decided by the generator's first draw."""

    horizontal_flip: bool


class Moves(Protocol):
    """max_shift: pixels by which items are moved at random, both ways; 0 leaves them where they are."""

    max_shift: int


class FetchesMany(Protocol):
    """Several items at once are cheaper than one by one."""

    def fetch_many(
        self, indices: Sequence[int], generators: Sequence[torch.Generator | None]
    ) -> Mapping[str, Any]:
        """What `fetch` gives for each index with its generator, collated along a leading axis (b,)."""


class HasLabels(Protocol):
    """labels: (n,) int64 of all items, known without fetching; None without classes."""

    labels: Tensor | None


class Annotates(Protocol):
    """What an item carries besides pixels is known without decoding it."""

    def annotations(self, index: int) -> dict[str, Any]:
        """Such as {"class_labels": int64 ()}; the keys and values of `fetch` but for the pixels."""


class KnowsPath(Protocol):
    """Items are files."""

    def path(self, index: int) -> Path:
        """The file of an item."""


class KnowsPictures(Protocol):
    """pictures_fingerprint: like the fingerprint, without what is drawn anew at each visit, such as flips."""

    pictures_fingerprint: str


class LeavesOut(Protocol):
    """left_out: names of files that lie among the data and are no items."""

    left_out: Sequence[str]


class KnowsLengths(Protocol):
    """lengths: (n,) frames of every clip that was found; 0 of one that cannot be read."""

    lengths: Sequence[int]


class KnowsContent(Protocol):
    """The bytes that an item is made from tell whether it changed."""

    def content(self, index: int) -> bytes:
        """The bytes of an item. Raises DataError when they cannot be read."""


class KnowsStamp(Protocol):
    """A change of an item shows without reading it."""

    def stamp(self, index: int) -> str:
        """Such as name, size and time of change of its file."""


class NamesTransform(Protocol):
    """transform: the way from bytes to pixels in words, flips aside; part of a cache's key."""

    transform: str


class StoresShape(Protocol):
    """stored_shape: of what a latent cache stores for one item, where that is not `sample_shape`."""

    stored_shape: tuple[int, ...]


class NeedsCodec(Protocol):
    """Items are latents that were stored before."""

    def bind_codec(self, codec: LatentCodec | None) -> None:
        """Called once before the first fetch. Raises DataError when the latents are not this codec's."""


class NeedsControl(Protocol):
    """Items hold controls that were stored before."""

    def bind_control(self, extractor: ControlExtractor | None) -> None:
        """Called once before the first fetch. Raises DataError when the controls are not this extractor's."""


class SharesWork(Protocol):
    """Finding what is stored for each item is shared out over processes."""

    def share_work(self, world: World) -> None:
        """Called once, before something is bound; all processes then bind together."""


class WrapsImages(Protocol):
    """images: the data set of pixels behind stored latents or controls."""

    images: Dataset


def pictures_of(dataset: Dataset) -> Dataset:
    """The data set of pixels behind stored latents or controls; any other data set itself."""
    stored = able(dataset, NeedsCodec) is not None or able(dataset, NeedsControl) is not None
    wrapping = able(dataset, WrapsImages) if stored else None
    return dataset if wrapping is None else wrapping.images


def augments(dataset: object) -> bool:
    """Whether a data set's `fetch` makes use of a generator; True unless it says otherwise."""
    said = able(dataset, Augments)
    return True if said is None else bool(said.augments)


def labels_of(dataset: object) -> Tensor | None:
    """(n,) int64 of all items, or None when they are not known or there are none."""
    labelled = able(dataset, HasLabels)
    return None if labelled is None else labelled.labels


# Models and their parts


class RemembersArguments(Protocol):
    """arguments: the keyword arguments that built the model."""

    arguments: Mapping[str, Any]


class HasClasses(Protocol):
    """num_classes: how many class labels the model knows; 0 or None for an unconditional one."""

    num_classes: int | None


class HasFrames(Protocol):
    """num_frames: of the clips (b, f, c, h, w) that the model takes."""

    num_frames: int


class StartsFrom(Protocol):
    """starts_from: names of arguments that say where first weights come from, and nothing else: whoever has
    all of a model's weights builds it without them."""

    starts_from: Sequence[str]


class PredictsVariance(Protocol):
    """learn_sigma: whether a second half of the model's output is a variance."""

    learn_sigma: bool


class HasPatches(Protocol):
    """patch_size: side of the squares of latents that become one token each."""

    patch_size: int


class ChecksFlow(Protocol):
    """A sampler that can say before anything is trained whether its settings fit a flow."""

    def check_flow(self, flow: Any, options: Mapping[str, Any]) -> None:
        """Raise UsageError for options of a section that this flow cannot be sampled with."""


class RoutesTokens(Protocol):
    """A model whose blocks can leave some tokens out in training; `forward` then takes `route`."""

    def routed_sizes(self) -> tuple[int, int]:
        """Tokens of a sample, and blocks they pass."""


class HasFixedTables(Protocol):
    """fixed_tables: names of parameters that are stored but never learned, such as sinusoidal positions."""

    fixed_tables: Sequence[str]


class HasDerivedBuffers(Protocol):
    """derived_buffers: of a module; names of buffers that follow from its arguments and are not stored."""

    derived_buffers: Sequence[str]


class OrdersBlocks(Protocol):
    """orders: of each block of a model of clips, the axis it works along: "spatial", "temporal", ..."""

    orders: Sequence[str]


class NamesBlocks(Protocol):
    """Needed for train.sharding: what lies in no block is gathered for the whole of a step."""

    def sharded_blocks(self) -> Sequence[nn.Module]:
        """Parts that run one after another, each called as a module, whose weights are gathered in turn."""


class CompilesBlocks(Protocol):
    """Needed for train.compile, and for compile in sampling."""

    def compiled_blocks(self) -> Sequence[nn.Module]:
        """Parts that are one graph each, called as modules; equal ones share their compiled code."""


class ReplaysForward(Protocol):
    """Needed for cuda_graphs. replays_forward: whether forward takes tensors and gives one, looks at no value
    and keeps nothing, so that what it does once can be replayed."""

    replays_forward: bool


class NamesResidual(Protocol):
    """residual: the form of a block's residual branch; "dit" where nothing else is said."""

    residual: str


class GivesExample(Protocol):
    """Needed for counting multiply-adds."""

    def example_inputs(self) -> tuple[Any, ...]:
        """The arguments of forward for one sample."""


class GivesGraphs(Protocol):
    """A model or a codec whose networks can leave as graphs, such as ONNX files."""

    def graphs(self) -> Mapping[str, Any]:
        """Each network by the name of its file: a `genzoo.nn.graphs.Graph`."""


class HasCodec(Protocol):
    """codec: between pixels and what the task trains on; None for a task on pixels."""

    codec: LatentCodec | None


class CountsLikePaper(Protocol):
    """Needed for `genzoo count --paper`."""

    def paper_count(self) -> dict[str, float]:
        """The count that the model's paper prints, "params" in millions and "gflops" in 10^9 among it."""


class Reconstructs(Protocol):
    """An autoencoder that can be judged by what it gives back."""

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """(b, c, h, w) in [-1, 1] -> the same, through tokens, or through the latents' mean."""


class MeasuresLatents(Protocol):
    """An autoencoder whose latents are continuous."""

    def latent_deviation(self, pixels: Tensor) -> float:
        """The standard deviation of the latents of these pictures."""


class Shards(Protocol):
    """A tensor of which each process holds a part."""

    def full_tensor(self) -> Tensor:
        """The whole of it, on every process."""

    def to_local(self) -> Tensor:
        """The part that this process holds."""


class SkipsDecay(Protocol):
    """undecayed: of a module, names of parameters of its that an optimizer leaves without weight decay; of a
    mapping of parameters, those of its names. It is no note on the parameter: whoever builds parameters
    again, as accelerate does in loading, passes on what is noted there and fails."""

    undecayed: Collection[str]


class KeepsExact(Protocol):
    """uncast: of a module, names of parameters inside it that are read in float32 even under autocast."""

    uncast: Collection[str]


class MarkedUndecayed(Protocol):
    """_no_weight_decay: True on a parameter of other projects' modules that never decays."""

    _no_weight_decay: bool


def remembered_arguments(model: object) -> Mapping[str, Any]:
    """The keyword arguments that built a model; empty when it does not keep them."""
    kept = able(model, RemembersArguments)
    return {} if kept is None else kept.arguments


def fixed_tables(model: object) -> Sequence[str]:
    """Names of a model's parameters that are never learned."""
    fixed = able(model, HasFixedTables)
    return () if fixed is None else fixed.fixed_tables


# Codecs, extractors, kernels


class SavesItself(Protocol):
    """A codec can go along with a run to another machine."""

    def save(self, folder: Path) -> dict[str, str | None]:
        """Write its weights into an empty folder.

        The arguments that build it from there: names in the folder, None for those that are left out.
        """


class ScalesLatents(Protocol):
    """scaling_factor: what a codec multiplies its latents by, so that their variance is about one."""

    scaling_factor: float


class NormalisesLatents(Protocol):
    """A codec whose latents are (z - offset) scale of the autoencoder's.

    normalisation: has `apply(z)`, `undo(z)` and a `digest`.   measured_by: None for the autoencoder's own
    normalisation.
    """

    normalisation: Any
    measured_by: str | None


class HasFingerprint(Protocol):
    """fingerprint: of an extractor that is more than a plain function."""

    fingerprint: str


class MovesTo(Protocol):
    """An extractor with weights."""

    def to(self, device: torch.device | str) -> Any:
        """Move them."""


class ChecksTask(Protocol):
    """A layout whose weights mean something under certain tasks only."""

    def check_task(self, task: Node) -> None:
        """Raise UsageError when a recipe's task reads such weights otherwise."""


class FusesDirections(Protocol):
    """A kernel's backend, which is a module, that reads its input once for both directions."""

    both_directions: Callable[..., Any]
