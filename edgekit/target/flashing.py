"""The ways to put an image on a board, with the options that each takes: `[[flash]]` in a target file."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["FLASH_METHODS", "FlashMethod", "FlashOptions", "NoFlash", "PyocdFlash"]


class FlashOptions(BaseModel):
    """What all methods share: strict types, no unknown options."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class PyocdFlash(FlashOptions):
    """pyOCD through a CMSIS-DAP or ST-LINK probe; `target` is the name in `pyocd list --targets`."""

    kind: Literal["pyocd"]
    target: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,47}$")]


class NoFlash(FlashOptions):
    """The image is put on the board by hand, or is there already."""

    kind: Literal["none"]


FlashMethod = Annotated[PyocdFlash | NoFlash, Field(discriminator="kind")]

FLASH_METHODS: Final[dict[str, type[FlashOptions]]] = {"pyocd": PyocdFlash, "none": NoFlash}
