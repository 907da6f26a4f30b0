"""What a pipeline of diffusers predicts at one noise level, with gradients: its call, up to its scheduler.

A transformer is told size, positions, masks and times in a way of its own, reads its text in another, and its
output is cut or turned before the scheduler sees it. The pipeline's call knows all of that. It runs here
with one timestep and a scheduler that hands the prediction back in place of a step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from genzoo.core.errors import WeightsError

# of the calls of pipelines that make clips: pictures are clips of one frame
ONE_FRAME = {"num_frames": 1, "video_length": 1}


class _Predicted(Exception):
    """Ends the pipeline's call with what its scheduler was handed."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


class _OneStep:
    """In place of a scheduler: one timestep, and no step. Everything else is the scheduler's own."""

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, scheduler: Any, timestep: Tensor) -> None:
        self._scheduler = scheduler
        self.timesteps = timestep[None]
        self.sigmas = self.timesteps / scheduler.config.num_train_timesteps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def set_timesteps(self, *given: Any, sigmas: Any = None, timesteps: Any = None, **options: Any) -> None:
        """Whatever was asked for, there is one."""

    def set_begin_index(self, begin_index: int = 0) -> None:
        """There is nothing to begin."""

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample itself: trained models see what noise was added to."""
        return sample

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **options: Any) -> None:
        raise _Predicted(model_output)


def predicted(
    pipeline: Any, latents: Tensor, timestep: Tensor, prompt: str, *, height: int, width: int, **options: Any
) -> Tensor:
    """What the scheduler would be handed for one sample, of the shape of latents (1, ...), with gradients in
    whatever of the pipeline has them; no guidance.   timestep: (), the scheduler's.   options: of the
    pipeline's call, those that it has. Raises WeightsError naming the pipeline's complaint.
    """
    call = type(pipeline).__call__
    given = {
        **ONE_FRAME,
        **options,
        "height": height,
        "width": width,
        "latents": latents,
        "guidance_scale": 1.0,
        "num_inference_steps": 1,
        "output_type": "latent",
        "use_resolution_binning": False,
    }
    # the call is wrapped into no_grad
    undecorated = inspect.unwrap(call)
    with _scheduler_of(pipeline, _OneStep(pipeline.scheduler, timestep)):
        try:
            undecorated(pipeline, prompt=prompt, **accepted(call, given))
        except _Predicted as end:
            return end.output
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise cannot_run(pipeline, error) from error
    raise WeightsError("the base's pipeline asked its scheduler for nothing", where=type(pipeline).__name__)


def accepted(call: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that a call has."""
    takes = inspect.signature(call).parameters
    return {name: value for name, value in options.items() if name in takes}


def cannot_run(pipeline: Any, error: Exception) -> WeightsError:
    """What to say of a pipeline that does not run on a prompt."""
    return WeightsError(
        "the base's pipeline cannot be run with a prompt alone",
        where=type(pipeline).__name__,
        why=str(error).strip().partition("\n")[0][:200],
        fix="a text-to-image base",
    )


@contextmanager
def _scheduler_of(pipeline: Any, scheduler: Any) -> Iterator[None]:
    # a pipeline notes what is assigned to it in its config; this is not to be noted
    before = vars(pipeline)["scheduler"]
    vars(pipeline)["scheduler"] = scheduler
    try:
        yield
    finally:
        vars(pipeline)["scheduler"] = before


def remember_prompts(pipeline: Any, unless: Collection[str] = (), *, widened: bool = False) -> None:
    """Let the pipeline encode each prompt once, alone and without gradients, but for those that hold one of
    some words, whose embeddings move.   widened: features are float32 at least, whatever the encoders lie
    in: a pipeline takes the picture in the type of its text.
    """
    encode_prompt = pipeline.encode_prompt

    def encode(*given: Any, **options: Any) -> Any:
        found = encode_prompt(*given, **options)
        return tree_map(_widened, found) if widened else found

    known: dict[str, Any] = {}

    def remembered(prompt: Any = None, *given: Any, **options: Any) -> Any:
        texts = [prompt] if isinstance(prompt, str) else list(prompt or ())
        if any(word.lower() in text.lower() for word in unless for text in texts):
            return encode(prompt, *given, **options)
        key = repr((prompt, given, sorted(options.items(), key=lambda pair: pair[0])))
        if key not in known:
            with torch.no_grad():
                known[key] = encode(prompt, *given, **options)
        return known[key]

    # the call's own way of asking has to stay visible to who inspects it
    remembered.__signature__ = inspect.signature(encode_prompt)  # type: ignore[attr-defined]
    vars(pipeline)["encode_prompt"] = remembered


def _widened(one: Any) -> Any:
    if not isinstance(one, Tensor) or not one.is_floating_point():
        return one
    return one.to(torch.promote_types(one.dtype, torch.float32))


def tokenizers_of(pipeline: Any) -> list[tuple[Any, Any]]:
    """(tokenizer, text encoder) pairs, in order."""
    pairs: Sequence[tuple[str, str]] = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))
    found = [(getattr(pipeline, one, None), getattr(pipeline, other, None)) for one, other in pairs]
    return [pair for pair in found if pair[0] is not None and pair[1] is not None]
