"""A batch script for Slurm: one torchrun a node, a checkpoint before the time is over, and another turn."""

from __future__ import annotations

import shlex

from genzoo.api.launching.torchrun import Job, meeting_at, prologue, torchrun_line

BEFORE_END = 300  # seconds before the time limit; more than a checkpoint may take


def slurm_script(job: Job, *, time: str = "24:00:00") -> str:
    """For sbatch.   time: the limit; five minutes before it the run saves and is queued again."""
    srun = torchrun_line(
        job,
        nodes=str(job.nodes),
        processes=str(job.gpus),
        meeting=meeting_at('"$head:$port"', '"$SLURM_JOB_ID"'),
    )
    return "\n".join(
        [
            "#!/bin/bash",
            f"#SBATCH --job-name={shlex.quote(job.name)}",
            f"#SBATCH --nodes={job.nodes}",
            "#SBATCH --ntasks-per-node=1",
            f"#SBATCH --gpus-per-node={job.gpus}",
            f"#SBATCH --cpus-per-task={job.cpus}",
            f"#SBATCH --time={shlex.quote(time)}",
            f"#SBATCH --signal=B:USR1@{BEFORE_END}",
            "#SBATCH --requeue",
            "#SBATCH --open-mode=append",
            "set -uo pipefail",
            *prologue(job),
            'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "port=$((20000 + SLURM_JOB_ID % 20000))",
            "stop=0",
            f"srun --kill-on-bad-exit=1 {srun} &",
            "step=$!",
            """trap 'stop=1; kill -s USR1 "$step"' USR1""",
            "# a trap runs when wait returns, which it does before the step has ended",
            'while kill -0 "$step" 2>/dev/null; do wait "$step"; done',
            'wait "$step"',
            "rc=$?",
            'if [ "$stop" -eq 1 ] && [ "$rc" -ne 0 ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
            'exit "$rc"',
            "",
        ]
    )
