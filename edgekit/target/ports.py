"""The chip ports, with the options that each takes: `[port]` in a target file.

A port is one C file, `firmware_templates/port/<name>.c`. Its options reach it as `EDGEKIT_PORT_<OPTION>` in
the rendered `edgekit_port.h`. A new chip family is one more class here and its C file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.target.fields import Address, Hertz

__all__ = ["PORTS", "CmsdkPort", "Port", "PortOptions", "Stm32f4Port"]

StmPin = Annotated[str, Field(pattern=r"^P[A-K]([0-9]|1[0-5])$")]


class PortOptions(BaseModel, ABC):
    """What all ports share: strict types, no unknown options."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    clock_source: ClassVar[str]
    """The counter that the port's C file reads; what `[clock] source` has to say."""

    @property
    @abstractmethod
    def clock_hz(self) -> int:
        """How fast that counter counts, as the C file sets it up."""

    @property
    @abstractmethod
    def max_baud(self) -> int:
        """The fastest that the UART goes."""


class CmsdkPort(PortOptions):
    """Arm's MPS2 and MPS3 boards: CMSDK UART, FPGAIO counter.

    Arm AN386, "ARM Cortex-M4 FPGA on MPS2", memory map; CMSDK TRM (DDI 0479) section 4.3, the APB UART.
    """

    name: Literal["cmsdk"]
    uart_base: Address
    fpgaio_base: Address
    """Holds the free-running counter at +0x18 and its prescaler at +0x1C."""
    cpu_hz: Hertz
    """Also clocks the UART's divider and the counter."""

    clock_source: ClassVar[str] = "fpgaio"

    @property
    def clock_hz(self) -> int:
        return self.cpu_hz

    @property
    def max_baud(self) -> int:
        return self.cpu_hz // 16  # DDI 0479, 4.3.3: BAUDDIV is at least 16


class Stm32f4Port(PortOptions):
    """STM32F446 (RM0390) at 180 MHz: one USART, PLL from the external oscillator, DWT cycle counter."""

    name: Literal["stm32f4"]
    uart: Literal["USART1", "USART2", "USART3", "UART4", "UART5", "USART6"]
    tx: StmPin
    rx: StmPin
    hse_hz: Annotated[int, Field(ge=4_000_000, le=26_000_000, multiple_of=1_000_000)]
    """The oscillator on the HSE pins: 4 to 26 MHz (RM0390 6.2.1), whole megahertz for the PLL."""
    hse_bypass: bool
    """True when a clock is fed in instead of a crystal, as the ST-LINK does on Nucleo boards."""

    clock_source: ClassVar[str] = "dwt"

    @property
    def clock_hz(self) -> int:
        return 180_000_000

    @property
    def max_baud(self) -> int:
        # RM0390 25.4.4: oversampling by 16; 6.3.3: USART1 and 6 run from APB2 at 90 MHz, the rest at 45 MHz.
        return (90_000_000 if self.uart in ("USART1", "USART6") else 45_000_000) // 16


Port = Annotated[CmsdkPort | Stm32f4Port, Field(discriminator="name")]

PORTS: Final[dict[str, type[PortOptions]]] = {"cmsdk": CmsdkPort, "stm32f4": Stm32f4Port}
