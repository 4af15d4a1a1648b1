"""The SLURM script, run with stand-ins for the commands of SLURM: what each machine launches, and the time limit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from conftest import ROOT

SCRIPT = ROOT / "recipes" / "slurm" / "train.sbatch"
COMMANDS = {
    # Runs the command once per machine, as srun does, and hands back the first exit code that is not 0
    "srun": """shift; pids=()
for id in 0 1; do SLURM_NODEID=$id "$@" & pids+=($!); done
code=0; for pid in "${pids[@]}"; do wait "$pid" || code=$?; done; exit $code""",
    "scontrol": 'if [ "$1" = show ]; then printf "node1\\nnode2\\n"; else echo "scontrol $*" >> "$LOG/slurm"; fi',
    "scancel": 'echo "scancel $*" >> "$LOG/slurm"; touch "$LOG/stop"',
    # Writes its arguments down instead of training
    "accelerate": """"$PYTHON" -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@" > "$LOG/node$SLURM_NODEID"
while [ -n "${LONG:-}" ] && [ ! -f "$LOG/stop" ]; do sleep 0.05; done; exit "${CODE:-0}" """,
}


@pytest.fixture
def cluster(tmp_path) -> tuple[Path, dict[str, str]]:
    """A folder for what the commands write, and the environment of a job on two machines with four GPUs each."""
    for name, text in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path), "PYTHON": sys.executable,
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4",
    }  # fmt: skip
    return tmp_path, env


def launch(cluster: tuple[Path, dict[str, str]], *arguments: str, **more: str) -> subprocess.Popen:
    # Not in the root, whose .venv would come before the stand-ins
    folder, env = cluster
    (folder / "recipes").mkdir(exist_ok=True)
    return subprocess.Popen(["bash", str(SCRIPT), *arguments], cwd=folder, env=env | more, stderr=subprocess.PIPE)


def test_each_machine_starts_its_processes_and_all_meet_at_the_first(cluster):
    words = ["run_qa_sft.py", "recipes/phi3_qlora.yaml", "--system_prompt", "Answer in one sentence."]
    assert launch(cluster, *words).wait(timeout=60) == 0
    found = [json.loads((cluster[0] / f"node{i}").read_text()) for i in (0, 1)]
    args = []
    for launched in found:
        assert launched[0] == "launch"
        launched[launched.index("--config_file") + 1] = str(ROOT / launched[launched.index("--config_file") + 1])
        args.append(_validate_launch_command(launch_command_parser().parse_args(launched[1:]))[0])
    for rank, parsed in enumerate(args):
        assert [parsed.training_script, *parsed.training_script_args] == words
        assert (parsed.num_machines, parsed.num_processes, parsed.machine_rank) == (2, 8, rank)
        assert (parsed.main_process_ip, parsed.main_process_port) == ("node1", args[0].main_process_port)
        assert 1024 < parsed.main_process_port < 65536 and parsed.multi_gpu


def test_a_job_fails_with_its_processes_and_without_a_script(cluster):
    assert launch(cluster, "run_qa_sft.py", CODE="2").wait(timeout=60) == 2
    assert launch(cluster).wait(timeout=60) == 2


def test_the_time_limit_stops_the_processes_and_queues_the_job_again(cluster):
    folder, _ = cluster
    job = launch(cluster, "run_qa_sft.py", LONG="1")
    while not ((folder / "node0").exists() and (folder / "node1").exists()):
        assert job.poll() is None
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    job.wait(timeout=60)
    assert (folder / "slurm").read_text().splitlines() == ["scancel --signal=TERM 4711.0", "scontrol requeue 4711"]
