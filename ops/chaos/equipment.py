"""What faults need besides processes: a disk that can be filled, a cable that can be cut, clocks that can be set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from ops.chaos.clocks import Clocks
from ops.chaos.disk import Disk
from ops.chaos.network import Network
from ops.chaos.schedule import NET, Kind

T = TypeVar("T", bound=AbstractContextManager[object])

#: Bytes of the small disk.
_DISK: Final = 256 << 20


@dataclass(slots=True)
class Equipment:
    """What there is for a run; None: not asked for, or not to be had here. `skipped`: kinds of faults, and why."""

    disk: Disk | None = None
    network: Network | None = None
    clocks: Clocks | None = None
    skipped: dict[Kind, str] = field(default_factory=dict)


@contextlib.contextmanager
def equipped(asked: Collection[Kind], folder: Path, seed: int) -> Iterator[Equipment]:
    """What the kinds that are asked for need. Where this machine has it not, they are skipped, aloud."""
    made = Equipment()
    with ExitStack() as stack:

        def own(missing: str, make: Callable[[], T], kinds: Collection[Kind]) -> T | None:
            wanted = [kind for kind in kinds if kind in asked]
            if not wanted:
                return None
            if not missing:
                try:
                    thing = make()
                    stack.enter_context(thing)
                    return thing
                except OSError as error:
                    missing = str(error)
            made.skipped |= dict.fromkeys(wanted, missing)
            return None

        made.disk = own(Disk.missing(), lambda: Disk(folder / "disk", _DISK), [Kind.DISK_FULL])
        made.network = own(Network.missing(), lambda: Network(seed), NET)
        made.clocks = own(Clocks.missing(), lambda: Clocks(folder), [Kind.CLOCK_JUMP])
        yield made
