"""Sampling through diffusers' interface: the samples are those that the run itself makes, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from genzoo.api.pipelines.files import model_folder, stubs, write_index
from genzoo.api.pipelines.model import GenzooModel, LoadedRun
from genzoo.api.sampling.sample_run import sample_run
from genzoo.api.sampling.samples import Samples
from genzoo.core.errors import UsageError
from genzoo.pictures.pixels import to_uint8

OUTPUTS = ("pil", "np", "pt")


@dataclass
class ClipOutput(BaseOutput):
    """frames: of each clip a list of PIL images; or (n, f, h, w, c) as "np", (n, f, c, h, w) as "pt"."""

    frames: Any


class GenzooPipeline(DiffusionPipeline):
    """A trained model of genzoo; `genzoo export RUN FOLDER --to diffusers` writes what it loads.

    transformer: the model with its recipe. Codec and sampler are the recipe's.
    """

    models: ClassVar[Sequence[str]] = ()
    """Names of the models that a pipeline of this class samples; any when empty."""

    def __init__(self, transformer: GenzooModel) -> None:
        super().__init__()
        name = transformer.config["architecture"]["name"]
        if self.models and name not in self.models:
            raise UsageError(
                f"the model is a {name!r}, and {type(self).__name__} samples {', '.join(self.models)}",
                fix="load it with genzoo.pipelines.GenzooPipeline, which takes any",
            )
        self.register_modules(transformer=transformer)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> Any:
        """The pipeline of a folder, or of "user/repo" on a hub. No code of the folder is run.

        options: of the model's own `from_pretrained`, such as torch_dtype; of a hub also revision. Raises
        WeightsError.
        """
        folder = model_folder(pretrained_model_name_or_path, options.pop("revision", None))
        return cls(transformer=GenzooModel.from_pretrained(str(folder), **options))

    def save_pretrained(self, save_directory: Any, *args: Any, **options: Any) -> None:
        """As diffusers does, with two files of one import each: `DiffusionPipeline.from_pretrained(...,
        trust_remote_code=True)` loads the folder too."""
        super().save_pretrained(save_directory, *args, **options)
        write_index(Path(save_directory), type(self).__name__)
        stubs(Path(save_directory), type(self).__name__)

    @cached_property
    def run(self) -> LoadedRun:
        """The run that is sampled."""
        return LoadedRun(self.transformer)

    def samples(self, num: int | None = None, *, seed: int = 0, **options: Any) -> Samples:
        """What `genzoo.load_run(...).sample(...)` gives: pixels, conditions and settings."""
        return sample_run(self.run, num=num, seed=seed, **options)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | Sequence[int | str] | None = None,
        *,
        num_images: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        **options: Any,
    ) -> Any:
        """Pictures, or clips of a model of clips.

        class_labels: numbers or names, one for all or one each.   num_images: how many, of clips too; as many
        as labels when left out.   num_inference_steps, guidance_scale: the recipe's when left out.   seed:
        sample i depends on it and on i alone; of a `generator` its seed is taken.   output_type: "pil", "np"
        or "pt", in [0, 1].   options: what `genzoo sample` takes as KEY=VALUE, such as sampler="ddim".
        Returns ImagePipelineOutput or ClipOutput, or a tuple unless return_dict.
        """
        if output_type not in OUTPUTS:
            raise UsageError(f"output_type is {output_type!r}", fix=f"use one of {', '.join(OUTPUTS)}")
        told = {"class_labels": class_labels, "steps": num_inference_steps, "guidance_scale": guidance_scale}
        given = {name: value for name, value in told.items() if value is not None}
        if num_images is None and not isinstance(class_labels, (list, tuple)):
            num_images = 1
        first = seed if generator is None else generator.initial_seed()
        made = self.samples(num_images, seed=first, **given, **options)
        content = shown(made.pixels, output_type)
        if not return_dict:
            return (content,)
        return ClipOutput(frames=content) if made.pixels.ndim == 5 else ImagePipelineOutput(images=content)


def shown(pixels: Tensor, output_type: str) -> Any:
    """Pixels (n, c, h, w) or (n, f, c, h, w) in [-1, 1] as diffusers gives them."""
    if output_type == "pt":
        return (pixels / 2 + 0.5).clamp(0, 1)
    if output_type == "np":
        return (pixels / 2 + 0.5).clamp(0, 1).movedim(-3, -1).numpy()
    images = to_uint8(pixels)
    return [_pictures(one) if one.ndim == 4 else _picture(one) for one in images]


def _pictures(frames: Tensor) -> list[Image.Image]:
    return [_picture(frame) for frame in frames]


def _picture(image: Tensor) -> Image.Image:
    """image: (c, h, w) uint8, of one channel or three."""
    array = image.movedim(0, -1).cpu().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
