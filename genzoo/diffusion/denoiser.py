"""What samplers call: a model, its labels and guidance, seen as one function that predicts noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genzoo.diffusion.guidance import Guidance, guided_output
from genzoo.diffusion.process import Prediction, noise_from_x_0, split_output
from genzoo.diffusion.schedule import NoiseSchedule


class Denoiser:
    """(x_t, training timesteps) -> predicted noise, and variance if learned, with channels on axis 1.

    class_labels: (b,), or None for an unconditional model.   null_label: stands for no label.
    prediction: what the model predicts; samplers see noise in any case.   channel_axis: where the model has
    channels.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: NoiseSchedule,
        *,
        class_labels: Tensor | None,
        null_label: int,
        guidance: Guidance,
        prediction: Prediction = "noise",
        channel_axis: int = 1,
    ) -> None:
        self.model, self.schedule, self.guidance = model, schedule, guidance
        self.class_labels, self.null_label = class_labels, null_label
        self.prediction, self.channel_axis = prediction, channel_axis
        self._index_of = {int(seen): index for index, seen in enumerate(schedule.timestep_map)}
        dtype = next(model.parameters()).dtype
        # a model kept in half precision sees half-precision input; the chain itself stays in float32
        self._input_dtype = dtype if dtype in (torch.float16, torch.bfloat16) else None

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """x: (b, c, ...) channels first.   timesteps: (b,) int64, all equal.   Returns (b, c or 2c, ...)."""
        x_t = torch.movedim(x, 1, self.channel_axis)
        output = self._output(x_t.to(self._input_dtype or x_t.dtype), timesteps).to(x_t.dtype)
        predicted, v = split_output(output, x_t, self.channel_axis)
        if self.prediction == "x_0":
            indices = torch.full_like(timesteps, self._index_of[int(timesteps[0])])
            predicted = noise_from_x_0(x_t, predicted, indices, self.schedule)
        output = predicted if v is None else torch.cat([predicted, v], self.channel_axis)
        return torch.movedim(output, self.channel_axis, 1)

    def _output(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        if self.class_labels is None:
            output: Tensor = self.model(x_t, timesteps, None)
            return output
        return guided_output(
            self.model,
            x_t,
            timesteps,
            self.class_labels,
            self.null_label,
            self.guidance,
            channel_axis=self.channel_axis,
        )
