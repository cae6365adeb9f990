"""Keras' and Google's files: their layouts written here, and Keras itself where TensorFlow is installed."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.errors import CheckpointError
from zoo.model.build import FromPictures
from zoo.model.efficientnet import EfficientNet
from zoo.model.variants import find_variant
from zoo.weights.bring_in import import_weights
from zoo.weights.checkpoint import load_checkpoint
from zoo.weights.formats.foreign import read_foreign
from zoo.weights.formats.google import import_tensorflow
from zoo.weights.key_styles import GOOGLE, key_map
from zoo.weights.origins import GOOGLE_ORIGIN, KERAS_ORIGIN, Origin

Zoo = Callable[..., "object"]
SUFFIX = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def tensorflow_layout(key: str, value: Tensor) -> NDArray[np.float32]:
    """A tensor of ours as TensorFlow stores it: the inverse of what the importer does, written down a second time."""
    array = value.numpy()
    if key.endswith("depthwise.conv.weight"):
        return np.transpose(array, (2, 3, 0, 1))
    return np.transpose(array, (2, 3, 1, 0)) if array.ndim == 4 else array.T


def variables(model: EfficientNet, origin: Origin) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """(layer, variable, array) under the names the project gives them."""
    keys = key_map(origin.key_style(model.variant), model.variant)
    for ours, value in model.state_dict().items():
        layer, _, leaf = keys[ours].rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        is_norm = ours.rpartition(".")[0].endswith("norm")
        kernel = "depthwise_kernel" if ours.endswith("depthwise.conv.weight") else "kernel"
        name = SUFFIX[leaf] if is_norm else {"weight": kernel, "bias": "bias"}[leaf]
        yield layer, name, tensorflow_layout(ours, value)


@pytest.fixture(scope="module")
def b0() -> EfficientNet:
    torch.manual_seed(0)
    model = EfficientNet(find_variant("b0"), 4, padding="same")
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 1.5)
            layer.weight.data.uniform_(0.4, 1.2)
    return model.eval()


def by_layer(model: EfficientNet) -> dict[str, dict[str, NDArray[np.float32]]]:
    layers: dict[str, dict[str, NDArray[np.float32]]] = {}
    for layer, name, array in variables(model, KERAS_ORIGIN):
        layers.setdefault(layer, {})[name] = array
    return layers


def write_legacy(path: Path, model: EfficientNet, *, inside: str = "") -> None:
    """What Keras 2 and `model.save("x.h5")` write; the official files are of this kind. `inside`: a group around it."""
    with h5py.File(path, "w") as file:
        root = file.create_group(inside) if inside else file
        layers = by_layer(model)
        root.attrs["layer_names"] = [name.encode() for name in ("rescaling", "normalization", *layers)]
        root.create_group("rescaling").attrs["weight_names"] = np.array([], dtype="S1")
        normalization = root.create_group("normalization")
        normalization.attrs["weight_names"] = [b"normalization/mean:0"]
        normalization["normalization/mean:0"] = np.zeros(3, np.float32)
        for layer, arrays in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in arrays]
            for name, array in arrays.items():
                group[f"{layer}/{name}:0"] = array


def write_keras_3(path: Path, model: EfficientNet, *, names: bool = True) -> None:
    """What Keras 3's `save_weights` writes: layers numbered by class, their names as attributes."""
    counts: dict[str, int] = {}
    with h5py.File(path, "w") as file:
        for layer, arrays in by_layer(model).items():
            kind = "batch_normalization" if "gamma" in arrays else "depthwise_conv2d" if "dwconv" in layer else "conv2d"
            kind = "dense" if layer == "predictions" else kind
            number = counts[kind] = counts.get(kind, -1) + 1
            group = file.create_group(f"layers/{kind}{f'_{number}' if number else ''}/vars")
            if names:
                group.attrs["name"] = layer
            for index, array in enumerate(arrays.values()):
                group[str(index)] = array
        file["layers/dropout/seed_generator/vars/0"] = np.array([1, 2], np.uint32)
        file["optimizer/vars/0"] = np.zeros(1)


