"""In which precision a command is to make a model, and the pictures from which int8 learns its ranges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.errors import ModelError, UsageError
from workers.metadata import Precision


@dataclass(frozen=True, slots=True)
class Wanted:
    """`precision`: None for that of the file as it comes; `calibration`: a folder of pictures, for int8 alone.

    Raises UsageError where the two do not go together, and for fp32: what can be converted is of fp32 already.
    """

    precision: Precision | None = None
    calibration: Path | None = None

    def __post_init__(self) -> None:
        if self.precision == "fp32":
            raise UsageError(
                "--precision fp32: would make a copy of the same model; say fp16 or int8 (without --precision,"
                " import and zoo keep a model as it comes)"
            )
        if self.precision == "int8" and self.calibration is None:
            raise UsageError(
                "--precision int8 needs --calibration FOLDER: some hundred pictures (.jpg, .png, .bmp) as the line"
                " makes them, of all its parts and lights, from which the ranges of 8 bits are learnt; --precision fp16"
                " needs none"
            )
        if self.precision != "int8" and self.calibration is not None:
            other = f"--precision {self.precision} takes none" if self.precision else "say that, too"
            raise UsageError(f"--calibration {self.calibration}: is for --precision int8; {other}")

    def name(self, name: str) -> str:
        """What a model is called that was `name` before, where nobody says otherwise: so both have room in a folder."""
        return name if self.precision is None else f"{name}-{self.precision}"

    def made(self, model: Any, where: str) -> Any:
        """The onnx.ModelProto in this precision. Raises ModelError, with `where`."""
        if self.precision is None:
            return model
        from workers.precision.conversion import convert  # here: it loads onnx, which `workers start` never needs

        try:
            return convert(model, self)
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from None


#: No other precision than the file has.
AS_IT_COMES: Final = Wanted()
