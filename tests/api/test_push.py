"""Runs and concepts on a hub: what is sent, that it comes back, and what never leaves this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import Hub, serving
from huggingface_hub import ModelCard, constants
from run_cases import unjudged

import genzoo
from genzoo.api.publishing.card import plain
from genzoo.api.publishing.portable import portable
from genzoo.api.publishing.push import push, write_repository
from genzoo.api.run import Run, load_run
from genzoo.cli import main
from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.recipe import recipe_from
from genzoo.pretrained import fetching, hub_runs
from genzoo.pretrained import hub as hub_files

TOKEN = "hf_" + "nobodyshallseethis"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving() as server:
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"  # made at its import
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(hub_files, "_asked", {})
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        hub_runs._fetched.cache_clear()
        monkeypatch.chdir(tmp_path)
        yield server
        hub_runs._fetched.cache_clear()


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    found = capsys.readouterr()
    assert not stop.value.code, found.err
    return found.out + found.err


def test_a_run_comes_back_from_the_hub_as_it_went(
    hub: Hub, trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(["push", str(trained.folder), "me/tiny", "--private"], capsys)
    assert f"pushed: {hub.address}/me/tiny" in out
    assert hub.private == {"me/tiny": True}
    expected = trained.sample(num=3, seed=4).pixels
    assert torch.equal(genzoo.from_pretrained("me/tiny").sample(num=3, seed=4).pixels, expected)
    said(["sample", "hf://me/tiny", "--num", "2", "--steps", "2"], capsys)
    (made,) = Path("runs/me--tiny/samples").iterdir()
    assert (made / "000001.png").is_file()
    assert "latent_diffusion" in said(["show", "hf://me/tiny"], capsys)
    said(["export", "hf://me/tiny", "again.safetensors"], capsys)
    assert torch.equal(load_run("again.safetensors").sample(num=3, seed=4).pixels, expected)
    pipeline = genzoo.pipelines.DiTPipeline.from_pretrained("me/tiny")
    assert torch.equal(pipeline.samples(3, seed=4).pixels, expected)


def test_nobody_but_genzoo_speaks_while_a_run_goes_and_comes(
    hub: Hub, trained: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TQDM_POSITION", "-1")  # bars are drawn where there is no terminal, too
    push(trained, "me/tiny")
    load_run("hf://me/tiny")
    assert "it/s" not in capfd.readouterr().err  # as bars of that library say


def test_bytes_that_are_fetched_are_told_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetching, "LINE_SECONDS", 0.0)
    caplog.set_level("INFO", "genzoo")
    with fetching.Fetching(total=4_000_000, unit="B", desc="model.safetensors") as bytes_of_one:
        bytes_of_one.update(3_000_000)
    with fetching.Fetching(total=2, desc="Fetching 2 files") as files:
        files.update(1)
    assert caplog.messages == ["fetched 3 of 4 MB"]
    assert capfd.readouterr().err == ""


def test_code_and_pickles_of_a_repository_are_not_fetched(hub: Hub, trained: Run, tmp_path: Path) -> None:
    push(trained, "me/tiny")
    hub.repositories["me/tiny"] |= {"evil.py": b"1", "transformer/x.bin": b"2", "pytorch_model.pt": b"3"}
    hub_runs._fetched.cache_clear()
    load_run("hf://me/tiny")
    fetched = {path.name for path in (tmp_path / "hub").rglob("snapshots/*/**/*") if path.is_file()}
    assert fetched == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "model_index.json",
        "recipe.yaml",
    }


def test_a_second_push_is_another_commit_and_a_revision_is_what_was_there(hub: Hub, trained: Run) -> None:
    push(trained, "me/tiny")
    first = hub.commit("me/tiny")
    push(trained, "me/tiny", licence="mit")
    assert hub.commit("me/tiny") != first
    assert load_run(f"hf://me/tiny@{first}").step == 6


def test_the_token_is_neither_shown_nor_stored(
    hub: Hub, trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(["push", str(trained.folder), "me/tiny", "--json"], capsys)
    assert hub.tokens == {TOKEN}
    assert TOKEN not in out
    for content in hub.repositories["me/tiny"].values():
        assert TOKEN.encode() not in content
    kept = [path for root in (tmp_path, trained.folder) for path in root.rglob("*") if path.is_file()]
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]


def test_without_a_token_nothing_is_asked(hub: Hub, trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(UsageError, match=r"(?s)no token.*--dry-run"):
        push(trained, "me/tiny")
    assert hub.calls == []


def test_a_dry_run_asks_nobody_and_writes_what_would_be_sent(
    hub: Hub, trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "look"
    said(["push", str(trained.folder), "me/tiny", "--dry-run", str(folder), "--license", "mit"], capsys)
    assert hub.calls == []
    push(trained, "me/tiny", licence="mit")
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == set(hub.repositories["me/tiny"])
    assert {"README.md", "recipe.yaml", "samples/00.png", "transformer/config.json"} <= written
    assert torch.equal(load_run(folder).sample(num=2).pixels, trained.sample(num=2).pixels)


def evaluation(folder: Path, **changes: Any) -> None:
    content = {
        "genzoo_evaluation": 1,
        "protocol": "quick-pixels",
        "metrics": {"fid": 12.5},
        "comparable": {"reference": "1234"},
        "generated": {"num": 500},
        "sampling": {"sampler": "ddim", "steps": 3, "seed": 2},
        "intervals": {"fid": {"low": 11.0, "high": 14.0, "level": 0.95}},
        **changes,
    }
    (folder / "evaluation").mkdir()
    (folder / "evaluation/quick.json").write_text(json.dumps(content))
    (folder / "evaluation/broken.json").write_text("{")


def test_the_page_says_data_recipe_results_limits_licence_and_use(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unjudged(trained, tmp_path / "run")
    evaluation(tmp_path / "run")
    write_repository(load_run(tmp_path / "run"), tmp_path / "out", "me/tiny", licence="cc-by-4.0")
    page = ModelCard.load(tmp_path / "out/README.md")
    data = page.data.to_dict()
    assert (data["license"], data["library_name"]) == ("cc-by-4.0", "genzoo")
    assert data["pipeline_tag"] == "unconditional-image-generation"
    assert {"genzoo", "diffusers", "dit"} <= set(data["tags"])
    (result,) = data["model-index"][0]["results"]
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"], metric["config"]) == ("fid", 12.5, "quick-pixels")
    assert metric["args"]["seed"] == 2
    assert metric["args"]["high"] == 14.0
    assert result["dataset"]["name"] == "digits"
    for words in (
        "| quick-pixels | fid | 12.5 | 11 to 14 |",
        "genzoo sample hf://me/tiny",
        'genzoo.from_pretrained("me/tiny")',
        'DiTPipeline.from_pretrained("me/tiny")',
        "trust_remote_code=True",
        "6 of 6 steps of 12 samples; seed 0",
        "![Samples](samples/00.png)",
        "## Limits",
    ):
        assert words in page.content, words


def test_no_place_of_this_machine_is_told(trained: Run, tmp_path: Path) -> None:
    write_repository(trained, tmp_path / "out", "me/tiny")
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path
            assert str(trained.folder).encode() not in path.read_bytes(), path


def test_a_portable_recipe_keeps_what_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("canny").mkdir()
    said = {
        "name": "photos",
        "data": {"name": "image_folder", "root": "photos", "image_size": 64},
        "codec": {"name": "autoencoder_kl", "path": "owner/name"},
        "model": {"name": "car", "var_weights": "assets:var_emoji"},
        "task": {"name": "next_scale", "control": "canny"},
        "report": [
            {"name": "x", "against": {"root": "/data/held_out"}},
            {"name": "y", "page": "~/page.html"},
        ],
        "init_from": "runs/old",
    }
    found = portable(recipe_from(said), None).data
    assert found["data"] == {"name": "image_folder", "root": "???", "image_size": 64}
    assert found["codec"]["path"] == "owner/name"
    assert found["model"]["var_weights"] == "assets:var_emoji"
    assert found["task"]["control"] == "canny"
    assert found["report"] == [
        {"name": "x", "against": {"root": "???"}},
        {"name": "y", "page": "???"},
    ]
    assert "init_from" not in found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "me/tiny"], "nowhere is not a run folder"),
        (["RUN", "tiny"], "names no repository"),
        (["RUN", "me/tiny@v1"], "names a revision"),
        (["RUN", "me/tiny", "--license", "appache-2.0"], "did you mean 'apache-2.0'"),
    ],
)
def test_what_is_misspelt_is_found_before_anything_is_loaded(
    trained: Run, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, *others = arguments
    with pytest.raises(SystemExit) as stop:
        main(["push", str(trained.folder) if run == "RUN" else run, *others])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_a_repository_that_is_not_there_or_holds_nothing_is_told(hub: Hub) -> None:
    with pytest.raises(WeightsError, match="cannot fetch me/none"):
        load_run("hf://me/none")
    hub.repositories["me/empty"] = {"README.md": b"#"}
    with pytest.raises(WeightsError, match="me/empty holds nothing that genzoo samples"):
        load_run("hf://me/empty")
    with pytest.raises(UsageError, match="names no repository"):
        load_run("hf://../../etc")


def test_names_of_others_are_no_markup() -> None:
    assert plain("<img src=x> [a](b) `c` | d\u202e") == "img src=x a(b) c  d"
    assert plain("\n") == "unnamed"


def test_concepts_go_to_the_hub_and_from_there_into_a_merge(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from genzoo.families.custom_diffusion import write_concept
    from genzoo.families.custom_diffusion.files.read_layouts import read_concept

    changes = ["train.steps=1", "train.batch_size=2", "preview=null", "report=[]", "train.tensorboard=false"]
    run = genzoo.train(genzoo.load_recipe("quickstart/custom_diffusion_emoji", changes), output="concept_run")
    push(run, "me/concept")
    files = hub.repositories["me/concept"]
    assert {"README.md", "recipe.yaml", "concept.safetensors"} <= set(files)
    assert any(name.startswith("diffusers/") for name in files)
    concept = read_concept("hf://me/concept")
    assert concept.notes.get("base_path") is None
    word = next(iter(concept.tokens))
    made = genzoo.from_pretrained("me/concept").sample(num=1, prompt=f"a {word}", steps=2)
    assert made.pixels.shape[0] == 1

    for number, name in enumerate(("cat", "dog"), 1):  # one step teaches too little to be merged
        moved = {key: weight * 1.01 + 0.001 * number for key, weight in concept.weights.items()}
        write_concept(replace(concept, weights=moved), Path(f"{name}.safetensors"))
        said(["push", f"{name}.safetensors", f"me/{name}"], capsys)
    how = ["--base", "assets:text_to_image_emoji", "--num-captions", "20", "--rename", "-o"]
    out = said(["merge-concepts", "hf://me/cat", "hf://me/dog:0.5", *how, "hub.safetensors"], capsys)
    said(["merge-concepts", "cat.safetensors", "dog.safetensors:0.5", *how, "here.safetensors"], capsys)
    assert "renamed: dog: <new1> -> <new2>" in out
    merged, expected = read_concept("hub.safetensors"), read_concept("here.safetensors")
    assert merged.weights.keys() == expected.weights.keys()
    assert all(torch.equal(merged.weights[name], weight) for name, weight in expected.weights.items())
    assert len(merged.tokens) == 2 * len(concept.tokens)
