"""The command `gongwei bench demo-models`; what it does is loaded only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo_models(
    parts: Annotated[int, typer.Option(min=1, help="Held-out parts that are examined.")] = 5000,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, help="Other models of these names; else the shipped."
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=0, help="Parts that are examined at a time; 0: one a core.")] = 0,
    precisions: Annotated[
        bool, typer.Option("--precisions", help="Beside fp32 also fp16 and int8, made on the spot, on the same parts.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write all figures as JSON (or the tables, if it ends in .md).")
    ] = None,
) -> None:
    """The demo models on parts, textures and lamps of the synthetic camera that their training never drew.

    Average precision, missed defects and false alarms of each model and of the joined verdict, a threshold-only
    inspection beside them, and their time beside yolov5n's. --precisions: how much worse they are in fp16 (rounded as
    on a GPU) and int8 (calibrated on 128 parts of the training world). Exit code 1 if there are no models, or none of
    fp32; a missed target is reported, not an error.

    Examples:

        gongwei bench demo-models

        gongwei bench demo-models --parts 500 --report demo.json

        gongwei bench demo-models --precisions
    """
    from ops.bench.inspection import show_demo_models
    from workers import shipped

    raise typer.Exit(0 if show_demo_models(models or shipped.FOLDER, parts, processes, precisions, report) else 1)
