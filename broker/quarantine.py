"""Frames that killed every worker that took them, kept on disk for the person who looks into it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from broker import filename, log
from broker.wire import Frame

logger = log.get(__name__)

#: Poison frames kept at most; further ones are only logged.
KEPT: Final = 100
_SUFFIX: Final = {"jpeg": ".jpg", "png": ".png"}


class Quarantine:
    """Writes payload and header of poison frames, in a thread of its own: the broker's loop waits for no disk."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._pool: ThreadPoolExecutor | None = None
        self._kept = 0

    def keep(self, model: str, header: Frame, payload: Any) -> None:
        """`payload`: bytes or zmq.Frame."""
        key = header.key
        logger.error("frame quarantined", key=str(key), model=model, folder=str(self.folder))
        if self.folder is None or self._kept >= KEPT:
            return
        self._kept += 1
        data = payload if isinstance(payload, bytes) else payload.bytes
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="quarantine")
        words = (filename.part(key.camera), filename.part(key.boot), str(key.seq), filename.part(model))
        stem = self.folder / "-".join(words)
        self._pool.submit(_write, stem, header, data)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)


def _write(stem: Path, header: Frame, data: bytes) -> None:
    note = {"key": list(header.key), "encoding": header.encoding, "shape": header.shape, "stride": header.stride}
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_name(stem.name + _SUFFIX.get(header.encoding, ".raw")).write_bytes(data)
        stem.with_name(stem.name + ".json").write_text(json.dumps(note), encoding="utf-8")
    except OSError as error:
        logger.error("quarantine can not be written", path=str(stem), error=str(error))
