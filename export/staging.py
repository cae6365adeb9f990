"""Owns where an export's files are made and how they reach their place: all of them, the passport last, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from export.signature import SUFFIX
from export.watch import Watch
from export.weights_apart import SUFFIX as BESIDE
from zoo.errors import ZooError
from zoo.files import new_folders, replace_file

WEIGHTS = f".onnx{BESIDE}"  # of a graph that one file cannot hold
LOG = ".log"  # what the builder of the plan said
# In the order of publication.
PUBLISHED = (WEIGHTS, ".onnx", ".plan", LOG, ".quantization.html", ".quantization.json", SUFFIX, ".json")
# What an export need not make: one of an earlier export would be taken for its own.
OPTIONAL = {
    WEIGHTS: "the weights of an earlier export",
    ".plan": "which belongs to an earlier export",
    LOG: "what was said when the plan of an earlier export was built",
    ".quantization.html": "the report of an earlier export",
    ".quantization.json": "the report of an earlier export",
    SUFFIX: "the signature of an earlier export",
}
# Who ends a path in one of these means a file, or the .onnx in another spelling.
NO_FOLDERS = (".onnx", ".plan", ".json", ".safetensors", ".engine", ".trt", ".pt", ".pth")


def destination(out: Path) -> tuple[Path, str | None]:
    """The folder that `--out` means, and the stem where it names a file.

    Raises:
        ZooError: it is neither a folder nor an .onnx.
    """
    if out.suffix == ".onnx":
        return out.parent, out.stem
    if out.suffix.lower() in NO_FOLDERS or out.is_file():
        raise ZooError(
            f"--out {out} is neither a folder nor a path ending in .onnx.", "The .plan is put beside the .onnx."
        )
    return out, None


def check_free(folder: Path, stem: str) -> None:
    """Check that no folder stands where a file is to be published.

    Raises:
        ZooError: one does.
    """
    for path in (folder / f"{stem}{suffix}" for suffix in PUBLISHED):
        if path.is_dir():
            raise ZooError(f"Cannot write {path}: it is a folder.", "Move it, or choose another --out.")


@contextmanager
def staging(folder: Path, stem: str) -> Iterator[Path]:
    """Make a hidden folder inside the destination, so that publishing is a rename; remove it whatever happens.

    Raises:
        ZooError: the destination cannot be made or written to, or the disk is full: what is there stays as it was.
            Errors of the block name files as if they were in the destination already.
    """
    with ExitStack() as kept:
        try:
            kept.enter_context(new_folders(folder))
            made = kept.enter_context(TemporaryDirectory(prefix=f".{stem}-export-", dir=folder))
        except OSError as error:
            raise ZooError(
                f"Cannot write to {folder}: {error.strerror}.", "Choose another place with --out."
            ) from error
        try:
            yield Path(made)
        except ZooError as error:
            if made not in error.problem:
                raise
            raise type(error)(error.problem.replace(made, str(folder)), error.hint) from error


def publish(made: Path, folder: Path, stem: str, watch: Watch) -> None:
    """Rename what was made into place, the passport last: until then the old one does not vouch for the new files.

    A plan of an earlier export is removed: the new passport does not know it, so nothing would load it. So are its
    signature, which is not that of the new passport, and its report.

    Raises:
        ZooError: a folder is in the way of a file; nothing is published.
    """
    check_free(folder, stem)
    files = [file for suffix in PUBLISHED if (file := made / f"{stem}{suffix}").exists()]
    for suffix, words in OPTIONAL.items():
        stale = folder / f"{stem}{suffix}"
        if not (made / stale.name).exists() and stale.is_file():
            watch.step(f"Remove {stale}, {words}")
            stale.unlink()
    for file in files:
        replace_file(file, folder / file.name)
