"""Scripts for schedulers: what a shell, torchrun and a YAML reader make of them."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from recipe_cases import TINY
from torch.distributed.run import get_args_parser

from genzoo.api.launching.clusters import kubernetes_yaml, skypilot_yaml
from genzoo.api.launching.slurm import slurm_script
from genzoo.api.launching.torchrun import Job, torchrun_script
from genzoo.cli import main
from genzoo.core.errors import UsageError

JOB = Job(
    "dim-b4",
    ["dim_b4_imagenet", "data.root=my pictures; rm x", "--output", "runs/it's"],
    "runs/logs",
    2,
    4,
    48,
    5,
)


def texts() -> dict[str, str]:
    """Every shell text."""
    pod = yaml.safe_load(kubernetes_yaml(JOB, image="me/genzoo:1", claim="disk"))
    containers = pod["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    return {
        "torchrun": torchrun_script(JOB),
        "one machine": torchrun_script(Job("x", ["dim_digits"], "logs")),
        "slurm": slurm_script(JOB),
        "kubernetes": containers[0]["command"][2],
        "skypilot": yaml.safe_load(skypilot_yaml(JOB, accelerator="H100"))["run"],
    }


@pytest.mark.parametrize("kind", list(texts()))
def test_a_shell_reads_every_text(kind: str, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(texts()[kind] if texts()[kind].startswith("#!") else f"#!/bin/bash\n{texts()[kind]}")
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", list(texts()))
def test_shellcheck_has_nothing_to_say(kind: str) -> None:
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shellcheck = shutil.which("shellcheck", path=beside)
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    text = texts()[kind] if texts()[kind].startswith("#!") else f"#!/bin/bash\n{texts()[kind]}"
    found = subprocess.run([shellcheck, "-"], input=text, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("kind", list(texts()))
def test_torchrun_parses_the_line_and_the_command_keeps_its_words(kind: str) -> None:
    line = next(line for line in texts()[kind].splitlines() if "torchrun --nnodes" in line)
    words = shlex.split(line.partition("torchrun --nnodes")[2].removesuffix(" &"))
    filled = {"$SKYPILOT_NUM_NODES": "2", "$SKYPILOT_NUM_GPUS_PER_NODE": "4"}
    words = ["--nnodes", *(filled.get(word, word) for word in words)]
    options = words.index("${options[@]}")
    words[options : options + 1] = ["--signals-to-handle", "SIGTERM,SIGUSR1", "--shutdown-timeout", "240"]
    parsed = get_args_parser().parse_args(words)
    assert parsed.max_restarts == 0
    assert parsed.training_script == "genzoo"
    assert parsed.module
    if kind != "one machine":
        assert parsed.rdzv_backend == "c10d"
        assert (parsed.nnodes, parsed.nproc_per_node) == ("2", "4")
        assert parsed.training_script_args == ["train", *JOB.command]


def test_threads_leave_cores_for_loaders() -> None:
    assert "OMP_NUM_THREADS=2" in torchrun_script(JOB)  # 48 cores, 4 processes, each with 5 loaders
    assert Job("x", [], "logs", 1, 8, 4).threads == 1


def test_words_that_a_script_cannot_hold_are_refused() -> None:
    with pytest.raises(UsageError, match="line break"):
        Job("x", ["a\nrm -rf /"], "logs")


STAND_INS = {
    "torchrun": 'if [ "$1" = --help ]; then echo "--signals-to-handle --shutdown-timeout"; fi',
    "srun": 'trap "echo saved; exit $CODE" USR1; echo ready >&2\n'
    "for _ in $(seq $TURNS); do sleep 0.02; done; exit $CODE",
    "scontrol": 'if [ "$1" = show ]; then echo first; echo second; else echo "$@"; fi',
}


def slurm(folder: Path, *, code: int, tell: bool) -> str:
    """What the batch script prints, with stand-ins for Slurm's commands and torchrun."""
    for name, text in STAND_INS.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    (folder / "job.sh").write_text(slurm_script(JOB))
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}", "CODE": str(code), "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "n[1-2]", "TURNS": "800" if tell else "2",
    }  # fmt: skip
    child = subprocess.Popen(
        ["bash", str(folder / "job.sh")],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    assert child.stdout is not None
    assert child.stderr.readline() == "ready\n"
    if tell:
        child.send_signal(signal.SIGUSR1)
    printed = child.stdout.read()
    assert child.wait(30) == code
    return printed


def test_a_job_that_is_told_to_end_saves_and_is_queued_again(tmp_path: Path) -> None:
    assert slurm(tmp_path, code=1, tell=True).split("\n") == ["saved", "requeue 77", ""]


@pytest.mark.parametrize(("code", "tell"), [(0, True), (4, False)], ids=["done", "failed"])
def test_a_job_that_is_done_or_failed_is_not(tmp_path: Path, code: int, tell: bool) -> None:
    assert "requeue" not in slurm(tmp_path, code=code, tell=tell)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": {"properties": {"name": {"pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}}},
        "spec": {
            "required": ["network", "failurePolicy", "replicatedJobs"],
            "properties": {
                "network": {"properties": {"enableDNSHostnames": {"const": True}}},
                "replicatedJobs": {
                    "minItems": 1, "maxItems": 1,
                    "items": {
                        "required": ["name", "replicas", "template"],
                        "properties": {
                            "replicas": {"const": 1},
                            "template": {"properties": {"spec": {
                                "required": ["completionMode", "parallelism", "completions", "backoffLimit"],
                                "properties": {
                                    "completionMode": {"const": "Indexed"},
                                    "backoffLimit": {"const": 0},
                                },
                            }}},
                        },
                    },
                },
            },
        },
    },
}  # fmt: skip


