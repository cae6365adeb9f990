"""Nodes leave and are replaced while a run goes on: each torchrun here is one node, on this machine's processor."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Small and long enough that a signal comes before its end; a state after every step.
TRAIN = ("train", "tiny", "--epochs", "8", "--image-size", "16", "--batch-size", "64", "--device", "cpu")
RESUMABLE = ("--workers", "0", "--save-every", "0", "--auto-resume")


def start_node(port: int, *arguments: str, hosts_rendezvous: bool) -> subprocess.Popen[str]:
    """torchrun as one of two nodes with one process each, in a session of its own so that all of it can be killed."""
    conf = f"is_host={int(hosts_rendezvous)},keep_alive_interval=1,keep_alive_max_attempt=2,last_call_timeout=1"
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=3"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=test", f"--rdzv-conf={conf}"]
    command += ["--local-addr=localhost", "-m", "zoo", *arguments]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@pytest.mark.slow
def test_a_node_that_is_drained_and_replaced_costs_nothing_but_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = (*TRAIN, *RESUMABLE, "--out", str(folder))
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    nodes = [start_node(port, *arguments, hosts_rendezvous=True), start_node(port, *arguments, hosts_rendezvous=False)]
    try:
        while not (folder / "state.pt").is_file() and all(node.poll() is None for node in nodes):
            select.select([], [], [], 0.02)
        nodes[1].send_signal(signal.SIGTERM)
        left, _ = nodes[1].communicate(timeout=120)
        assert nodes[1].returncode == 1, left[-3000:]  # torchrun's own after a signal
        assert (folder / "state.pt").is_file(), left[-3000:]
        nodes.append(start_node(port, *arguments, hosts_rendezvous=False))
        said = [nodes[place].communicate(timeout=300)[0] for place in (0, 2)]
    finally:
        for node in nodes:
            node.kill()
    assert [nodes[place].returncode for place in (0, 2)] == [0, 0], "\n".join(text[-3000:] for text in said)
    assert "Resuming" in "".join(said)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 9))
    assert not folder.with_name("run.1").exists()  # it went on; it did not begin anew
