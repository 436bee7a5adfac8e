"""The demo models that come with the package, and what is known about them without loading an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from workers.errors import ModelError
from workers.settings import CONFIDENCE_KEY

#: Detector, segmenter and classifier of the synthetic camera's parts.
NAMES: Final = ("demo-det", "demo-seg", "demo-cls")
#: Classes of theirs that make a part NG.
NG: Final = ("scratch", "dent", "hole", "missing", "bad")
FOLDER: Final = Path(__file__).parent / "models"


def path(name: str) -> Path | None:
    """The file of a model that comes with the package; None: there is none of this name."""
    file = FOLDER / f"{name}.onnx"
    return file if name in NAMES and file.is_file() else None


def comes_with_us(file: Path) -> bool:
    """Whether the file is one of the package's, not another of the same name."""
    return file.resolve().parent == FOLDER.resolve()


def confidence(file: Path, otherwise: float = 0.25) -> float:
    """The least score that the file's metadata wants. Raises ModelError when it cannot be read."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(file, load_external_data=False)
        said = {entry.key: entry.value for entry in model.metadata_props}.get(CONFIDENCE_KEY)
        return otherwise if said is None else float(said)
    except (OSError, DecodeError, ValueError) as error:
        raise ModelError(f"{file}: its {CONFIDENCE_KEY} cannot be read: {error}") from None
