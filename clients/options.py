"""Flags that several commands of `clients` have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clients.camera import ENDPOINT

LineOption = Annotated[Path | None, typer.Option("--line", metavar="LINE.toml", help="The line file.")]
BrokerOption = Annotated[str, typer.Option(metavar="ENDPOINT", help=f"The broker's frontend; default {ENDPOINT}.")]
RateOption = Annotated[
    float | None, typer.Option(min=0.0, help="Pictures/s; 0, the default: as fast as credit allows.")
]
PolicyOption = Annotated[str, typer.Option(help="inspect (nothing is lost) or monitor (the newest counts).")]
DeadlineOption = Annotated[
    float | None, typer.Option(help="Seconds from capture in which the answer is due; default 5.")
]
FramesOption = Annotated[int, typer.Option(min=0, help="Pictures to take; 0: all.")]
LoopOption = Annotated[bool, typer.Option("--loop", help="Start files over at their end.")]
RunOption = Annotated[
    str,
    typer.Option(metavar="NAME", help="Number the parts NAME-000000 and on; cameras of a station share their run."),
]
ReportOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write counts and latencies as JSON at the end.")
]
RecorderKey = Annotated[
    str, typer.Option("--recorder-key", metavar="KEY", help="The recorder's public key, or its file; for --save.")
]
JsonLog = Annotated[bool, typer.Option("--json-log", help="Log JSON lines.")]
LevelOption = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")]