def write_archive(path: Path, model: EfficientNet) -> None:
    weights = path.with_name("inner.weights.h5")
    write_keras_3(weights, model)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(weights, "model.weights.h5")
        archive.writestr("config.json", "{}")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("b0.h5", write_legacy),
        ("whole.h5", lambda path, model: write_legacy(path, model, inside="model_weights")),
        ("b0.weights.h5", write_keras_3),
        ("b0.keras", write_archive),
    ],
)
def test_every_layout_of_keras_comes_in_unchanged(
    zoo: Zoo, in_folder: Path, b0: EfficientNet, name: str, write: Callable[[Path, EfficientNet], None]
) -> None:
    write(Path(name), b0)
    answer = zoo("import", "b0", name, "--from", "keras", "-o", "x.safetensors")
    assert answer.code == 0, answer.err
    model, card = load_checkpoint(Path("x.safetensors"))
    assert (card.padding, len(card.classes)) == ("same", 4)
    expected = b0.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_keras_files_without_layer_names_are_refused(tmp_path: Path, b0: EfficientNet) -> None:
    write_keras_3(tmp_path / "old.weights.h5", b0, names=False)
    with pytest.raises(CheckpointError, match="kept no layer names"):
        read_foreign(tmp_path / "old.weights.h5")


@pytest.mark.parametrize("name", ["cut.h5", "cut.keras"])
def test_truncated_keras_files_are_clear_errors(tmp_path: Path, b0: EfficientNet, name: str) -> None:
    (write_legacy if name.endswith("h5") else write_archive)(tmp_path / name, b0)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50_000])
    with pytest.raises(CheckpointError, match="truncated or not a Keras weight file"):
        read_foreign(tmp_path / name)


@pytest.mark.parametrize(
    ("id", "ours", "theirs"),
    [
        ("s", "stem.norm.running_var", "stem/tpu_batch_normalization.running_var"),
        ("s", "stages.1.block.1.fused.conv.weight", "blocks_1/conv2d.weight"),
        ("s", "stages.1.block.1.fused.norm.bias", "blocks_1/tpu_batch_normalization.bias"),
        ("s", "stages.2.block.0.fused.conv.weight", "blocks_2/conv2d.weight"),
        ("s", "stages.2.block.0.project.conv.weight", "blocks_2/conv2d_1.weight"),
        ("s", "stages.2.block.0.project.norm.weight", "blocks_2/tpu_batch_normalization_1.weight"),
        ("s", "stages.4.block.0.expand.conv.weight", "blocks_10/conv2d.weight"),
        ("s", "stages.4.block.0.depthwise.conv.weight", "blocks_10/depthwise_conv2d.weight"),
        ("s", "stages.4.block.0.depthwise.norm.weight", "blocks_10/tpu_batch_normalization_1.weight"),
        ("s", "stages.4.block.0.se.reduce.bias", "blocks_10/se/conv2d.bias"),
        ("s", "stages.4.block.0.se.expand.weight", "blocks_10/se/conv2d_1.weight"),
        ("s", "stages.4.block.0.project.conv.weight", "blocks_10/conv2d_1.weight"),
        ("s", "stages.4.block.0.project.norm.weight", "blocks_10/tpu_batch_normalization_2.weight"),
        ("s", "head.conv.weight", "head/conv2d.weight"),
        ("s", "classifier.bias", "head/dense.bias"),
        ("v1-b0", "stages.1.block.0.project.conv.weight", "blocks_0/conv2d.weight"),
        ("v1-b0", "stages.1.block.0.project.norm.weight", "blocks_0/tpu_batch_normalization_1.weight"),
    ],
)
def test_googles_names_are_those_of_its_published_checkpoints(id: str, ours: str, theirs: str) -> None:
    """As google/automl effnetv2_model.py counts them, and as converters written by others list them."""
    assert key_map(GOOGLE, find_variant(id))[ours] == theirs


# From here on TensorFlow itself.


