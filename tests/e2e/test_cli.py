"""The command line: what it prints, and the exit code that says which kind of thing went wrong."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from recipe_cases import TINY

from genzoo.__main__ import run
from genzoo.cli import main
from genzoo.core.recipe import recipe_from
from genzoo.core.registry import COMMANDS


class Result:
    """Exit code and output of one command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> Result:
        capsys.readouterr()
        try:
            main(list(arguments))
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(recipe_from(TINY).to_yaml())
    return path


def test_help_names_every_command_and_exit_code(run_cli) -> None:
    result = run_cli("--help")
    assert result.code == 0
    names = [name.split()[0] for name in COMMANDS]  # "prepare things" is in the help of its group
    for word in (*names, "130/143", "--debug"):
        assert word in result.out, word
    below = run_cli("prepare", "--help").out
    for word in (name.split()[1] for name in COMMANDS if name.startswith("prepare ")):
        assert word in below, word


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(run_cli, command: str) -> None:
    result = run_cli(*command.split(), "--help")
    assert result.code == 0
    assert "Usage: genzoo" in result.out


@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_first_words_of_a_commands_help_are_a_sentence(command: str) -> None:
    words = COMMANDS.help(command)
    assert words[0].isupper()
    assert words[-1] in ".:"


def test_help_has_all_that_a_commands_docstring_says(run_cli) -> None:
    assert "The same command again continues." in run_cli("sweep", "--help").out


def test_list_prints_names_and_json(run_cli) -> None:
    assert "dim_b4_imagenet" in run_cli("list").out
    assert json.loads(run_cli("list", "samplers", "dd*", "--json").out)["samplers"].keys() == {"ddim", "ddpm"}
    wrong = run_cli("list", "modles")
    assert wrong.code == 2
    assert "did you mean 'models'" in wrong.err


def test_show_prints_each_values_origin(run_cli, recipe_file: Path) -> None:
    result = run_cli("show", "dim_b4_imagenet", "train.steps=7")
    assert result.code == 0
    line = next(line for line in result.out.splitlines() if line.strip().startswith("hidden_size"))
    assert line.endswith("configs/models/dim_b4.yaml")
    assert "steps: 7" in result.out
    assert "# override train.steps" in result.out
    assert "num_heads: 6" in run_cli("show", "dit_s8").out
    plain = run_cli("show", str(recipe_file), "--plain").out
    assert plain.rstrip() == recipe_from(TINY).to_yaml().rstrip()


def test_validate_names_what_only_the_user_can_give(run_cli) -> None:
    result = run_cli("validate", "dim_b4_imagenet", "quickstart/dim_digits")
    assert result.code == 0
    assert "dim_b4_imagenet: ok; you have to give data.root" in result.out
    result = run_cli("validate", "dim_b4_imagenet", "model.depht=3", "train.stepz=3")
    assert result.code == 2
    assert (
        "override model.depht: model.depht: dim has no argument 'depht'; did you mean 'depth'?" in result.err
    )
    assert "'steps'" in result.err


def test_count_prints_the_papers_numbers(run_cli) -> None:
    found = json.loads(run_cli("count", "dim_b4", "--image-size", "256", "--paper", "--json").out)
    assert round(found["params"], 2) == 134.37
    assert round(found["gflops"], 2) == 14.71
    assert "params in millions" in run_cli("count", "dit_s8", "depth=2").out


def test_doctor_reports_scan_backends(run_cli) -> None:
    result = run_cli("doctor", "--json")
    assert result.code == 0
    assert {"scan torch", "scan triton"} <= {finding["topic"] for finding in json.loads(result.out)}


