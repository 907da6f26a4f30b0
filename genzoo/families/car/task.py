"""Training and sampling of next-scale prediction, with a control or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.autoregression.loss import next_scale_loss
from genzoo.autoregression.progressive import Stage, build_progressive
from genzoo.autoregression.sampling import SampledScales, sample_scales
from genzoo.core.contracts import able
from genzoo.core.contracts.parts import HasFingerprint, MovesTo
from genzoo.core.controls import build_control
from genzoo.core.errors import DataError, UsageError, unused_options
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LossOutput
from genzoo.families.car.control.collaboration import predictor, refiner_conditions
from genzoo.families.car.control.conditions import (
    Pictures,
    given_tokens,
    read_pictures,
    redraw_mask,
)
from genzoo.families.car.control.guidance import ControlGuidance
from genzoo.families.car.control.inputs import ControlEncoding, control_inputs, drop_controls
from genzoo.families.car.control.mixing import Strength
from genzoo.families.car.control.model import CAR
from genzoo.families.car.control.steering import (
    GivenControls,
    control_conditions,
    guidance_of,
)
from genzoo.families.car.var.bf16_copy import HalfCopy
from genzoo.families.car.var.model import VAR
from genzoo.families.car.var.sampler_options import checked_options, draw_options
from genzoo.families.car.vqvae.codec import VQVAECodec
from genzoo.families.car.vqvae.wrong_tokens import with_wrong_tokens
from genzoo.kernels.group_norm import channels_last_where_faster
from genzoo.nn.embeddings import check_label_range, chosen_labels, drop_labels
from genzoo.nn.evaluating import evaluating

CONDITIONS = (
    "class_labels",
    "control",
    "control_from",
    "control_scale",
    "control_guidance",
    "control_ramp",
    "control_against",
    "control_runs",
    "refiner_run",
    "draft_scales",
    "image",
    "region",
    "redraw",
)


class NextScaleTask:
    """Trains a VAR, or a CAR on its frozen base, on the tokens of a VQVAE.

    codec: a VQVAECodec of the model's scales.   sampler: a section {"name": "next_scale", "guidance_scale":
    2.5, ...}. label_dropout: probability of hiding a label in training, which guidance needs.
    control_dropout: of replacing a control by mid grey, which guidance against grey needs; the
    paper never does. wrong_tokens: the largest share of tokens that are shown as other codes in training,
    which finer scales learn to make up for. label_smoothing: of the cross-entropy.   progressive:
    {"until": 0.5, ...} adds the scales one by one, see `genzoo.autoregression.progressive.Progressive`.
    control: the extractor of a
    CAR's controls, by name or as {"name": ..., settings}, or a function from pixels (b, 3, h, w) to controls
    of that shape. It says what the data's controls were made by, and makes them where the data have none.

    Batches hold "pixels" (b, 3, h, w) in [-1, 1] or "moments" from a latent cache, "class_labels" (b,), and
    for a CAR "control" (b, 3, h, w) unless it is extracted.
    """

    run_options = ("control_runs", "refiner_run")
    once_for_all = ("control_scale",)

    def __init__(
        self,
        model: nn.Module,
        *,
        codec: VQVAECodec | None = None,
        sampler: Mapping[str, Any] | None = None,
        label_dropout: float = 0.1,
        label_smoothing: float = 0.0,
        control_dropout: float = 0.0,
        wrong_tokens: float = 0.0,
        progressive: Mapping[str, Any] | None = None,
        control: str | Mapping[str, Any] | Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not isinstance(model, (VAR, CAR)):
            raise UsageError(f"this task trains a VAR or a CAR, not a {type(model).__name__}")
        if not isinstance(codec, VQVAECodec):
            raise UsageError(
                "this task reads tokens, so it needs a VQVAE", fix="set codec: {base: codecs/vqvae}"
            )
        shares = {
            "label_dropout": label_dropout,
            "label_smoothing": label_smoothing,
            "control_dropout": control_dropout,
            "wrong_tokens": wrong_tokens,
        }
        for name, share in shares.items():
            if not 0.0 <= share < 1.0:
                raise UsageError(f"{name} is a share below 1, not {share}")
        if control_dropout and not isinstance(model, CAR):
            raise UsageError("control_dropout hides a control, and a VAR has none", fix="leave it out")
        base = model.base if isinstance(model, CAR) else model
        codec.require_tokens(model.patch_nums, base.word_embed.in_features, base.head.out_features)
        self.model, self.codec = model, codec
        self.num_classes = model.num_classes
        self.label_dropout, self.label_smoothing = label_dropout, label_smoothing
        self.control_dropout, self.wrong_tokens = control_dropout, wrong_tokens
        self._whole = Stage(num_scales=len(model.patch_nums), last_weight=1.0)
        self.progressive = build_progressive(progressive, self._whole.num_scales)
        self.sampler = checked_options(sampler or {})
        self.control_name = _name_of(control)
        self.extract = build_control(control) if isinstance(control, (str, Mapping)) else control
        self.encode_control, self.encode_null = ControlEncoding(codec), ControlEncoding(codec)
        self.half = HalfCopy(channels_last_where_faster)

    @property
    def facts(self) -> dict[str, str]:
        """What checkpoints record: whose tokens the model speaks, and which extractor makes the controls."""
        known = able(self.extract, HasFingerprint)
        extractor = {} if known is None else {"control extractor": str(known.fingerprint)}
        return {"VQVAE of the tokens": self.codec.fingerprint} | extractor

    @property
    def pixel_size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        height, width = self.codec.quantizer.sizes[-1]
        return height * self.codec.vqvae.factor, width * self.codec.vqvae.factor

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the model and the codec; dtype goes to the codec's decoder."""
        self.model.to(device)
        self.codec.to(device, dtype)
        movable = able(self.extract, MovesTo)
        if movable is not None:
            movable.to(device)

    @torch.no_grad()
    def prepare_batch(self, batch: Batch, generator: SampleStreams) -> Batch:
        """Tokens, what is read from the second scale on, labels with some dropped, and the control's pyramid.

        Returns "ids" (b, l) int64, "teacher_input" (b, l - l_0, c), "class_labels" (b,), and for a CAR
        "control", one tensor per scale. Where training is progressive, scales that come later are left out,
        by the batch's "step" of "steps", and "stage" says so.
        """
        device = next(self.model.parameters()).device
        latents = self._latents(batch, generator, device)
        labels = self._labels(batch).to(device)
        stage = self._stage(batch)
        ids, shown = self._tokens(latents, generator)
        read = self.codec.quantizer.teacher_input(shown)
        prepared: dict[str, Any] = {
            "ids": torch.cat(ids[: stage.num_scales], dim=1),
            "teacher_input": torch.cat(read[: stage.num_scales - 1], dim=1),
            "class_labels": drop_labels(labels, self.label_dropout, self.num_classes, generator),
        }
        if self.progressive is not None:
            prepared["stage"] = stage
        if isinstance(self.model, CAR):
            control = drop_controls(self._control(batch).to(device), self.control_dropout, generator)
            pyramid = control_inputs(self.model, self.codec, control, exact=False)
            prepared["control"] = pyramid[: stage.num_scales]
        return prepared

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """Mean cross-entropy of a prepared batch; a function of the batch alone, but for dropped paths."""
        control = () if "control" not in batch else (batch["control"],)
        stage: Stage = batch.get("stage", self._whole)
        logits = model(batch["class_labels"], batch["teacher_input"], *control, num_scales=stage.num_scales)
        terms = next_scale_loss(
            logits,
            batch["ids"],
            self.codec.patch_nums,
            label_smoothing=self.label_smoothing,
            num_scales=stage.num_scales,
            last_scale_weight=stage.last_weight,
        )
        return LossOutput(terms["loss"], {name: term.detach() for name, term in terms.items()})

    def conditions(
        self,
        num: int,
        class_labels: int | Sequence[int] | Tensor | None = None,
        control: GivenControls | None = None,
        control_from: GivenControls | None = None,
        control_scale: Strength | Sequence[Strength] | None = None,
        control_guidance: str = "both_halves",
        control_ramp: float = 0.0,
        control_against: str = "base",
        control_runs: Mapping[str, NextScaleTask] | None = None,
        refiner_run: Mapping[str, NextScaleTask] | None = None,
        draft_scales: int | None = None,
        image: Pictures | None = None,
        region: str | None = None,
        redraw: str = "inside",
        **unknown: Any,
    ) -> Batch:
        """What to condition `num` samples on.

        class_labels: one for all, or one for each; every class in turn when left out.   control: extracted
        already; {"canny": ..., "hed": ...} for several, each for the run that was trained on such.
        control_from: pictures to extract it from, by every run.   control_runs: tasks of further runs on the
        same base, by their places.   control_scale: strength of the control, or of each: 0 leaves the base
        alone, 1 is the CAR, more pushes further, less than 0 away; see `Strength` for schedules over scales.
        control_guidance, control_ramp, control_against: how control and label guide together, see
        `ControlGuidance`.
        refiner_run, draft_scales: this run draws so many scales, the task of another run, which may be
        smaller, the finer ones; both follow the control where there is one.
        image, region, redraw: keep this picture's tokens but for those inside (or outside) the region; with
        another label this edits the class.
        """
        if unknown:
            raise unused_options(unknown, CONDITIONS)
        made: dict[str, Any] = {"class_labels": chosen_labels(num, class_labels, self.num_classes)}
        guidance = ControlGuidance(control_guidance, control_ramp, control_against)
        made |= control_conditions(self, num, control, control_from, control_scale, control_runs, guidance)
        made |= refiner_conditions(self, num, refiner_run, draft_scales)
        if (image is None) != (region is None):
            raise UsageError(
                "a picture is changed in a region", fix="give image=photo.png and region=0.2,0.2,0.8,0.8"
            )
        if image is not None and region is not None:
            made["image"] = read_pictures(image, num, self.pixel_size, what="image")
            made["redraw"] = redraw_mask(region, redraw, num, self.pixel_size)
        return made

    def conditions_from(self, batch: Batch) -> dict[str, Any]:
        """What `conditions` takes to draw a batch's pictures again: their labels, and a CAR's controls."""
        if not isinstance(self.model, CAR):
            return {}
        return {"class_labels": self._labels(batch), "control": self._control(batch)}

    @torch.no_grad()
    def sample(
        self, model: nn.Module, conditions: Batch, generator: SampleStreams, **overrides: Any
    ) -> Tensor:
        """Pixels (n, 3, h, w) in [-1, 1], one for each stream; overrides: guidance_scale=5.0, ..."""
        f_hat = self.sample_scales(model, conditions, generator, **overrides).f_hat
        precision = draw_options(checked_options(self.sampler | overrides)).precision
        return self.codec.decode(f_hat, precision=precision)

    @torch.no_grad()
    def sample_scales(
        self, model: nn.Module, conditions: Batch, generator: SampleStreams, **overrides: Any
    ) -> SampledScales:
        """Tokens of every scale, and what the decoder makes pixels of."""
        assert isinstance(model, (VAR, CAR))
        chosen = draw_options(checked_options(self.sampler | overrides))
        model = self.half(model) if chosen.precision == "bf16" else model
        labels = conditions["class_labels"].to(next(model.parameters()).device)
        device = labels.device
        if len(labels) != len(generator):
            raise UsageError(
                f"{len(labels)} class_labels for {len(generator)} samples", fix="use task.conditions"
            )
        given = None
        if "image" in conditions:
            given = given_tokens(self.codec, conditions["image"].to(device), conditions["redraw"].to(device))
        with evaluating(model):
            if chosen.is_guided or guidance_of(conditions).takes_both_halves:
                labels = torch.cat([labels, torch.full_like(labels, self.num_classes)])
            predict = predictor(self, model, labels, conditions, chosen)
            quantizer, patch_nums = self.codec.quantizer, self.codec.patch_nums
            return sample_scales(predict, quantizer, patch_nums, generator, chosen, given=given)

    def _tokens(self, latents: Tensor, generator: SampleStreams) -> tuple[list[Tensor], list[Tensor]]:
        """What is to be predicted of every scale, and what is shown of it to those after."""
        if self.wrong_tokens:
            return with_wrong_tokens(self.codec.quantizer, latents, self.wrong_tokens, generator)
        ids = self.codec.tokens(latents)
        return ids, ids

    def _stage(self, batch: Batch) -> Stage:
        if self.progressive is None or "step" not in batch:
            return self._whole
        return self.progressive.stage(batch["step"], batch["steps"], self._whole.num_scales)

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
            control: Tensor = batch["control"]
            seen, expected = tuple(control.shape[1:]), (3, *self.pixel_size)
            if seen != expected:
                fix = "cut them with their pictures: `genzoo prepare controls` does"
                raise DataError(f"the data's controls are {seen}; {expected} is expected", fix=fix)
            return control
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


def _name_of(control: Any) -> str:
    """Under which name a user gives this extractor's controls."""
    if isinstance(control, str):
        return control
    return str(control.get("name")) if isinstance(control, Mapping) else "control"
