"""YAML for Kubernetes (a JobSet) and for SkyPilot. Neither was run on a cluster."""

from __future__ import annotations

from typing import Any

import yaml

from genzoo.api.launching.torchrun import PORT, SHUTDOWN, Job, meeting_at, prologue, torchrun_line
from genzoo.core.errors import UsageError

REPLICA = "train"
GRACE = SHUTDOWN + 60  # seconds between SIGTERM and SIGKILL of a pod


class _Text(yaml.SafeDumper):
    """Texts of several lines as blocks, which people can read."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Text.add_representer(str, _block)


def kubernetes_yaml(job: Job, *, image: str | None, claim: str | None) -> str:
    """A JobSet of one indexed job: a pod a node, found by its host name.

    image: with genzoo in it.   claim: name of a volume claim with data and runs, mounted at /work.
    """
    if not image:
        raise UsageError("a pod needs an image", fix="name one with genzoo and its GPU's torch: --image")
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        "containers": [_container(job, image, claim)],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory"}},  # loader processes hand batches over in it
            *([{"name": "work", "persistentVolumeClaim": {"claimName": claim}}] if claim else []),
        ],
    }
    indexed = {"completionMode": "Indexed", "parallelism": job.nodes, "completions": job.nodes}
    template = {"spec": {**indexed, "backoffLimit": 0, "template": {"spec": pod}}}
    return _dumped(
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": job.name},
            "spec": {
                "network": {"enableDNSHostnames": True},
                "failurePolicy": {"maxRestarts": 10},  # all pods together; the run goes on where it was
                "replicatedJobs": [{"name": REPLICA, "replicas": 1, "template": template}],
            },
        }
    )


def skypilot_yaml(job: Job, *, accelerator: str) -> str:
    """A task for `sky launch` or `sky jobs launch`.   accelerator: such as H100."""
    head = 'head=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)'
    line = torchrun_line(
        job,
        nodes='"$SKYPILOT_NUM_NODES"',
        processes='"$SKYPILOT_NUM_GPUS_PER_NODE"',
        meeting=meeting_at(f'"$head:{PORT}"', job.name),
    )
    return _dumped(
        {
            "name": job.name,
            "num_nodes": job.nodes,
            "resources": {"accelerators": f"{accelerator}:{job.gpus}"},
            "setup": "pip install genzoo\n",
            "run": "\n".join(["set -euo pipefail", *prologue(job), head, f"exec {line}", ""]),
        }
    )


def _container(job: Job, image: str, claim: str | None) -> dict[str, Any]:
    head = f"{job.name}-{REPLICA}-0-0.{job.name}"
    line = torchrun_line(
        job,
        nodes=str(job.nodes),
        processes=str(job.gpus),
        meeting=meeting_at(f"{head}:{PORT}", job.name),
    )
    # exec: SIGTERM of a pod goes to its first process
    text = "\n".join(["set -euo pipefail", *prologue(job), f"exec {line}", ""])
    return {
        "name": "genzoo",
        "image": image,
        "command": ["bash", "-c", text],
        **({"workingDir": "/work"} if claim else {}),
        "resources": {"limits": {"nvidia.com/gpu": job.gpus, "cpu": job.cpus}},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},
            *([{"name": "work", "mountPath": "/work"}] if claim else []),
        ],
    }


def _dumped(value: dict[str, Any]) -> str:
    return str(yaml.dump(value, Dumper=_Text, sort_keys=False, width=10**6))
