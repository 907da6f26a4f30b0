"""Without a network: one attempt for everything, and an error that names every way on."""

from __future__ import annotations

import shutil
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from genzoo.core.errors import WeightsError
from genzoo.families.car.weights.loading import read_tree
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.pretrained import hub
from genzoo.pretrained.codecs import AutoencoderKLCodec
from genzoo.pretrained.depth import DepthNetwork
from genzoo.pretrained.prompts import load_prompt_encoder
from genzoo.pretrained.shipped import shipped
from genzoo.pretrained.text_to_image import load_parts

LOADERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "autoencoder": (AutoencoderKLCodec, "codec=null"),
    "base": (load_parts, "assets:text_to_image_emoji"),
    "text encoder": (load_prompt_encoder, "assets:text_to_image_emoji"),
    "cross-attention": (BaseWeights, "assets:text_to_image_emoji"),
    "depth": (lambda name: DepthNetwork(name, None), "preprocessor_config.json"),
    "VQVAE": (lambda name: read_tree(f"{name}:vae.pth"), "assets:vqvae_emoji"),
}


@pytest.fixture
def deaf_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A hub that hangs up, and notes what was asked; the library's questions about itself aside."""
    calls: list[str] = []

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            line = self.request.recv(4096).decode().partition("\r\n")[0]
            calls.extend([] if "/api/" in line and "nobody" not in line else [line])

    with socketserver.TCPServer(("127.0.0.1", 0), HangUp) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(hub, "_asked", {})
        monkeypatch.setattr(hub, "REMEMBERED", 1e9)
        yield calls
        server.shutdown()


def test_the_hub_is_asked_once_by_all_loaders_together(deaf_hub: list[str]) -> None:
    for load, _ in LOADERS.values():
        with pytest.raises(WeightsError, match="cannot fetch"):
            load("nobody/nothing")
    assert deaf_hub == ["HEAD / HTTP/1.1"]


@pytest.mark.parametrize("name", LOADERS)
def test_the_error_names_every_way_on(deaf_hub: list[str], tmp_path: Path, name: str) -> None:
    load, instead = LOADERS[name]
    with pytest.raises(WeightsError) as caught:
        load("nobody/nothing")
    error = caught.value
    assert str(error.where).startswith("https://huggingface.co/nobody/nothing/blob/main/")
    assert "asked once and does not answer" in str(error.why)
    assert "hf download nobody/nothing " in str(error.fix)
    assert f"models--nobody--nothing of another machine's hub cache into {tmp_path / 'hub'}" in str(error.fix)
    assert instead in str(error.fix)


def test_offline_mode_asks_nobody(deaf_hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="cannot fetch"):
        load_parts("nobody/nothing")
    assert deaf_hub == []


def test_what_is_cached_is_loaded_without_a_network(deaf_hub: list[str], tmp_path: Path) -> None:
    cached = tmp_path / "hub" / "models--some--base"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    shutil.copytree(shipped("assets:text_to_image_emoji"), cached / "snapshots" / "abc")
    parts = load_parts("some/base")
    assert len(parts.text_encoders) == 1
    assert BaseWeights("some/base").width == parts.unet.config.cross_attention_dim
    assert deaf_hub == ["HEAD / HTTP/1.1"]


@pytest.mark.parametrize("name", ["var_d16.pth", "vae_ch160v4096z32.pth"])
def test_a_published_file_that_is_not_there_is_told_with_its_address(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError) as caught:
        read_tree(str(tmp_path / name))
    assert caught.value.where == f"https://huggingface.co/FoundationVision/var/blob/main/{name}"
    assert f"FoundationVision/var:{name}" in str(caught.value.fix)


def test_long_reasons_end_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*args: Any, **options: Any) -> str:
        raise OSError("please try again " * 40)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match=r"(please|try|again) \.\.\."):
        hub.resolve("nobody/nothing", "config.json")