@pytest.fixture(scope="module")
def tensorflow() -> Any:
    if find_spec("tensorflow") is None:
        pytest.skip("needs TensorFlow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return import_tensorflow()


def keras_network(tensorflow: Any, id: str, size: int, **options: Any) -> Any:
    """A network of Keras with seeded weights and batch norms of its own, ending in logits; its input is fixed."""
    tensorflow.keras.backend.clear_session()
    tensorflow.keras.utils.set_random_seed(0)
    network = getattr(tensorflow.keras.applications, KERAS_ORIGIN.networks[id])
    model = network(weights=None, classifier_activation=None, input_shape=(size, size, 3), **options)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            size = layer.gamma.shape
            drawn = [rng.uniform(low, high, size) for low, high in ((0.4, 1.2), (-0.5, 0.5), (-0.5, 0.5), (0.5, 1.5))]
            layer.set_weights([array.astype(np.float32) for array in drawn])
    return model


def difference(ours: nn.Module, theirs: Any, pictures: NDArray[Any]) -> float:
    """Largest difference of logits, as a share of their scale; pictures are (N, S, S, 3)."""
    expected = np.asarray(theirs(pictures.astype(np.float32), training=False))
    with torch.inference_mode():
        got = ours(torch.from_numpy(pictures)).numpy()
    return float(np.abs(got - expected).max() / np.abs(expected).max())


class Nhwc(nn.Module):
    """Ours behind Keras' layout; V1 always has its preprocessing inside, untrained a mere division by 255."""

    def __init__(self, model: nn.Module, divisor: float) -> None:
        super().__init__()
        self.model, self.divisor = model, divisor

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.model(pictures.permute(0, 3, 1, 2) / self.divisor)
        return logits


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("id", ["b0", "s", "v1-b0"])
def test_keras_networks_give_the_same_logits(tensorflow: Any, tmp_path: Path, id: str) -> None:
    v1 = id.startswith("v1")
    options = {} if v1 else {"include_preprocessing": False}
    for size in (64, 65):
        theirs = keras_network(tensorflow, id, size, **options)
        if size == 64:
            theirs.save(tmp_path / "x.h5")
            theirs.save_weights(tmp_path / "x.weights.h5")
            theirs.save(tmp_path / "x.keras")
            files = ("x.h5", "x.weights.h5", "x.keras")
            models = [import_weights(find_variant(id), KERAS_ORIGIN, tmp_path / name).model for name in files]
            first, *others = [model.state_dict() for model in models]
            assert all(torch.equal(first[key], state[key]) for state in others for key in first)
        pictures = np.random.default_rng(size).normal(size=(1, size, size, 3)).astype(np.float32)
        scale = 255.0 if v1 else 1.0
        assert difference(Nhwc(models[0], scale), theirs, pictures * scale) <= 1e-4


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("id", ["b0", "s"])
def test_keras_preprocessing_is_the_rows(tensorflow: Any, tmp_path: Path, id: str) -> None:
    theirs = keras_network(tensorflow, id, 64, include_preprocessing=True)
    theirs.save(tmp_path / "x.h5")
    imported = import_weights(find_variant(id), KERAS_ORIGIN, tmp_path / "x.h5")
    pictures = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    assert difference(FromPictures(imported.model, imported.card.preprocessing), theirs, pictures) <= 1e-4


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("id", ["b0", "v1-b0"])
def test_googles_checkpoints_are_read_averages_first(tensorflow: Any, tmp_path: Path, id: str) -> None:
    """A checkpoint as TensorFlow 1 wrote it: variables by name, averages beside them, an optimiser's slots, a step."""
    torch.manual_seed(0)
    ours = EfficientNet(find_variant(id), 4, padding="same").eval()
    root = GOOGLE_ORIGIN.networks[id]
    named: dict[str, Any] = {"global_step": np.int64(7)}
    for layer, name, array in variables(ours, GOOGLE_ORIGIN):
        named[f"{root}/{layer}/{name}"] = np.zeros_like(array)  # the last step's weights: not what is evaluated
        named[f"{root}/{layer}/{name}/ExponentialMovingAverage"] = array
        named[f"{root}/{layer}/{name}/RMSProp"] = np.ones_like(array)
    prefix = tmp_path / "model.ckpt-7"
    tensorflow.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(named),
        shape_and_slices=[""] * len(named),
        tensors=[tensorflow.constant(np.ascontiguousarray(value)) for value in named.values()],
    )
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-7"\n')
    for path in (prefix, tmp_path, prefix.with_name("model.ckpt-7.index")):
        imported = import_weights(replace(ours.variant), GOOGLE_ORIGIN, path)
        state = imported.model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in ours.state_dict().items())
        assert "Taken from the file: moving averages." in imported.notes
        assert imported.card.preprocessing == ours.variant.preprocessing
    prefix.with_name("model.ckpt-7.index").write_bytes(b"not an index")
    with pytest.raises(CheckpointError, match="truncated or not a TensorFlow checkpoint"):
        read_foreign(prefix)


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore")
def test_checkpoints_of_objects_are_refused(tensorflow: Any, tmp_path: Path) -> None:
    written = tensorflow.train.Checkpoint(kernel=tensorflow.Variable([1.0])).write(str(tmp_path / "objects"))
    with pytest.raises(CheckpointError, match="stores Python objects"):
        read_foreign(Path(written))
