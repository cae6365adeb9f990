"""Owns the InferenceService that has KServe run a model repository with Triton; it writes no file and starts nothing.

Field names are those of serving.kserve.io/v1beta1 (KServe 0.21); the runtime is the one KServe installs for Triton,
config/runtimes/kserve-tritonserver.yaml, which serves the folder at storageUri as its model repository.
"""

from __future__ import annotations

import json
import re

from export.engine.builders import BuildCard
from export.triton.config import Served

FORMATS: dict[Served, str] = {"onnx": "onnx", "plan": "tensorrt"}
PLACE = "s3://CHANGE-ME"
LONGEST_NAME = 63  # of a DNS label, RFC 1035


def service_name(name: str) -> str:
    """A model's name as Kubernetes takes names of services: small letters, digits and -, a letter first."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (plain if plain[:1].isalpha() else f"model-{plain}")[:LONGEST_NAME].rstrip("-")


def inference_service(name: str, repository: str, served: Served, built: BuildCard | None) -> str:
    """The YAML of an InferenceService.

    Args:
        name: of the model.
        repository: name of the repository's folder, which is to be uploaded whole.
        served: what is in it.
        built: who built the plan; None of an .onnx.
    """
    lines = [
        f"# {name} on KServe, served by Triton. Upload the folder {repository} whole; storageUri says where it is.",
        "apiVersion: serving.kserve.io/v1beta1",
        "kind: InferenceService",
        "metadata:",
        f"  name: {service_name(name)}",
        "spec:",
        "  predictor:",
        "    model:",
        "      modelFormat:",
        f"        name: {FORMATS[served]}",
        "      protocolVersion: v2",
        "      runtime: kserve-tritonserver",
        f"      storageUri: {json.dumps(f'{PLACE}/{repository}')}",
    ]
    if built:
        lines += [
            f"      # runtimeVersion: a plan needs the Triton release that has TensorRT {built.version}, and a GPU of",
            f"      # compute capability {', '.join(built.targets)}.",
        ]
    gpu = ['          nvidia.com/gpu: "1"'] if served == "plan" else []
    lines += [
        "      resources:",
        "        requests:",
        '          cpu: "1"',
        "          memory: 2Gi",
        *gpu,
        "        limits:",
        '          cpu: "2"',
        "          memory: 4Gi",
        *gpu,
    ]
    return "\n".join([*lines, ""])
