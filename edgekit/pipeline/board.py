"""An image on a board that is reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgekit.artifacts import Image, Serving
from edgekit.errors import UsageError, VerificationError
from edgekit.progress import Progress, Step, step
from edgekit.stages import ConnectedBoard, Flashed, Stages
from edgekit.target import Target
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.device import BoardAddress

__all__ = ["BoardPlace", "address_of", "connected", "keep_version", "serving_of"]


@dataclass(frozen=True, slots=True)
class BoardPlace:
    """An image, the board that it is for, and how it is to run there."""

    target: Target
    image: Image
    address: BoardAddress | None = None
    serving: Serving = field(default_factory=Serving)


@contextmanager
def connected(place: BoardPlace, stages: Stages) -> Iterator[ConnectedBoard]:
    """A board that runs this very image.

    Raises:
        VerificationError: It runs another one.
    """
    target, image = place.target, place.image
    with stages.open_board(target, image, place.address, place.serving) as client:
        found = client.info().model_hash
        if found != image.model_hash:
            raise VerificationError(
                f"{target.name} runs another image (model {printable(found, 12)}) "
                f"than {printable(str(image.path))} (model {image.model_hash[:12]})",
                hint=f"edgekit flash {printable(str(image.directory))}",
            )
        yield client


def keep_version(flashed: Flashed | None, progress: Progress) -> None:
    """Let a board that goes on with what it had go on with the new image."""
    if flashed is not None:
        with step(progress, Step.ACTIVATE, f"version {flashed.version}"):
            flashed.keep()


def serving_of(target: Target, threads: int | None, core: int | None) -> Serving:
    serving = Serving(threads, core)
    if serving != Serving() and target.platform != "linux":
        raise UsageError(f"{target.name} has one core and no threads", hint="leave --threads and --core out")
    return serving


def address_of(board: str | None, stages: Stages) -> BoardAddress | None:
    return None if board is None else stages.parse_board(board)
