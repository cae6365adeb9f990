"""The files of examples/cluster: their command lines, their syntax, their schemas and what the image is built from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from train.cli import train

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "examples" / "cluster"
BATCH = CLUSTER / "train.sbatch"
# What Slurm sets in a job of the file's own directives.
ALLOCATION = {
    "SLURM_SUBMIT_DIR": "/shared",
    "SLURM_JOB_ID": "123456",
    "SLURM_JOB_NODELIST": "node[01-02]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_CPUS_PER_TASK": "64",
}


def load_job() -> dict[str, Any]:
    job: dict[str, Any] = yaml.safe_load((CLUSTER / "pytorchjob.yaml").read_text())
    return job


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    return dict(container)


def parse_torchrun(arguments: list[str]) -> tuple[Namespace, dict[str, Any]]:
    """torchrun's own options by its own parser, and those of `zoo train` by ours."""
    from torch.distributed.run import parse_args

    launch = parse_args(arguments)
    assert (launch.no_python, launch.training_script, launch.training_script_args[0]) == (True, "zoo", "train")
    return launch, train.make_context("zoo train", launch.training_script_args[1:]).params


def run_batch_file(
    folder: Path, *arguments: str, step: str = "", scancel: str = "exit 1", **variables: str
) -> subprocess.CompletedProcess[str]:
    """The batch file run by the shell with stand-ins for Slurm's programs, which note how they are called.

    `step` is what the shell does in place of srun after that, `scancel` in place of that one.
    """
    programs = {
        "scontrol": 'if [[ "$1" == show ]]; then printf "node01\\nnode02\\n"; fi',
        "srun": step,
        "scancel": scancel,
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/bash\nprintf '%s\\n' \"$@\" >> {folder}/{name}.called\n{body}\n")
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "OUT": str(folder)} | ALLOCATION | variables
    return subprocess.run(["bash", BATCH, *arguments], env=environment, capture_output=True, text=True, check=False)


def step_of(folder: Path) -> list[str]:
    """The command that srun got, from torchrun on."""
    command = (folder / "srun.called").read_text().splitlines()
    assert command[0] == "--cpus-per-task=64"
    return command[command.index("torchrun") + 1 :]


def test_the_batch_file_gives_torchrun_and_zoo_options_they_know(tmp_path: Path) -> None:
    done = run_batch_file(tmp_path, "m", "--recipe", "folder", DATA="/fast/pictures")
    assert done.returncode == 0, done.stderr
    launch, options = parse_torchrun(step_of(tmp_path))
    assert (launch.nnodes, launch.nproc_per_node, launch.max_restarts) == ("2", "8", 3)
    assert (launch.rdzv_backend, launch.rdzv_id, launch.rdzv_endpoint) == ("c10d", "123456", "node01:23456")
    assert (options["model"], options["recipe"], options["data"]) == ("m", "folder", "/fast/pictures")
    assert (options["out"], options["workers"], options["auto_resume"]) == (tmp_path, 8, True)
    assert (tmp_path / "scontrol.called").read_text().split() == ["show", "hostnames", "node[01-02]"]


def test_the_batch_file_trains_s_where_nothing_else_is_asked_for(tmp_path: Path) -> None:
    run_batch_file(tmp_path, OUT="")
    _, options = parse_torchrun(step_of(tmp_path))
    assert (options["model"], options["data"]) == ("s", "/shared/pictures")
    assert options["out"] == Path("/shared/runs/123456")


# The stand-in for srun sends the script Slurm's signal and ends as torchrun does after it.
SIGNALLED = "kill -TERM $PPID; exit 1"


def test_a_job_that_is_signalled_has_its_step_signalled_and_is_requeued(tmp_path: Path) -> None:
    run_batch_file(tmp_path, step=SIGNALLED, scancel="")
    assert (tmp_path / "scancel.called").read_text().split() == ["--signal=TERM", "123456"]
    assert (tmp_path / "scontrol.called").read_text().split()[3:] == ["requeue", "123456"]


