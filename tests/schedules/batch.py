"""Many operators in one image: each reads constants from flash, so that nothing but answers crosses the line.

A `Case` is one operator with its inputs. The portable schedule answers on this machine, the schedules of a
board's core on the emulated board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Preference, TensorSpec
from edgekit.compiler import operators as op
from edgekit.compiler.compile import compile_program
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules import Request, variants
from edgekit.device import open_board
from edgekit.firmware import build_image
from edgekit.target import Target, load_target
from tests.reference.host_library import build_host_library

__all__ = ["Case", "Network", "answers_on_board", "answers_on_host", "compare_on_board", "variant_names"]

Int8 = NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Operators one after another. Values are numbered: the inputs, then each operator's output."""

    inputs: tuple[Int8, ...]
    operators: tuple[tuple[op.Operator, tuple[int, ...], tuple[int, ...]], ...]
    """Operator, numbers of the values it reads, shape of its output."""
    note: str = ""

    @property
    def answers(self) -> tuple[int, ...]:
        """The values that no operator reads."""
        read = {value for _, values, _ in self.operators for value in values}
        count = len(self.inputs) + len(self.operators)
        return tuple(value for value in range(len(self.inputs), count) if value not in read)


def Case(operator: op.Operator, inputs: Sequence[Int8], shape: tuple[int, ...], note: str = "") -> Network:
    """One operator."""
    return Network(tuple(inputs), ((operator, tuple(range(len(inputs))), shape),), note)


_TOUCH = op.Requantize(0, 0, None, op.FullRange)


def program_of(networks: Sequence[Network]) -> Program:
    """All of them side by side; their answers are the outputs. There is an input, which no network needs."""
    tensors = [_tensor(0, (4,), None), _tensor(1, (4,), None)]
    steps = [Step(_TOUCH, (0,), 1, None)]
    outputs = [1]
    for network in networks:
        numbers: list[int] = []
        for values in network.inputs:
            numbers.append(len(tensors))
            tensors.append(_tensor(len(tensors), values.shape, values))
        for operator, read, shape in network.operators:
            numbers.append(len(tensors))
            steps.append(Step(operator, tuple(numbers[value] for value in read), len(tensors), None))
            tensors.append(_tensor(len(tensors), shape, None))
        outputs += [numbers[value] for value in network.answers]
    return Program(
        tuple(tensors),
        tuple(steps),
        ((TensorSpec("x", (4,), "int8"), 0),),
        tuple((TensorSpec(f"y{number}", tensors[number].shape, "int8"), number) for number in outputs),
    )


def _tensor(number: int, shape: tuple[int, ...], data: Int8 | None) -> Tensor:
    return Tensor(number, f"t{number}", shape, "int8", None, number, data)


def answers_on_host(networks: Sequence[Network], directory: Path) -> list[Int8]:
    """What the portable schedule says, here."""
    target = load_target("host").model_copy(update={"schedules": ("portable",)})
    directory.mkdir()
    library = build_host_library(compile_program(program_of(networks), target, name="batch"), directory)
    return library.run([np.zeros(4, np.int8)])[1:]


def answers_on_board(
    networks: Sequence[Network],
    target: Target,
    directory: Path,
    *,
    choices: Mapping[int, str] | None = None,
    prefer: Preference = "speed",
) -> list[Int8]:
    """What the board says, with the variants chosen (by the program's tensor) or the default ones."""
    program = program_of(networks)
    compiled = compile_program(program, target, name="batch", choices=choices or {}, prefer=prefer)
    image = build_image(compiled, target, directory, provenance={})
    with open_board(target, image.path, None) as board:
        board.write_input(0, bytes(4))
        board.run()
        return [
            np.frombuffer(board.read_output(number), np.int8).reshape(spec.shape)
            for number, (spec, _) in enumerate(program.outputs)
        ][1:]


def variant_names(network: Network, target: Target) -> list[str]:
    """The variants that a target's schedules have for a single operator, best first."""
    program = program_of([network])
    found = variants(target.schedules, program, program.steps[1], Request())
    return [variant.name for variant in found]


def compare_on_board(cases: Sequence[Network], target: Target, directory: Path) -> dict[str, int]:
    """Every variant of every case against the portable schedule; returns how often each variant was there."""
    expected = answers_on_host(cases, directory / "host")
    named = [(number, name) for number, case in enumerate(cases) for name in variant_names(case, target)]
    named = [(number, name) for number, name in named if not name.startswith("portable")]
    assert named, "no case has a variant to compare"
    repeated = [cases[number] for number, _ in named]
    outputs = [tensor for _, tensor in program_of(repeated).outputs][1:]
    choices = {tensor: name for tensor, (_, name) in zip(outputs, named, strict=True)}
    answers = answers_on_board(repeated, target, directory / "board", choices=choices)
    counts: dict[str, int] = {}
    for (number, name), answer in zip(named, answers, strict=True):
        counts[name] = counts.get(name, 0) + 1
        differing = np.argwhere(answer != expected[number])
        assert not len(differing), (
            f"{name} differs at {len(differing)} of {answer.size} places, first {differing[0].tolist()}: "
            f"{answer[tuple(differing[0])]} for {expected[number][tuple(differing[0])]}; "
            f"{cases[number].note} {_without_arrays(cases[number].operators[0][0])}, "
            f"inputs {[values.shape for values in cases[number].inputs]}"
        )
    return counts


def _without_arrays(operator: op.Operator) -> str:
    fields = {name: getattr(operator, name) for name in operator.__dataclass_fields__}
    return str({name: value for name, value in fields.items() if not isinstance(value, np.ndarray)})
