"""Concepts taught to bases with a transformer, through their pipelines: random models of each class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.transformer_bases import build_transformer_base, complete_base
from safetensors.torch import load_file

import genzoo
from genzoo.api.run import Run
from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import ExportsForClients, ExportsPart, HasKinds, SharesSamplingOptions
from genzoo.core.errors import UsageError
from genzoo.core.recipe import Recipe, load_recipe
from genzoo.core.registry import TASKS
from genzoo.core.seeds import SampleStreams
from genzoo.core.signatures import parameters
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.training.model import custom_diffusion
from genzoo.families.custom_diffusion.training.noise_paths import GaussianPath, StraightPath, path_of
from genzoo.families.custom_diffusion.training.pipeline_task import PipelineConceptTask
from genzoo.pretrained.pipeline_step import tokenizers_of
from genzoo.pretrained.pipeline_text import load_pipeline

# Gaussian and straight paths; one text encoder and two; pictures and clips of one frame
CLASSES = ["hunyuan", "latte", "ltx", "lumina", "pixart", "sana", "wan"]
SMALL = (
    "data.class_crop=centre",
    "data.augment_size=false",
    "train.batch_size=2",
    "train.precision=fp32",
    "train.num_workers=0",
    "train.checkpoint_every=1",
    "train.log_every=1",
    "train.tensorboard=false",
    "optim.lr=1e-2",
    "preview.every=0",
    "model.initializer_tokens=[k]",
)


def side_of(base: Path) -> int:
    """In pixels: two pipelines want multiples of 32."""
    return 32 if base.name in ("ltx", "sana") else 16


def concepts_of(pictures: Path, folder: Path) -> Path:
    from families.custom_diffusion.conftest import entry

    path = folder / "cat.json"
    path.write_text(json.dumps([entry(pictures, 1, "cat")]))
    return path


def recipe(base: Path, concepts: Path, *overrides: str) -> Recipe:
    given = [
        f"concepts={concepts}",
        f"base_model={base}",
        f"data.image_size={side_of(base)}",
        *SMALL,
        *overrides,
    ]
    return load_recipe("custom_diffusion", given)


def checkpoint_of(run: Run, step: int) -> dict[str, torch.Tensor]:
    return load_file(run.folder / f"checkpoints/step_{step:08d}/model.safetensors")


@pytest.fixture(scope="module", params=CLASSES)
def base(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_base(tmp_path_factory.mktemp("bases") / request.param, request.param)


def test_training_moves_keys_and_values_alone_and_resumes_bit_for_bit(
    base: Path, pictures: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    concepts = concepts_of(pictures, tmp_path)
    run = genzoo.train(recipe(base, concepts, "train.steps=2"), output=tmp_path / "whole")
    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before
    concept, weights = read_concept(run.folder / "concept.safetensors"), BaseWeights(base)
    assert sorted(concept.names) == sorted(weights.key_values)
    assert all(not torch.equal(concept.weights[name], weights[name]) for name in concept.names)
    assert list(concept.tokens) == ["<new1>"]
    genzoo.train(recipe(base, concepts, "train.steps=1"), output=tmp_path / "cut")
    resumed = genzoo.train(recipe(base, concepts, "train.steps=2"), output=tmp_path / "cut")
    one, other = checkpoint_of(run, 2), checkpoint_of(resumed, 2)
    stored = {name for name in one if "attn2" not in name}
    assert stored
    assert all(name.endswith(".rows") for name in stored)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_other_texts_are_read_as_before_there_were_new_words(base: Path) -> None:
    model = custom_diffusion(str(base), modifier_tokens=["<new1>"], initializer_tokens=["k"])
    pairs = zip(tokenizers_of(load_pipeline(base)), model.text_encoders, strict=True)
    for (tokenizer, encoder), extended in pairs:
        ids = torch.tensor([tokenizer("a cat").input_ids])
        with torch.no_grad():
            assert torch.equal(extended(ids)[0], encoder(ids)[0])


def test_a_word_that_the_pipeline_would_change_is_refused(base: Path) -> None:
    changes = base.name in ("latte", "lumina", "pixart", "sana")
    given: dict[str, Any] = {"initializer_tokens": ["k"]}
    try:
        custom_diffusion(str(base), modifier_tokens=["<New1>"], **given)
        said = ""
    except UsageError as error:
        said = str(error)
    assert ("does not read the word <New1>" in said) == changes
    assert ("such as <new1>" in said) == changes


def test_samples_come_from_the_pipeline_each_by_its_own_seed(base: Path) -> None:
    model = custom_diffusion(
        str(base), modifier_tokens=["<new1>"], phrases=["<new1> cat"], initializer_tokens=["k"]
    )
    task = PipelineConceptTask(model)

    def drawn(positions: range, prompt: str) -> torch.Tensor:
        streams = SampleStreams.from_seeds(3, positions=positions)
        conditions = task.conditions(len(positions), prompt=prompt)
        return task.sample(model, conditions, streams, steps=2, guidance_scale=2.0, size=side_of(base))

    pair = drawn(range(2), "a <new1> cat")
    assert pair.ndim == 4
    assert not torch.equal(pair[0], pair[1])
    assert torch.equal(drawn(range(1, 2), "a <new1> cat")[0], pair[1])
    with torch.no_grad():
        for row in model.embeddings:
            row.rows.add_(3.0)
    assert not torch.equal(drawn(range(1), "a <new1> cat")[0], pair[0])
    with pytest.raises(UsageError, match="none of the words"):
        task.conditions(1, prompt="a dog")


def test_the_loss_is_that_of_the_pipelines_own_prediction(base: Path) -> None:
    model = custom_diffusion(str(base), phrases=["a cat"])
    task = PipelineConceptTask(model)
    side = side_of(base)
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(5)) * 2 - 1
    batch = {"pixels": pixels, "key": [""], "captions": ["photo of a cat"], "box": torch.full((1, 4), -1)}
    prepared = task.prepare_batch(batch, SampleStreams.from_seeds(1, positions=range(1)))
    found = task.loss(model, prepared).loss
    handed: list[tuple[Any, Any]] = []
    scheduler, step = model.pipeline.scheduler, type(model.pipeline.scheduler).step

    def spy(self: Any, output: Any, timestep: Any, sample: Any, **options: Any) -> Any:
        handed.append((output, timestep))
        return step(self, output, timestep, sample, **options)

    x_t = task.path.noised(prepared["latents"], prepared["noise"], prepared["levels"])
    scheduler.step = spy.__get__(scheduler)
    scheduler.set_timesteps(1)
    scheduler.timesteps = prepared["levels"][:1]
    given = {"height": side, "width": side, "guidance_scale": 1.0, "output_type": "latent"}
    scheduler.set_timesteps = lambda num=None, device=None, sigmas=None, **_: None
    scheduler.num_inference_steps = 1
    names = type(model.pipeline).__call__.__wrapped__.__code__.co_varnames
    frames = {name: 1 for name in ("num_frames", "video_length") if name in names}
    binning = {"use_resolution_binning": False} if "use_resolution_binning" in names else {}
    model.pipeline(prompt="photo of a cat", latents=x_t, num_inference_steps=1, **given, **frames, **binning)
    output, timestep = handed[0]
    assert float(timestep) == float(prepared["levels"][0])
    target = task.path.target(prepared["latents"], prepared["noise"], prepared["levels"])
    wanted = (output - target).square().flatten(1).sum() / prepared["mask"].sum()
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-5, atol=0)


def test_both_kinds_of_bases_have_one_task_with_one_list_of_settings() -> None:
    factory = TASKS.get("custom_diffusion")
    assert parameters(factory) == parameters(PipelineConceptTask)
    assert {"prior", "sampler", "prompts", "cache"} < parameters(factory).keys()
    for asked in (ExportsPart, ExportsForClients, SharesSamplingOptions, HasKinds):
        assert able(factory, asked) is not None
    # guidance intervals and the like are no options of a pipeline's call
    assert able(PipelineConceptTask, SharesSamplingOptions) is None


def test_paths_follow_the_scheduler() -> None:
    flow = path_of({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
    assert flow == StraightPath(1000, 3.0)
    assert path_of({"_class_name": "UniPC", "prediction_type": "flow_prediction"}) == StraightPath(1000, 1.0)
    assert isinstance(path_of({"_class_name": "DDPMScheduler"}), GaussianPath)
    x_0, noise = torch.full((2, 3), 4.0), torch.full((2, 3), 8.0)
    levels = torch.tensor([250.0, 1000.0])
    assert flow.noised(x_0, noise, levels)[:, 0].tolist() == [5.0, 8.0]
    assert flow.target(x_0, noise, levels)[0].tolist() == [4.0] * 3
    drawn = flow.levels(SampleStreams.from_seeds(0, positions=range(400)))
    # shifted by 3, the middle of the levels is 750
    assert 700 < float(drawn.median()) < 800


def test_what_a_transformer_does_not_learn_here_is_refused(tmp_path: Path) -> None:
    flux = complete_base(tmp_path / "flux", "flux")
    with pytest.raises(UsageError, match="FluxTransformer2DModel has none of its own"):
        custom_diffusion(str(flux), phrases=["a cat"])
    allegro = build_transformer_base(tmp_path / "allegro", "allegro")
    with pytest.raises(UsageError, match="tiles alone"):
        custom_diffusion(str(allegro), phrases=["a cat"])
    pixart = complete_base(tmp_path / "pixart", "pixart")
    with pytest.raises(UsageError, match="bases with a UNet"):
        custom_diffusion(str(pixart), phrases=["a cat"], freeze_mode="all")
    model = custom_diffusion(str(pixart), phrases=["a cat"])
    with pytest.raises(UsageError, match=r"task\.cache"):
        PipelineConceptTask(model, cache=str(tmp_path / "cache"))