def test_a_run_that_was_finished_when_the_signal_came_is_not_requeued(tmp_path: Path) -> None:
    done = run_batch_file(tmp_path, step=f"touch {tmp_path}/checkpoint.safetensors; {SIGNALLED}", scancel="")
    assert done.returncode == 0, done.stderr
    assert "requeue" not in (tmp_path / "scontrol.called").read_text()


def test_a_job_that_fails_or_is_cancelled_is_not_requeued(tmp_path: Path) -> None:
    for step, code in (("exit 3", 3), (SIGNALLED, 1)):  # scancel finds no job after a cancellation
        assert run_batch_file(tmp_path, step=step).returncode == code
    assert "requeue" not in (tmp_path / "scontrol.called").read_text()


def test_the_pytorchjob_gives_torchrun_and_zoo_options_they_know(monkeypatch: pytest.MonkeyPatch) -> None:
    job = load_job()
    policy = job["spec"]["elasticPolicy"]
    # As the operator translates them (pkg/controller.v1/pytorch/elastic.go of its release 1.9).
    monkeypatch.setenv("PET_NNODES", f"{policy['minReplicas']}:{policy['maxReplicas']}")
    monkeypatch.setenv("PET_MAX_RESTARTS", str(policy["maxRestarts"]))
    monkeypatch.setenv("PET_RDZV_BACKEND", policy["rdzvBackend"])
    monkeypatch.setenv("PET_RDZV_ENDPOINT", "zoo-train-worker-0:23456")
    monkeypatch.setenv("PET_RDZV_CONF", ",".join(f"{row['key']}={row['value']}" for row in policy["rdzvConf"]))
    container = container_of(job)
    assert container["command"] == ["torchrun"]
    launch, options = parse_torchrun(container["args"])
    assert (launch.nnodes, launch.nproc_per_node, launch.max_restarts) == ("2:2", "gpu", policy["maxRestarts"])
    assert (launch.rdzv_backend, launch.rdzv_conf) == ("c10d", "join_timeout=3600")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert options["data"] == mounts["data"]
    assert options["out"].is_relative_to(mounts["runs"])
    assert options["auto_resume"]


def test_an_option_that_zoo_train_does_not_know_would_be_noticed() -> None:
    arguments = [*container_of(load_job())["args"], "--resume-perhaps"]
    with pytest.raises(click.NoSuchOption):
        parse_torchrun(arguments)


