"""Perceptual and adversarial training of the VQVAE: who gets which gradient, and published files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.car.test_car_tasks import trainer
from families.car.tiny import PATCH_NUMS, pictures, streams, tiny_vqvae
from safetensors.torch import save_file
from torch import Tensor, nn

from genzoo.core.checkpoint import latest_valid, load_checkpoint
from genzoo.core.errors import CheckpointError, UsageError, WeightsError
from genzoo.families.car.vqvae.codec import VQVAECodec
from genzoo.families.car.vqvae.discriminator import PatchDiscriminator, adaptive_weight, hinge
from genzoo.families.car.vqvae.task import VQVAETask
from genzoo.families.car.weights.convert import VQVAEConverter
from genzoo.pretrained.hed import STAGES
from genzoo.pretrained.perceptual import PerceptualDistance

ADVERSARIAL: dict[str, Any] = {"adversarial_weight": 0.5}


def critic() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(4, 1)


def adversarial_task(**options: Any) -> VQVAETask:
    model = tiny_vqvae(discriminator_channels=4, discriminator_layers=1)
    return VQVAETask(model, **{**ADVERSARIAL, **options})


def gradients(task: VQVAETask, seen: int = 0) -> dict[str, Tensor]:
    batch = task.prepare_batch(
        {"pixels": pictures(2), "position": torch.tensor([seen, seen + 1])}, streams(0, 1)
    )
    task.loss(task.model.train(), batch).loss.backward()
    found = {name: p.grad for name, p in task.model.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return found


def test_the_discriminator_learns_from_its_own_loss_and_the_decoder_through_it() -> None:
    model, pixels = critic(), pictures(2)
    made = pictures(2, seed=1).requires_grad_()
    verdicts = model.judge(pixels, made)
    (-verdicts.posed.mean()).backward()
    assert made.grad is not None
    assert made.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())
    expected = made.grad.clone()
    hinge(model.judge(pixels, made)).backward()
    assert torch.equal(made.grad, expected)
    # at the start real and fake patches pull the last bias equally hard
    assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.ndim > 1)
    assert torch.equal(verdicts.fake, verdicts.posed)


def test_one_backward_pass_gives_the_gradients_of_two_optimizers() -> None:
    task = adversarial_task(adaptive=False)
    both = gradients(task)
    other = adversarial_task(adaptive=False)
    other.model.train()
    reconstruction, vq_loss, _, _ = other.model(pictures(2))
    error = (reconstruction - pictures(2)).square().mean()
    for parameter in other.model.discriminator.parameters():
        parameter.requires_grad_(False)
    (error + vq_loss - 0.5 * other.model.discriminator(reconstruction).mean()).backward()
    for parameter in other.model.discriminator.parameters():
        parameter.requires_grad_(True)
    hinge(other.model.discriminator.judge(pictures(2), reconstruction.detach())).backward()
    for name, parameter in other.model.named_parameters():
        assert torch.allclose(both[name], parameter.grad, atol=1e-7), name


def test_the_adversarial_term_begins_after_so_many_pictures() -> None:
    early, late = (gradients(adversarial_task(adversarial_after=10), seen) for seen in (8, 10))
    plain = VQVAETask(tiny_vqvae())
    alone = gradients(plain)
    for name, gradient in early.items():
        if name.startswith("discriminator."):
            assert not gradient.any()
            assert late[name].any() == (name != "discriminator.layers.5.bias")
        else:
            assert torch.allclose(gradient, alone[name], atol=1e-7)
    assert not torch.allclose(early["decoder.conv_in.weight"], late["decoder.conv_in.weight"])


def test_the_adaptive_weight_makes_both_terms_equally_steep() -> None:
    layer = nn.Parameter(torch.tensor([1.0, 2.0]))
    error, term = 3 * layer.sum(), 0.01 * layer.square().sum()
    weight = adaptive_weight(error, term, layer)
    steep = 3 * 2**0.5
    assert weight.item() == pytest.approx(steep / (0.02 * 5**0.5 + 1e-4))
    with torch.no_grad():
        assert adaptive_weight(error, term, layer).item() == 1


def test_adversarial_training_resumes_bit_for_bit_and_leaves_a_usable_vqvae(tmp_path: Path) -> None:
    options = {"adversarial_after": 60, "reconstruction": "l1"}
    trainer(adversarial_task(**options), tmp_path / "whole", steps=8).fit()
    trainer(adversarial_task(**options), tmp_path / "cut", steps=5).fit()
    trainer(adversarial_task(**options), tmp_path / "cut", steps=8).fit()
    whole, cut = (load_checkpoint(latest_valid(tmp_path / name / "checkpoints")) for name in ("whole", "cut"))
    for part in ("weights", "ema", "optimizer"):
        ours, theirs = getattr(whole, part), getattr(cut, part)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    codec = VQVAECodec(str(tmp_path / "whole"), patch_nums=PATCH_NUMS)
    assert codec.vqvae.discriminator is None
    exported = VQVAEConverter().from_genzoo(whole.weights)
    assert exported
    assert not any(name.startswith("discriminator.") for name in exported)


def vgg_files(folder: Path) -> dict[str, dict[str, Tensor]]:
    """VGG16 and the heads of LPIPS in their published layouts, random."""
    torch.manual_seed(0)
    vgg: dict[str, Tensor] = {"classifier.0.weight": torch.zeros(2, 2)}
    heads, place, width = {}, 0, 3
    for number, widths in enumerate(STAGES):
        for out in widths:
            vgg[f"features.{place}.weight"] = torch.randn(out, width, 3, 3) * (2 / (9 * width)) ** 0.5
            vgg[f"features.{place}.bias"] = torch.zeros(out)
            width, place = out, place + 2
        place += 1
        heads[f"lin{number}.model.1.weight"] = torch.rand(1, width, 1, 1)
    torch.save(vgg, folder / "vgg16-397923af.pth")
    torch.save(heads, folder / "vgg.pth")
    return {"vgg": vgg, "heads": heads}


def test_lpips_reads_its_published_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import vgg16

    monkeypatch.setenv("GENZOO_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"vgg16-397923af\.pth"):
        PerceptualDistance("lpips", weights=tmp_path)
    stored = vgg_files(tmp_path)
    distance = PerceptualDistance("lpips", weights=tmp_path)
    with torch.device("meta"):
        trunk = vgg16(weights=None).features
    own = {key.removeprefix("features."): value for key, value in stored["vgg"].items() if "features" in key}
    trunk.load_state_dict(own, assign=True)
    one, other = torch.nn.functional.interpolate(pictures(4), 32).chunk(2)
    expected = torch.zeros(())
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    x, y = (one - shift) / scale, (other - shift) / scale
    for number, layer in enumerate(trunk):
        x, y = layer(x), layer(y)
        if number in (3, 8, 15, 22, 29):
            head = stored["heads"][f"lin{(3, 8, 15, 22, 29).index(number)}.model.1.weight"]
            apart = (x / x.norm(dim=1, keepdim=True) - y / y.norm(dim=1, keepdim=True)).square()
            expected = expected + (apart * head).sum(dim=1).mean()
    assert distance(one, other).item() == pytest.approx(expected.item(), rel=1e-4)
    assert distance(one, one).item() == 0
    model = tiny_vqvae(patch_nums=[1, 16])
    task = VQVAETask(model, perceptual_weight=1.0, perceptual={"weights": str(tmp_path)})
    outputs = task.loss(model, task.prepare_batch({"pixels": one}, streams(0, 1)))
    parts = outputs.metrics
    assert parts["perceptual"] > 0
    total = parts["reconstruction"] + parts["perceptual"] + parts["vq"]
    assert outputs.loss.item() == pytest.approx(total.item(), rel=1e-5)
    torch.save({key: value for key, value in stored["vgg"].items() if "28" not in key}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").rename(tmp_path / "vgg16-397923af.pth")
    with pytest.raises(CheckpointError, match="missing"):
        PerceptualDistance("lpips", weights=tmp_path)


MISTAKES: list[tuple[str, Any]] = [
    ("go together", lambda: VQVAETask(tiny_vqvae(), adversarial_weight=0.1)),
    ("go together", lambda: VQVAETask(tiny_vqvae(discriminator_channels=4))),
    ("needs a network", lambda: VQVAETask(tiny_vqvae(), perceptual_weight=0.1)),
    ("must not be negative", lambda: VQVAETask(tiny_vqvae(), perceptual_weight=-0.1)),
    ("use one of lpips, hed", lambda: PerceptualDistance("vgg")),
]


@pytest.mark.parametrize(("message", "mistake"), MISTAKES)
def test_mistakes_are_named(message: str, mistake: Any) -> None:
    with pytest.raises(UsageError, match=message):
        mistake()


def test_a_file_with_a_discriminator_is_a_vqvae_all_the_same(tmp_path: Path) -> None:
    state = {k: v.contiguous() for k, v in tiny_vqvae(discriminator_channels=4).state_dict().items()}
    save_file(state, tmp_path / "both.safetensors")
    assert VQVAECodec(str(tmp_path / "both.safetensors"), patch_nums=PATCH_NUMS).patch_nums == tuple(
        PATCH_NUMS
    )
