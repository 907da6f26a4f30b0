"""Which backend runs, what is said when one cannot, and how wrong shapes are refused."""

from __future__ import annotations

import logging
import threading

import pytest
import torch
from kernels.scan_cases import scan_inputs

from genzoo.core.errors import BackendUnavailable, ShapeError, UsageError
from genzoo.kernels import (
    available_backends,
    bidirectional_selective_scan,
    choose_backend,
    selective_scan,
    use_backend,
)
from genzoo.kernels.native import build
from genzoo.kernels.scan import dispatch


def test_auto_takes_the_first_of_the_preference_that_can() -> None:
    assert choose_backend("auto", "cuda", lambda name: None) == "triton"
    assert choose_backend("auto", "cuda", {"triton": "no"}.get) == "mamba_ssm"
    assert choose_backend("auto", "cpu", lambda name: None) == "cpu"
    assert choose_backend("auto", "cpu", {"cpu": "no compiler"}.get) == "torch"
    assert choose_backend("auto", "mps", lambda name: None) == "torch"


def test_a_named_backend_that_cannot_run_is_an_error_with_the_reason() -> None:
    with pytest.raises(BackendUnavailable, match="no compiler here"):
        choose_backend("cpu", "cpu", lambda name: "no compiler here")


def test_an_unknown_backend_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'triton'"):
        choose_backend("tritan", "cpu", lambda name: None)
    with pytest.raises(UsageError, match="no scan backend"), use_backend("nope"):
        pass


def test_available_backends_says_why_not() -> None:
    found = available_backends()
    assert list(found) == ["reference", "torch", "cpu", "triton", "mamba_ssm"]
    assert found["reference"] is None
    assert found["torch"] is None
    assert all(reason is None or len(reason) > 5 for reason in found.values())


def test_use_backend_decides_for_auto_only_and_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    module = dispatch._module
    monkeypatch.setattr(dispatch, "_module", lambda name: ran.append(name) or module(name))
    inputs = scan_inputs(1, 3, 4, 2)
    with use_backend("reference"):
        selective_scan(**inputs)
        selective_scan(**inputs, backend="torch")
        with use_backend("torch"):
            selective_scan(**inputs)
        selective_scan(**inputs)
    with use_backend("auto"):
        selective_scan(**inputs)
    assert ran[:4] == ["reference", "torch", "torch", "reference"]
    assert ran[4] in ("cpu", "torch")


def test_use_backend_does_not_reach_other_threads() -> None:
    seen: list[str] = []
    with use_backend("reference"):
        worker = threading.Thread(target=lambda: seen.append(dispatch._requested.get()))
        worker.start()
        worker.join()
    assert seen == ["auto"]


def test_auto_says_its_choice_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_announced", set())
    inputs = scan_inputs(1, 3, 4, 2)
    with caplog.at_level(logging.INFO, logger="genzoo"):
        for _ in range(3):
            selective_scan(**inputs)
    assert len(caplog.records) == 1


def test_without_a_compiler_torch_takes_over_with_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(dispatch, "_announced", set())
    monkeypatch.setenv("CC", "there-is-no-such-compiler")
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path))  # no library that was built before
    inputs = scan_inputs(1, 3, 4, 2)
    with caplog.at_level(logging.INFO, logger="genzoo"):
        for _ in range(2):
            out = selective_scan(**inputs, delta_softplus=True)
    assert torch.equal(out, selective_scan(**inputs, delta_softplus=True, backend="torch"))
    assert len(caplog.records) == 1
    assert "'torch'" in caplog.text
    assert "no C compiler" in caplog.text
    with pytest.raises(BackendUnavailable, match="no C compiler"):
        selective_scan(**inputs, backend="cpu")
    assert "no C compiler" in (build.unavailable_reason() or "")


def test_auto_gives_rare_layouts_to_torch_and_cpu_says_why_it_cannot() -> None:
    inputs = scan_inputs(2, 5, 6, 3, layout="dn")
    auto = selective_scan(**inputs, delta_softplus=True)
    assert torch.equal(auto, selective_scan(**inputs, delta_softplus=True, backend="torch"))
    with pytest.raises(BackendUnavailable, match=r"B and C must be \(b, l, n\)"):
        selective_scan(**inputs, backend="cpu")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("u", (2, 5)),
        ("u", (2, 0, 6)),
        ("delta", (2, 6, 5)),
        ("A", (5, 3)),
        ("A", (6, 257)),
        ("B", (2, 3, 5)),
        ("C", (2, 5, 4, 3)),
        ("D", (5,)),
        ("z", (2, 5, 7)),
        ("delta_bias", (1, 6)),
    ],
)
def test_wrong_shapes_are_named(name: str, shape: tuple[int, ...]) -> None:
    inputs = scan_inputs(2, 5, 6, 3) | {name: torch.zeros(shape)}
    with pytest.raises(ShapeError, match=f"{name}|d_state"):
        selective_scan(**inputs)


def test_both_branches_of_the_bidirectional_scan_are_checked() -> None:
    inputs = scan_inputs(2, 5, 6, 3)
    branch = [inputs[name] for name in ("u", "delta", "A", "B", "C", "D")]
    wrong = [*branch[:3], torch.zeros(2, 5, 4), *branch[4:]]
    with pytest.raises(ShapeError, match="B must be"):
        bidirectional_selective_scan(*branch, *wrong)


def test_an_empty_batch_is_no_error() -> None:
    inputs = {k: v[:0] if v.ndim == 3 else v for k, v in scan_inputs(2, 5, 6, 3).items()}
    assert selective_scan(**inputs, delta_softplus=True).shape == (0, 5, 6)
