"""The chip ports, with the options that each takes: `[port]` in a target file.

A port is one C file, `firmware_templates/port/<name>.c`. Its options reach it as `EDGEKIT_PORT_<OPTION>` in
the rendered `edgekit_port.h`. A new chip family is one more class here and its C file.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.target.fields import Address, Hertz

__all__ = ["PORTS", "CmsdkPort", "Port", "PortOptions", "Stm32f4Port"]

StmPin = Annotated[str, Field(pattern=r"^P[A-K]([0-9]|1[0-5])$")]


class PortOptions(BaseModel):
    """What all ports share: strict types, no unknown options."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


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


class Stm32f4Port(PortOptions):
    """STM32F4 (RM0390): one USART, PLL from the external oscillator, DWT cycle counter."""

    name: Literal["stm32f4"]
    uart: Literal["USART1", "USART2", "USART3", "UART4", "UART5", "USART6"]
    tx: StmPin
    rx: StmPin
    hse_hz: Annotated[int, Field(ge=4_000_000, le=26_000_000)]
    """The oscillator on the HSE pins; RM0390 section 6.2.1 allows 4 to 26 MHz (1 to 50 as a bypass)."""
    hse_bypass: bool
    """True when a clock is fed in instead of a crystal, as the ST-LINK does on Nucleo boards."""


Port = Annotated[CmsdkPort | Stm32f4Port, Field(discriminator="name")]

PORTS: Final[dict[str, type[PortOptions]]] = {"cmsdk": CmsdkPort, "stm32f4": Stm32f4Port}