def test_train_sample_rerun_and_export(run_cli, recipe_file: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    assert "global batch 12" in run_cli("train", str(recipe_file), "--output", run, "--dry-run").out
    assert not Path(run).exists()
    trained = run_cli("train", str(recipe_file), "train.steps=4", "--output", run)
    assert trained.code == 0
    assert f"run: {run}" in trained.out
    assert "sample_grid: grid" in trained.out
    sampled = run_cli("sample", run, "class_labels=[1,2,3]", "--out", str(tmp_path / "out"), "--steps", "2")
    assert sampled.code == 0
    assert len(list((tmp_path / "out").glob("0*.png"))) == 3
    named = run_cli("sample", run, "--class", "1,2,3", "--out", str(tmp_path / "named"), "--steps", "2")
    assert named.code == 0
    for picture in (tmp_path / "out").glob("0*.png"):
        assert (tmp_path / "named" / picture.name).read_bytes() == picture.read_bytes()
    assert "there is no class 'dog'" in run_cli("sample", run, "--class", "dog").err
    assert "'prompt'" in run_cli("sample", run, "--prompt", "a red apple").err
    again = run_cli("rerun", run, "--output", str(tmp_path / "again"), "--steps", "2", "--compare")
    assert "losses are equal at all 2 steps" in again.out
    exported = run_cli("export", run, str(tmp_path / "weights.safetensors"), "--half")
    assert exported.code == 0
    assert (tmp_path / "weights.safetensors").is_file()
    assert run_cli("sample", run, "--checkpoint", "3").code == 4
    refused = run_cli("train", str(recipe_file), "--output", run, "--resume", "never")
    assert refused.code == 2


def test_a_run_without_average_is_sampled_with_its_raw_weights(
    run_cli, recipe_file: Path, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    assert run_cli("train", str(recipe_file), "train.ema_decay=null", "report=[]", "--output", run).code == 0
    assert run_cli("sample", run, "--num", "2", "--steps", "2", "--out", str(tmp_path / "out")).code == 0
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["weights"] == "raw"
    refused = run_cli("sample", run, "--num", "2", "--weights", "ema")
    assert refused.code == 4
    assert "no averaged weights" in refused.err


def test_a_reader_that_leaves_gets_no_error() -> None:
    reader = subprocess.run(
        f"{sys.executable} -m genzoo list models | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert reader.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "no_such_recipe"], 2, "there is no recipe"),
        (["train", "dim_b4_imagenet"], 2, "data.root=..."),
        (["train", "TINY", "train.batch_size=5", "train.micro_batch_size=2"], 2, "use one of"),
        (["train", "TINY", "model.num_classes=5"], 4, "5 classes"),
        (["train", "TINY", "optim.lr=1e30", "train.steps=20"], 5, "not finite"),
        (["train", "TINY", "data.name=image_folder", "data.root=/nowhere"], 4, "/nowhere"),
        (["train", "TINY", "--resume", "/nowhere"], 4, "nothing to resume"),
        (["sample", "/nowhere"], 2, "not a run folder"),
        (["prepare", "latents", "TINY"], 2, "latent_cache"),
        (["count", "dim_b5"], 2, "did you mean"),
        (["convert", "/nowhere.pt", "OUT"], 4, "nowhere.pt"),
        (["trian"], 2, "Did you mean 'train'"),
        (["train", "TINY", "--resum", "never"], 2, "--resume"),
    ],
)
def test_errors_take_six_lines_and_a_documented_code(
    run_cli, recipe_file: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    places = {"TINY": str(recipe_file), "OUT": str(tmp_path / "out")}
    arguments = [places.get(text, text) for text in arguments]
    if arguments[0] == "train":
        arguments += ["--output", str(tmp_path / "run")]
    result = run_cli(*arguments)
    assert result.code == code
    assert words in result.err
    message = result.err[result.err.rfind("error: ") :] if "error: " in result.err else result.err
    assert len(message.strip().splitlines()) <= 6
    assert "Traceback" not in result.err


def test_ctrl_c_during_the_imports_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        @property
        def main(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "genzoo.cli", Interrupted())
    monkeypatch.setattr(sys, "argv", ["genzoo"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("genzoo", run_name="__main__")
    assert ended.value.code == 130
    with pytest.raises(SystemExit) as ended:
        run()  # what the installed command is
    assert ended.value.code == 130


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    for arguments in (["--debug", "show", "no_such"], ["show", "no_such", "--debug"]):
        with pytest.raises(Exception, match="there is no recipe"):
            main(arguments)


def test_latents_are_prepared_once_and_training_reads_them(
    run_cli, tmp_path: Path, recipe_file: Path
) -> None:
    from PIL import Image

    for index in range(6):
        path = tmp_path / f"images/class_{index % 2}/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + index, 18), (40 * index, 90, 10)).save(path)
    (tmp_path / "images/class_0/broken.png").write_bytes(b"not a picture")
    overrides = [
        "data.name=image_folder", f"data.root={tmp_path / 'images'}", "data.image_size=16",
        f"data.latent_cache={tmp_path / 'latents'}", "codec.name=identity", "train.max_bad=1",
        "train.batch_size=4",
    ]  # fmt: skip
    first = run_cli("prepare", "latents", str(recipe_file), *overrides)
    assert first.code == 0, first.err
    assert "7 pictures: 6 encoded, 0 reused, 1 bad" in first.out
    assert "broken.png" in first.err
    assert "0 encoded, 6 reused" in run_cli("prepare", "latents", str(recipe_file), *overrides).out
    trained = run_cli(
        "train", str(recipe_file), *overrides, "train.steps=3", "--output", str(tmp_path / "run")
    )
    assert trained.code == 0, trained.err
    sound = run_cli("prepare", "latents", str(recipe_file), *overrides, "--verify")
    assert (sound.code, "7 pictures: 0 replaced, 0 without an entry, 1 unreadable" in sound.out) == (0, True)
    (tmp_path / "images/class_1/1.png").write_bytes((tmp_path / "images/class_0/0.png").read_bytes() + b"x")
    edited = run_cli("prepare", "latents", str(recipe_file), *overrides, "--verify")
    assert (edited.code, "no entry:" in edited.out, "1.png" in edited.out) == (4, True, True)
