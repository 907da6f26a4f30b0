"""Optional abilities: asked by name of the members, answered by what an object has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from genzoo.core.contracts import able, members
from genzoo.core.contracts.datasets import FetchesMany, HasLabels, augments, labels_of, pictures_of
from genzoo.core.contracts.execution import MarkedUndecayed, SkipsDecay
from genzoo.core.contracts.models import HasFixedTables, fixed_tables, remembered_arguments
from genzoo.core.contracts.parts import MeasuresLatents
from genzoo.core.contracts.tasks import DrawsAgain, makes_clips, recorded_facts


def test_an_object_with_every_member_is_able_and_is_returned() -> None:
    task = SimpleNamespace(conditions_from=lambda batch: {"image": batch})
    assert able(task, DrawsAgain) is task


def test_an_object_without_one_of_the_members_is_not() -> None:
    assert able(SimpleNamespace(reconstruct=abs), MeasuresLatents) is None
    assert able(SimpleNamespace(reconstruct=abs, latent_deviation=abs), MeasuresLatents) is not None
    assert able(None, DrawsAgain) is None
    assert able(SimpleNamespace(conditions_from=None), DrawsAgain) is None
    assert able(SimpleNamespace(labels=None), HasLabels) is not None


def test_members_are_attributes_and_methods() -> None:
    assert members(HasLabels) == ("labels",)
    assert members(FetchesMany) == ("fetch_many",)
    assert members(SkipsDecay) == ("undecayed",)


def test_classes_modules_and_tensors_can_be_asked() -> None:
    class Model(nn.Module):
        fixed_tables = ("table",)

    parameter = nn.Parameter(torch.zeros(2))
    assert able(Model, HasFixedTables) is Model
    assert able(Model(), HasFixedTables) is not None
    assert able(parameter, MarkedUndecayed) is None
    parameter._no_weight_decay = True  # type: ignore[attr-defined]
    assert able(parameter, MarkedUndecayed) is parameter


def test_what_is_not_said_has_a_default() -> None:
    silent = SimpleNamespace()
    assert augments(silent)
    assert labels_of(silent) is None
    assert fixed_tables(silent) == ()
    assert remembered_arguments(silent) == {}
    assert recorded_facts(silent) == {}


@pytest.mark.parametrize(("shape", "clips"), [((4, 3, 8, 8), True), ((3, 8, 8), False), (None, False)])
def test_clips_are_known_by_the_latent_shape(shape: tuple[int, ...] | None, clips: bool) -> None:
    task = SimpleNamespace() if shape is None else SimpleNamespace(latent_shape=shape)
    assert makes_clips(task) is clips


def test_pictures_behind_stored_latents_are_found_and_other_images_are_not() -> None:
    pictures: Any = SimpleNamespace(name="pictures")
    stored: Any = SimpleNamespace(images=pictures, bind_codec=lambda codec: None)
    embedded: Any = SimpleNamespace(images=torch.zeros(3, 1))  # a tensor of its own under the same name
    assert pictures_of(stored) is pictures
    assert pictures_of(embedded) is embedded
