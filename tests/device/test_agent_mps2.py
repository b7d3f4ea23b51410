"""The agent on an emulated Cortex-M4, over QEMU's pty; and its builds for every core."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.device import Client, DeviceFaultError, open_board
from edgekit.device.emulator import EmulatedBoard, EmulatorSettings
from edgekit.device.protocol import FaultKind
from edgekit.device.transports.serial import SerialTransport
from edgekit.target import load_target
from tests.device import agent_checks, toy

CORES = (
    ("-mcpu=cortex-m0plus",),
    ("-mcpu=cortex-m3",),
    ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    ("-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
    ("-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
    ("-mcpu=cortex-m55", "-mfloat-abi=hard"),
)


@pytest.fixture
def client(emulator: str, emulated_image: Path) -> Iterator[Client]:
    with open_board(load_target(emulator), emulated_image, None) as opened:
        yield opened


def test_programs(client: Client) -> None:
    agent_checks.serves_its_programs(client, "mps2-an386")


def test_profile_counts_instructions(client: Client) -> None:
    total, operators = agent_checks.profiles(client)
    client.write_input(0, toy.AFFINE_INPUT)
    assert abs(client.profile_run() - total) <= 1, "repeats agree to a tick"
    assert all(operators)
    assert abs(sum(operators) - total) <= 0.02 * total


def test_repeated_run(client: Client) -> None:
    agent_checks.answers_a_repeated_run_without_running_again(client)


def test_fault_and_restart(client: Client, emulated_image: Path) -> None:
    error = agent_checks.tells_a_fault(client, 0x60000010)
    assert "BusFault" in error.message
    assert "PRECISERR" in error.message
    said = toy.run(["arm-none-eabi-nm", "-n", str(emulated_image)])
    before = [line.split() for line in said.splitlines() if int(line.split()[0], 16) <= error.fault.pc]
    assert before[-1][2] == "faulty_read"
    client.connect()
    client.write_input(0, toy.AFFINE_INPUT)
    client.run()
    assert client.read_output(0) == toy.affine_answer(toy.AFFINE_INPUT, 1), "memory is as after a reset"


def test_a_stack_overflow_is_told(client: Client) -> None:
    client.write_input(0, b"\1\0\0\0", toy.FAULTY)
    with pytest.raises(DeviceFaultError, match="in operator 1 of program 2") as caught:
        client.run(toy.FAULTY)
    assert caught.value.fault.kind in (FaultKind.HARD, FaultKind.MEMORY)
    assert "MSTKERR" in caught.value.message or "DACCVIOL" in caught.value.message
    client.connect()
    client.ping()


@pytest.mark.parametrize(
    ("machine", "core"),
    [
        ("mps2-an385", ("-mcpu=cortex-m0plus",)),
        ("mps2-an385", ("-mcpu=cortex-m3",)),
        ("mps2-an500", ("-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard")),
    ],
    ids=["m0plus", "m3", "m7"],
)
def test_other_cores(machine: str, core: tuple[str, ...], emulator: str, tmp_path: Path) -> None:
    """The same memory map. There is no M0+ with an FPGAIO counter in QEMU: its code runs on the M3."""
    image = toy.build(emulator, tmp_path, flags=("-Os",), core=("-mthumb", *core))
    board = EmulatedBoard(EmulatorSettings(machine, 6), image)
    with Client(SerialTransport(board.tty, 115_200, on_close=board.stop)) as client:
        client.connect()
        agent_checks.profiles(client)
        for harm in (b"\x10\0\0\x80", b"\1\0\0\0"):
            client.write_input(0, harm, toy.FAULTY)
            with pytest.raises(DeviceFaultError, match="in operator 1 of program 2"):
                client.run(toy.FAULTY)
            client.connect()
        client.write_input(0, toy.AFFINE_INPUT)
        client.run()
        assert client.read_output(0) == toy.affine_answer(toy.AFFINE_INPUT, 1)


def test_an_inference_costs_little_beside_its_compute(client: Client) -> None:
    """600 of them with 490-byte inputs have to stay well under 90 s, on a machine that may be busy."""
    client.write_input(0, toy.AFFINE_INPUT)
    client.run()
    began = time.monotonic()
    for _ in range(60):
        client.write_input(0, toy.AFFINE_INPUT)
        client.run()
        client.read_output(0)
    assert time.monotonic() - began < 6.0


def test_a_request_sent_before_the_uart_is_on_is_not_slept_through(
    emulator: str, emulated_image: Path
) -> None:
    settings = EmulatorSettings("mps2-an386", 6)
    for _ in range(5):
        board = EmulatedBoard(settings, emulated_image)
        with Client(SerialTransport(board.tty, 115_200, on_close=board.stop)) as client:
            began = time.monotonic()
            client.connect()
            assert time.monotonic() - began < 4.0


@pytest.mark.parametrize("core", CORES, ids=[core[0].removeprefix("-mcpu=") for core in CORES])
@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_it_compiles_without_a_warning_and_stays_under_10_kb(
    core: tuple[str, ...], level: str, tmp_path: Path, emulator: str
) -> None:
    image = toy.build(emulator, tmp_path, flags=(level,), core=("-mthumb", *core))
    text, data, _ = (int(number) for number in toy.run(["arm-none-eabi-size", str(image)]).split()[6:9])
    assert text + data < 10_000


def test_its_memory_stays_under_3_kib(emulated_image: Path) -> None:
    said = toy.run(["arm-none-eabi-nm", "-S", str(emulated_image)])
    symbols = [line.split() for line in said.splitlines() if len(line.split()) == 4]
    sizes = {name: int(size, 16) for _, size, kind, name in symbols if kind in "bBdD"}
    agent = sum(size for name, size in sizes.items() if not name.endswith("_arena"))
    assert 1024 < agent < 3 * 1024, sizes


def test_the_stm32f4_port_compiles_without_a_warning(tmp_path: Path) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("not installed: arm-none-eabi-gcc")
    image = toy.build("nucleo-f446re", tmp_path)
    said = toy.run(["arm-none-eabi-objdump", "-s", "-j", ".vectors", str(image)])
    first = said.splitlines()[4].split()
    assert first[0] == "8000000", "the core starts at the table in flash"
    assert len(first) > 2