def test_the_jobset_has_its_fields_and_time_to_save() -> None:
    made = yaml.safe_load(kubernetes_yaml(JOB, image="me/genzoo:1", claim="disk"))
    jsonschema.validate(made, SCHEMA)
    indexed = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (indexed["parallelism"], indexed["completions"]) == (2, 2)
    pod = indexed["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 300
    assert [volume["name"] for volume in pod["volumes"]] == ["shm", "work"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 4, "cpu": 48}
    assert "exec torchrun" in pod["containers"][0]["command"][2]
    assert "dim-b4-train-0-0.dim-b4:29500" in pod["containers"][0]["command"][2]
    with pytest.raises(UsageError, match="needs an image"):
        kubernetes_yaml(JOB, image=None, claim=None)


def test_the_task_of_skypilot_has_its_fields() -> None:
    made = yaml.safe_load(skypilot_yaml(JOB, accelerator="H100"))
    assert set(made) == {"name", "num_nodes", "resources", "setup", "run"}
    assert (made["name"], made["num_nodes"], made["resources"]) == ("dim-b4", 2, {"accelerators": "H100:4"})
    assert "exec torchrun" in made["run"]


def test_the_command_writes_once_and_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["launch", "slurm", "dim_b4_imagenet", "data.root=pictures", "--nodes", "2"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--print"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    for _ in range(2):  # the same again is no other file
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    assert (tmp_path / "dim_b4_imagenet.slurm.sh").read_text() == printed
    assert "sbatch dim_b4_imagenet.slurm.sh" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "train.steps=5"])
    assert ended.value.code == 2


@pytest.mark.slow
@pytest.mark.distributed
def test_two_agents_run_the_scripts_line_and_go_on_after_one_was_killed(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    settings = {**TINY, "preview": None, "report": []}
    recipe.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not None}))
    run = tmp_path / "run"

    def start(steps: int) -> list[subprocess.Popen[bytes]]:
        command = [str(recipe), f"train.steps={steps}", "--output", str(run)]
        script = tmp_path / f"{steps}.sh"
        script.write_text(torchrun_script(Job(f"j{steps}", command, str(tmp_path / "logs"), 2, 1, 2)))
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {"HEAD": "127.0.0.1", "PORT": str(29500 + os.getpid() % 500), "PATH": path,
                                    "ACCELERATE_USE_CPU": "true"}  # fmt: skip
        quiet = subprocess.DEVNULL
        agents = [["bash", str(script)]] * 2
        return [subprocess.Popen(agent, env=environment, stdout=quiet, stderr=quiet) for agent in agents]

    first = start(100_000)
    try:
        until = time.monotonic() + 400
        while not list(run.glob("checkpoints/step_*")):
            assert time.monotonic() < until, "no step was made"
            time.sleep(0.1)
        first[1].kill()  # bash has become torchrun
        assert all(agent.wait(120) != 0 for agent in first)
    finally:
        for agent in first:
            agent.kill()
    step = max(int(path.name[5:]) for path in run.glob("checkpoints/step_*"))
    second = start(step + 2)
    try:
        assert [agent.wait(400) for agent in second] == [0, 0]
    finally:
        for agent in second:
            agent.kill()
    assert (run / "checkpoints" / f"step_{step + 2:08d}").is_dir()