def test_shutdown_fits_into_the_time_that_is_left() -> None:
    """torchrun must give up before the scheduler does."""
    pod = load_job()["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    variables = {row["name"]: row["value"] for row in pod["containers"][0]["env"]}
    assert int(variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < pod["terminationGracePeriodSeconds"]
    text = BATCH.read_text()
    timeout = int(text.partition("TORCH_ELASTIC_SHUTDOWN_TIMEOUT=")[2].split()[0])
    assert timeout < int(text.partition("--signal=B:TERM@")[2].split()[0])


def test_shellcheck_finds_nothing_in_the_batch_file() -> None:
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("needs shellcheck: pip install 'zoo[cluster]'")
    done = subprocess.run([program, BATCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# Kubernetes itself knows PodTemplate, PyTorchJob is an addition to it: the first is held to Kubernetes' own schema, the
# second to the models which the operator's makers generate from the Go types that its CRD is generated from, too. The
# CRD itself is in no package; docs/distributed.md says how it was read.


def check_pod_template(job: dict[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="needs pip install 'zoo[cluster]'")
    template = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "worker"}, "template": template}
    for version in (validate.latest_version(), "1.31", "1.27"):  # 1.31: the pods in the operator's CRD
        validate.validate(pod, version, strict=True)


def round_trip(job: dict[str, Any]) -> dict[str, Any]:
    """Through the operator's models and back: what they do not know is lost."""
    import json
    from types import SimpleNamespace

    training = pytest.importorskip("kubeflow.training", reason="needs pip install 'zoo[cluster]'")
    client = training.ApiClient()
    model = client.deserialize(SimpleNamespace(data=json.dumps(job)), "KubeflowOrgV1PyTorchJob")
    return dict(client.sanitize_for_serialization(model))


def test_the_pod_template_is_valid_kubernetes() -> None:
    check_pod_template(load_job())


def test_the_pytorchjob_is_what_the_operators_models_know() -> None:
    job = load_job()
    assert round_trip(job) == job


def paths_of_objects(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the objects are whose fields a schema names; in a map any key is as good as another."""
    if isinstance(node, dict) and path[-1:] not in (("pytorchReplicaSpecs",), ("limits",)):
        yield path
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from paths_of_objects(value, (*path, key))


def object_at(job: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    found = job
    for key in path:
        found = found[key]
    return found


def test_both_checks_see_a_misspelt_field_wherever_it_is() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="needs pip install 'zoo[cluster]'")
    paths = list(paths_of_objects(load_job()))
    assert {(), ("spec", "elasticPolicy"), ("spec", "runPolicy")} < set(paths)
    for path in paths:
        job = load_job()
        object_at(job, path)["misspelt"] = "x"
        assert round_trip(job) != job, path
        if "template" in path:
            with pytest.raises(validate.ValidationError):
                check_pod_template(job)


def broken_rules(job: dict[str, Any]) -> list[str]:
    """What the operator's webhook refuses, or its API has no such value for, and no schema of either says.

    Source: pkg/webhooks/pytorch and pkg/apis/kubeflow.org/v1 of the Kubeflow Training Operator.
    """
    spec, policy, replicas = job["spec"], job["spec"]["elasticPolicy"], job["spec"]["pytorchReplicaSpecs"]
    workers = replicas.get("Worker", {"replicas": 0})
    holds = {
        "name": re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", job["metadata"]["name"]) is not None,
        "kinds": {"Worker"} <= replicas.keys() <= {"Master", "Worker"},
        "replicas": 1 <= policy["minReplicas"] <= workers["replicas"] <= policy["maxReplicas"],
        "cleanPodPolicy": spec["runPolicy"]["cleanPodPolicy"] in {"All", "Running", "None"},
    }
    for kind, replica in replicas.items():
        containers = replica["template"]["spec"]["containers"]
        holds[f"{kind} restartPolicy"] = replica["restartPolicy"] in {"Always", "OnFailure", "Never", "ExitCode"}
        holds[f"{kind} container"] = "pytorch" in {row["name"] for row in containers}
        holds[f"{kind} image"] = all(row.get("image") for row in containers)
    return [rule for rule, kept in holds.items() if not kept]


def test_the_pytorchjob_keeps_the_operators_rules() -> None:
    assert broken_rules(load_job()) == []


@pytest.mark.parametrize(
    ("path", "value", "rules"),
    [
        (("metadata", "name"), "zoo.train", ["name"]),
        (("spec", "elasticPolicy", "maxReplicas"), 1, ["replicas"]),
        (("spec", "runPolicy", "cleanPodPolicy"), "running", ["cleanPodPolicy"]),
        (("spec", "pytorchReplicaSpecs", "Worker", "restartPolicy"), "OnError", ["Worker restartPolicy"]),
        (
            ("spec", "pytorchReplicaSpecs", "Worker", "template", "spec", "containers"),
            [{"name": "zoo"}],
            ["Worker container", "Worker image"],
        ),
    ],
)
def test_a_job_that_breaks_a_rule_would_be_noticed(path: tuple[str, ...], value: object, rules: list[str]) -> None:
    job = load_job()
    object_at(job, path[:-1])[path[-1]] = value
    assert broken_rules(job) == rules


def test_a_replica_of_another_kind_would_be_noticed() -> None:
    job = load_job()
    replicas = job["spec"]["pytorchReplicaSpecs"]
    replicas["Launcher"] = replicas.pop("Worker")
    assert broken_rules(job) == ["kinds", "replicas"]


def test_the_image_has_what_the_package_is_built_from() -> None:
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    sources = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", *project["project"]["license-files"]}
    needed.update(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert needed <= sources
    assert [name for name in sources if not (ROOT / name).exists()] == []
