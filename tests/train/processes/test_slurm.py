"""The batch file under Slurm itself: a throw-away cluster in a temporary folder, all of it on this machine."""

from __future__ import annotations

import getpass
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BATCH = ROOT / "examples" / "cluster" / "train.sbatch"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "srun")
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
# Two nodes with what the file asks for; every address in 127/8 is this machine, so torchrun finds both.
CONFIG = """
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A requeued job waits until the credentials of its last start are void: 120 seconds by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=127.0.0.[1-2] NodeAddr=127.0.0.1 Port=[{ports[1]},{ports[2]}] CPUs=64 RealMemory=500000 Gres=gpu:8
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE
"""

pytestmark = pytest.mark.slurm


@dataclass(frozen=True)
class Cluster:
    """A running controller with its nodes."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str | Path, **variables: str) -> str:
        """One of Slurm's programs: what it said, on both streams."""
        done = subprocess.run(
            command,
            env=self.environment | variables,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What the controller knows of a job."""
        words = self.run("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)


def wait_until(condition: Callable[[], bool], describe: Callable[[], str], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {describe()}")
        select.select([], [], [], 0.1)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def daemon(cluster: Cluster, *command: str) -> Iterator[None]:
    log = (cluster.folder / f"{command[0]}.out").open("a")
    with log, subprocess.Popen(command, env=cluster.environment, stdout=log, stderr=log) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    missing = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if missing:
        pytest.skip(f"needs Slurm and munge, here without {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    gpus = [folder / f"gpu{number}" for number in range(8)]  # files that stand for devices
    for gpu in gpus:
        gpu.touch()
    config = CONFIG.format(folder=folder, host=socket.gethostname(), user=getpass.getuser(), ports=free_ports(3))
    (folder / "slurm.conf").write_text(config)
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={gpu}\n" for gpu in gpus))
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
    settings = {"PATH": PATH, "PYTHONPATH": str(ROOT), "SLURM_CONF": str(folder / "slurm.conf")}
    cluster = Cluster(folder, own | settings)
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    with ExitStack() as stack:
        stack.enter_context(
            daemon(cluster, "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge)
        )
        wait_until((folder / "munge.socket").exists, (folder / "munged.out").read_text, 30)
        stack.enter_context(daemon(cluster, "slurmctld", "-D", "-c"))
        for node in ("127.0.0.1", "127.0.0.2"):
            stack.enter_context(daemon(cluster, "slurmd", "-D", "-N", node))
        sinfo = ["sinfo", "--noheader", "--format=%T"]

        def states() -> str:
            done = subprocess.run(sinfo, env=cluster.environment, capture_output=True, text=True, check=False)
            return done.stdout.strip()

        wait_until(lambda: states() == "idle", lambda: states() + (folder / "slurmctld.log").read_text()[-2000:], 60)
        yield cluster


def test_slurm_accepts_the_batch_file(cluster: Cluster) -> None:
    said = cluster.run("sbatch", "--test-only", BATCH)
    assert "using 128 processors on nodes 127.0.0.[1-2]" in said


def test_slurm_reads_the_directives_as_they_are_meant(cluster: Cluster) -> None:
    number = cluster.run("sbatch", "--parsable", "--hold", BATCH).strip()
    job = cluster.job(number)
    cluster.run("scancel", number)
    assert (job["JobName"], job["NumNodes"], job["CPUs/Task"], job["TimeLimit"]) == ("zoo", "2-2", "64", "1-00:00:00")
    assert job["TresPerNode"].endswith("gpu:8")
    assert (job["NtasksPerN:B:S:C"].split(":")[0], job["Requeue"]) == ("1", "1")
    assert job["StdOut"] == str(cluster.folder / f"zoo-{number}.out")


@pytest.mark.slow
def test_a_job_that_is_signalled_writes_its_state_and_goes_on_from_the_queue(
    cluster: Cluster, picture_folder: Path
) -> None:
    """On both nodes, on processors; decoding processes, as Slurm and torchrun signal those too."""
    run = cluster.folder / "runs"
    resources = ("--gpus-per-node=0", "--cpus-per-task=2", "--mem=100", "--time=20")
    recipe = ("tiny", "--recipe", "folder", "--epochs", "6", "--image-size", "24", "--batch-size", "4")
    number = cluster.run(
        *("sbatch", "--parsable", *resources, BATCH, *recipe, "--device", "cpu", "--workers", "1"),
        **{"DATA": str(picture_folder), "OUT": str(run), "PROCESSES": "1", "OMP_NUM_THREADS": "1"},
    ).strip()
    log = cluster.folder / f"zoo-{number}.out"
    wait_until(lambda: (run / "metrics.jsonl").is_file(), log.read_text)
    cluster.run("scancel", "--signal=TERM", "--batch", number)
    wait_until(lambda: cluster.job(number)["JobState"] == "COMPLETED", log.read_text)
    said = log.read_text()
    assert "Stopped" in said and f"Resuming {run}" in said
    assert cluster.job(number)["Restarts"] == "1"
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 7))
    assert (run / "checkpoint.safetensors").is_file()
    assert not run.with_name("runs.1").exists()  # it went on; it did not begin anew
