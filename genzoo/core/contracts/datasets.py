"""What only some data sets can do, or say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genzoo.core.contracts import able

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from genzoo.core.processes import World
    from genzoo.core.types import ControlExtractor, Dataset, LatentCodec


class TellsModel(Protocol):
    """tells: names of attributes that a model's `auto` arguments may ask for; of the class or factory too."""

    tells: Sequence[str]


class Augments(Protocol):
    """augments: whether `fetch` makes use of a generator; a data set that does not say is taken to."""

    augments: bool


def augments(dataset: object) -> bool:
    """Whether a data set's `fetch` makes use of a generator; True unless it says otherwise."""
    said = able(dataset, Augments)
    return True if said is None else bool(said.augments)


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


def labels_of(dataset: object) -> Tensor | None:
    """(n,) int64 of all items, or None when they are not known or there are none."""
    labelled = able(dataset, HasLabels)
    return None if labelled is None else labelled.labels


class Annotates(Protocol):
    """What an item carries besides pixels is known without decoding it."""

    def annotations(self, index: int) -> dict[str, Any]:
        """Such as {"class_labels": int64 ()}; the keys and values of `fetch` but for the pixels."""


class KnowsPath(Protocol):
    """Items are files."""

    def path(self, index: int) -> Path:
        """The file of an item."""


class KnowsContent(Protocol):
    """The bytes that an item is made from tell whether it changed."""

    def content(self, index: int) -> bytes:
        """The bytes of an item. Raises DataError when they cannot be read."""


class KnowsStamp(Protocol):
    """A change of an item shows without reading it."""

    def stamp(self, index: int) -> str:
        """Such as name, size and time of change of its file."""


class KnowsPictures(Protocol):
    """pictures_fingerprint: like the fingerprint, without what is drawn anew at each visit, such as flips."""

    pictures_fingerprint: str


class NamesTransform(Protocol):
    """transform: the way from bytes to pixels in words, flips aside; part of a cache's key."""

    transform: str


class LeavesOut(Protocol):
    """left_out: names of files that lie among the data and are no items."""

    left_out: Sequence[str]


class KnowsLengths(Protocol):
    """lengths: (n,) frames of every clip that was found; 0 of one that cannot be read."""

    lengths: Sequence[int]


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
