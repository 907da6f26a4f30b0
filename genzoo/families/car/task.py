"""Training and sampling of next-scale prediction, with a control or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genzoo.autoregression.loss import next_scale_loss
from genzoo.autoregression.next_scale import shrink
from genzoo.autoregression.sampling import NextScaleOptions, Predict, SampledScales, sample_scales
from genzoo.core.errors import DataError, UsageError, did_you_mean
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LossOutput
from genzoo.families.car.codec import VQVAECodec
from genzoo.families.car.conditions import (
    ControlMemory,
    Pictures,
    given_tokens,
    read_pictures,
    redraw_mask,
)
from genzoo.families.car.model import CAR
from genzoo.families.car.pyramid import control_pyramid
from genzoo.families.car.var import VAR
from genzoo.nn.embeddings import check_label_range, drop_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLER = "next_scale"
CONDITIONS = ("class_labels", "control", "control_from", "image", "region", "redraw")


class NextScaleTask:
    """Trains a VAR, or a CAR on its frozen base, on the tokens of a VQVAE.

    codec: a VQVAECodec of the model's scales.   sampler: a section {"name": "next_scale", "guidance_scale":
    2.5, ...}. label_dropout: probability of hiding a label in training, which guidance needs; the control is
    never hidden. label_smoothing: of the cross-entropy.   control: a function of genzoo.data.controls by
    name, or a function from pixels (b, 3, h, w) to controls of that shape: what a CAR's control is extracted
    with when the data have none.

    Batches hold "pixels" (b, 3, h, w) in [-1, 1] or "moments" from a latent cache, "class_labels" (b,), and
    for a CAR "control" (b, 3, h, w) unless it is extracted.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        codec: VQVAECodec | None = None,
        sampler: Mapping[str, Any] | None = None,
        label_dropout: float = 0.1,
        label_smoothing: float = 0.0,
        control: str | Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not isinstance(model, (VAR, CAR)):
            raise UsageError(f"this task trains a VAR or a CAR, not a {type(model).__name__}")
        if not isinstance(codec, VQVAECodec):
            raise UsageError(
                "this task reads tokens, so it needs a VQVAE", fix="set codec: {base: codecs/vqvae}"
            )
        for name, share in (("label_dropout", label_dropout), ("label_smoothing", label_smoothing)):
            if not 0.0 <= share < 1.0:
                raise UsageError(f"{name} is a share below 1, not {share}")
        _require_same_tokens(model, codec)
        self.model, self.codec = model, codec
        self.num_classes = model.num_classes
        self.label_dropout, self.label_smoothing = label_dropout, label_smoothing
        self.sampler = _options(sampler or {})
        self.extract = _extractor(control)
        self._memory: ControlMemory | None = None

    @property
    def pixel_size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        height, width = self.codec.quantizer.sizes[-1]
        return height * self.codec.vqvae.factor, width * self.codec.vqvae.factor

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the model and the codec; dtype goes to the codec's decoder."""
        self.model.to(device)
        self.codec.to(device, dtype)

    @torch.no_grad()
    def prepare_batch(self, batch: Batch, generator: SampleStreams) -> Batch:
        """Tokens, what is read from the second scale on, labels with some dropped, and the control's pyramid.

        Returns "ids" (b, l) int64, "teacher_input" (b, l - l_0, c), "class_labels" (b,), and for a CAR
        "control", one tensor per scale.
        """
        device = next(self.model.parameters()).device
        latents = self._latents(batch, generator, device)
        ids = self.codec.tokens(latents)
        labels = self._labels(batch).to(device)
        prepared: dict[str, Any] = {
            "ids": torch.cat(ids, dim=1),
            "teacher_input": torch.cat(self.codec.quantizer.teacher_input(ids), dim=1),
            "class_labels": drop_labels(labels, self.label_dropout, self.num_classes, generator),
        }
        if isinstance(self.model, CAR):
            control = self._control(batch).to(device)
            prepared["control"] = self.control_inputs(control, exact=False)
        return prepared

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """Mean cross-entropy of a prepared batch; a function of the batch alone, but for dropped paths."""
        control = () if "control" not in batch else (batch["control"],)
        logits = model(batch["class_labels"], batch["teacher_input"], *control)
        terms = next_scale_loss(
            logits, batch["ids"], self.codec.patch_nums, label_smoothing=self.label_smoothing
        )
        return LossOutput(terms["loss"], {name: term.detach() for name, term in terms.items()})

    def conditions(
        self,
        num: int,
        class_labels: int | Sequence[int] | Tensor | None = None,
        control: Pictures | None = None,
        control_from: Pictures | None = None,
        image: Pictures | None = None,
        region: str | None = None,
        redraw: str = "inside",
        **unknown: Any,
    ) -> Batch:
        """What to condition `num` samples on.

        class_labels: one for all, or one for each; every class in turn when left out.   control: extracted
        already.   control_from: pictures to extract it from.   image, region, redraw: keep this picture's
        tokens but for those inside (or outside) the region; with another label this edits the class.
        """
        if unknown:
            names = ", ".join(f"{key!r}" for key in unknown)
            hint = did_you_mean(next(iter(unknown)), CONDITIONS)
            raise UsageError(
                f"this task has no use for {names}", fix=hint or f"it takes {', '.join(CONDITIONS)}"
            )
        made: dict[str, Any] = {"class_labels": self._chosen_labels(num, class_labels)}
        if control is not None or control_from is not None:
            made["control"] = self._chosen_control(num, control, control_from)
        if (image is None) != (region is None):
            raise UsageError(
                "a picture is changed in a region", fix="give image=photo.png and region=0.2,0.2,0.8,0.8"
            )
        if image is not None and region is not None:
            made["image"] = read_pictures(image, num, self.pixel_size, what="image")
            made["redraw"] = redraw_mask(region, redraw, num, self.pixel_size)
        return made

    @torch.no_grad()
    def sample(
        self, model: nn.Module, conditions: Batch, generator: SampleStreams, **overrides: Any
    ) -> Tensor:
        """Pixels (n, 3, h, w) in [-1, 1], one for each stream; overrides: guidance_scale=5.0, ..."""
        return self.codec.decode(self.sample_scales(model, conditions, generator, **overrides).f_hat)

    @torch.no_grad()
    def sample_scales(
        self, model: nn.Module, conditions: Batch, generator: SampleStreams, **overrides: Any
    ) -> SampledScales:
        """Tokens of every scale, and what the decoder makes pixels of."""
        assert isinstance(model, (VAR, CAR))
        options = _options(self.sampler | overrides)
        chosen = NextScaleOptions(**{key: value for key, value in options.items() if key != "name"})
        device = next(model.parameters()).device
        labels = conditions["class_labels"].to(device)
        if len(labels) != len(generator):
            raise UsageError(
                f"{len(labels)} class_labels for {len(generator)} samples", fix="use task.conditions"
            )
        given = None
        if "image" in conditions:
            given = given_tokens(self.codec, conditions["image"].to(device), conditions["redraw"].to(device))
        with evaluating(model):
            predict = self._decoder(model, labels, conditions.get("control"), guided=chosen.is_guided)
            quantizer, patch_nums = self.codec.quantizer, self.codec.patch_nums
            return sample_scales(predict, quantizer, patch_nums, generator, chosen, given=given)

    def control_inputs(self, control: Tensor, *, exact: bool) -> list[Tensor]:
        """What a CAR reads of a control at every scale.   control: (b, 3, h, w) in [-1, 1]."""
        assert isinstance(self.model, CAR)
        sizes = [(height, width) for _, height, width in self.model.control_shapes()]
        if self.model.fusion == "conv":
            return control_pyramid(control, sizes, exact=exact)
        sums = self.codec.sums(self.codec.moments(control))
        return [shrink(f_hat, size) for f_hat, size in zip(sums, sizes, strict=True)]

    def _decoder(self, model: VAR | CAR, labels: Tensor, control: Tensor | None, *, guided: bool) -> Predict:
        if guided:
            labels = torch.cat([labels, torch.full_like(labels, self.num_classes)])
        if control is None:
            return model.decoder(labels)
        if not isinstance(model, CAR):
            raise UsageError("a control was given, but this model takes none", fix="use a CAR")
        return model.decoder(labels, self._features(model, control.to(labels.device)))

    def _features(self, model: CAR, control: Tensor) -> list[Tensor]:
        """The encoded control; one that all samples share, or that was seen last, is encoded once."""
        if (control != control[:1]).any():
            return model.encode_control(self.control_inputs(control, exact=True))
        first, version = control[:1], tuple(parameter._version for parameter in model.parameters())
        memory = self._memory if model is self.model else None
        if memory is None or memory.version != version or not _is_same(memory.control, first):
            features = model.encode_control(self.control_inputs(first, exact=True))
            memory = ControlMemory(first, features, version)
            self._memory = memory if model is self.model else None
        return memory.features

    def _latents(self, batch: Batch, generator: SampleStreams, device: torch.device) -> Tensor:
        if "moments" in batch:
            return self.codec.sample_moments(batch["moments"].to(device), generator)
        if "pixels" in batch:
            return self.codec.encode(batch["pixels"].to(device), generator)
        raise DataError(
            "the batch has neither pixels nor moments", why=f"it holds {', '.join(sorted(batch))}"
        )

    def _control(self, batch: Batch) -> Tensor:
        if "control" in batch:
            return batch["control"]
        if self.extract is None or "pixels" not in batch:
            raise DataError(
                "the batch has no control",
                why=f"it holds {', '.join(sorted(batch))}",
                fix="use data with controls, or set task.control=canny and train on pixels",
            )
        return self.extract(batch["pixels"])

    def _labels(self, batch: Batch) -> Tensor:
        if "class_labels" not in batch:
            raise DataError(f"the model has {self.num_classes} classes but the data have no class_labels")
        labels: Tensor = batch["class_labels"].long()
        check_label_range(labels, self.num_classes, DataError)
        return labels

    def _chosen_labels(self, num: int, class_labels: int | Sequence[int] | Tensor | None) -> Tensor:
        if class_labels is None:
            return torch.arange(num) % self.num_classes
        labels = torch.as_tensor(class_labels).long()
        labels = labels.expand(num) if labels.ndim == 0 else labels
        if labels.shape != (num,):
            raise UsageError(
                f"{labels.numel()} class_labels for {num} samples", fix="pass one for each, or one for all"
            )
        check_label_range(labels, self.num_classes, UsageError)
        return labels

    def _chosen_control(self, num: int, control: Pictures | None, source: Pictures | None) -> Tensor:
        if not isinstance(self.model, CAR):
            raise UsageError("a control was given, but this model takes none", fix="use a CAR")
        if control is not None and source is not None:
            raise UsageError("control and control_from were given", fix="give one of them")
        if control is not None:
            return read_pictures(control, num, self.pixel_size, what="control")
        if self.extract is None:
            raise UsageError("this task has no extractor", fix="set task.control=canny, or give control=...")
        assert source is not None
        pictures = read_pictures(source, num, self.pixel_size, what="control_from")
        return (
            self.extract(pictures[:1]).expand(num, -1, -1, -1)
            if _shared(pictures)
            else self.extract(pictures)
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and the former mode again at the end."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _options(section: Mapping[str, Any]) -> dict[str, Any]:
    """A sampler section, checked."""
    known = list(NextScaleOptions.__dataclass_fields__)
    unknown = [key for key in section if key not in (*known, "name")]
    if unknown or section.get("name", SAMPLER) != SAMPLER:
        wrong = unknown[0] if unknown else f"name={section['name']}"
        hint = did_you_mean(wrong, known) or f"{SAMPLER} takes {', '.join(known)}"
        raise UsageError(f"tokens are drawn without {wrong!r}", fix=hint)
    NextScaleOptions(**{key: value for key, value in section.items() if key != "name"})
    return dict(section)


def _extractor(control: str | Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor] | None:
    if control is None or callable(control):
        return control
    from genzoo.data.controls import build_control

    return build_control(control)


def _require_same_tokens(model: VAR | CAR, codec: VQVAECodec) -> None:
    base = model.base if isinstance(model, CAR) else model
    ours = (tuple(model.patch_nums), base.word_embed.in_features, base.head.out_features)
    codes = codec.quantizer.weight.shape
    if ours != (tuple(codec.patch_nums), codes[1], codes[0]):
        raise UsageError(
            "the model and the VQVAE disagree about tokens",
            why=f"scales, width, number: {ours} and {(tuple(codec.patch_nums), codes[1], codes[0])}",
            fix="set the model's patch_nums, in_channels and codebook_size, or the codec's patch_nums",
        )


def _shared(pictures: Tensor) -> bool:
    return pictures.stride(0) == 0


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.device == other.device and torch.equal(one, other)
