"""HED features in a plane: numbers counted by hand, features of the last stage, and the picture of a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from genzoo.api.sampling.samples import Samples
from genzoo.core.errors import UsageError
from genzoo.core.node import Node
from genzoo.data.emoji import Emoji
from genzoo.evaluation.hed_embedding import agreement, hed_embedding, hed_features, scatter
from genzoo.pretrained.hed import HED


class CopyRun:
    """Under a control it returns the very pictures that gave the controls; without, noise."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, Emoji(styles=["fluent_flat"])
        self.plan = SimpleNamespace(data=Node("emoji", {"styles": ["fluent_flat"]}))

    def dataset(self) -> Any:
        return self.data

    def task(self) -> Any:
        codec = SimpleNamespace(moments=lambda x: x, sums=lambda x: [x], decode=lambda x: x)
        return SimpleNamespace(extract=lambda pixels: pixels, codec=codec)

    def sample(self, *, class_labels: list[int], seed: int, control: Tensor | None = None) -> Samples:
        noise = (
            torch.rand(len(class_labels), 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        )
        return Samples(noise if control is None else control)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """HED with weights of its beginning."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("hed") / "hed.safetensors"
    save_file(HED().state_dict(), path)
    return str(path)


def test_numbers_of_a_case_counted_by_hand() -> None:
    originals = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    under = torch.tensor([[0.0, 1.0], [4.0, 1.0]])
    without = torch.tensor([[0.0, 30.0], [4.0, 3.0]])
    found = agreement({"originals": originals, "under control": under, "without control": without})
    assert found["distance"] == 1.0
    assert found["distance_uncontrolled"] == 16.5
    assert found["next_to_originals"] == 1.0
    assert found["next_to_originals_uncontrolled"] == 0.0


def test_features_are_the_average_of_what_the_last_side_output_sees(weights: str) -> None:
    torch.manual_seed(0)
    network, pixels = HED().eval(), torch.rand(3, 3, 32, 32) * 2 - 1
    seen: list[Tensor] = []
    network.sides[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network((pixels + 1) * 127.5)
    found = hed_features(network, pixels, size=32, block=2)
    assert found.shape == (3, 512)
    torch.testing.assert_close(found, seen[0].mean((2, 3)))


def test_a_run_that_copies_lies_on_its_originals(tmp_path: Path, weights: str) -> None:
    run: Any = CopyRun(tmp_path)
    found = hed_embedding(run, num=6, classes="all", size=32, perplexity=3, weights=weights)
    assert found["distance"] < 1e-3 < found["distance_uncontrolled"]
    assert (found["next_to_originals"], found["num"]) == (1.0, 6)
    text = Path(found["picture"]).read_text()
    assert hed_embedding(run, num=6, classes="all", size=32, perplexity=3, weights=weights) == found
    assert Path(found["picture"]).read_text() == text
    ElementTree.fromstring(text)
    assert text.count("h0") == 3 * 6 + 3  # a dot each, and one in each line of the legend
    assert all(name in text for name in ("originals", "under control", "without control"))


def test_a_size_that_stages_cannot_halve_is_refused(tmp_path: Path, weights: str) -> None:
    run: Any = CopyRun(tmp_path)
    with pytest.raises(UsageError, match="multiples of 16"):
        hed_embedding(run, num=4, classes="all", size=40, weights=weights)


def test_dots_stay_inside_whatever_the_positions() -> None:
    text = scatter({name: torch.tensor([[-1e6, 3.0], [2.0, 3.0]]) for name in ("originals", "under control")})
    places = [float(part) for part in text.partition(' d="M')[2].partition("h0")[0].split()]
    assert all(0 <= place <= 420 for place in places)
