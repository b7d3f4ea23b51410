"""The instruction layer, and every routine through GNU's assembler."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tvm import tirx

from edgekit.compiler.codegen.routines import embed_routines
from edgekit.compiler.schedules.armv7em.byte_map import scale_linear
from edgekit.compiler.schedules.armv7em.dot_products import dot_products, widen
from edgekit.compiler.schedules.armv7em.gather import Tail, gather_bytes, gather_words
from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler
from edgekit.compiler.schedules.armv7em.linear_sum import add_linear, add_linear_scalar
from edgekit.compiler.schedules.armv7em.lookup import look_up
from edgekit.compiler.schedules.armv7em.memory import clamp_bytes, copy_bytes, fill_bytes
from edgekit.compiler.schedules.armv7em.pair_routines import extremum, multiply
from edgekit.compiler.schedules.armv7em.pixel_blocks import PIXELS, pixel_block
from edgekit.compiler.schedules.armv7em.plane_rows import convolve_rows
from edgekit.compiler.schedules.armv7em.planes import Planes, split_rows
from edgekit.compiler.schedules.armv7em.requantize import FORM_SUFFIX
from edgekit.compiler.schedules.armv7em.small_plane import SmallPlane
from edgekit.compiler.schedules.armv7em.small_plane_routine import convolve_small_plane
from edgekit.compiler.schedules.armv7em.softmax_routine import softmax_row
from edgekit.compiler.schedules.armv7em.taps import convolve_taps
from edgekit.compiler.schedules.armv7em.windows import reduce_window
from edgekit.compiler.schedules.kernel import Routine

GOLDEN = Path(__file__).parent / "golden"


def routines() -> list[Assembler]:
    """Each generator with each of its options; of shapes, some at the edges of offsets."""
    found = [copy_bytes(), fill_bytes(), clamp_bytes(), look_up(), widen(), softmax_row()]
    found += [add_linear(20), add_linear_scalar(20), scale_linear(20)]
    for scalar in (False, True):
        found += [multiply(form, scalar=scalar) for form in FORM_SUFFIX]
        found += [extremum(larger=larger, scalar=scalar) for larger in (False, True)]
    for widened in (False, True):
        found += [dot_products(widened=widened, unrolled=n) for n in (4, 16)]
        found += [dot_products(widened=widened, form=form, in_parts=True) for form in FORM_SUFFIX]
    for ragged in (False, True):
        for kind in ("average", "average_shift", "maximum", "mean"):
            found.append(reduce_window(kind, ragged=ragged))
    for pixels in PIXELS:
        found += [pixel_block(pixels, form=form, unrolled=n) for form in FORM_SUFFIX for n in (4, 16)]
        found.append(pixel_block(pixels, form="two_sided", odd=True))
        tails: tuple[Tail, ...] = (0, 1, 2, 3)
        found += [gather_words(pixels, tail) for tail in tails]
        for row_bytes, rows, step in ((9, 3, 292), (1, 7, 40), (2, 3, 11), (3, 3, 3), (15, 5, 900)):
            routine = gather_bytes(pixels, row_bytes, rows, step)
            assert routine is not None
            found.append(routine)
    found += [convolve_taps(form, ragged=ragged) for form in FORM_SUFFIX for ragged in (False, True)]
    for planes in (
        Planes(7, 5, 64, 5, 1, 64),
        Planes(50, 48, 8, 48, 1, 8),
        Planes(49, 48, 16, 24, 2, 16),
        Planes(8, 6, 2044, 6, 1, 2044),
        Planes(3, 1, 4, 1, 2, 4),
        Planes(255, 253, 4, 253, 1, 4),
    ):
        assert planes.supported
        for small in (False, True):
            found += [split_rows(planes, present, small=small) for present in ("both", "upper", "lower")]
            for form in FORM_SUFFIX:
                found.append(convolve_rows(planes, rows=1, form=form, small=small))
                if planes.stride == 1:
                    found.append(convolve_rows(planes, rows=2, form=form, small=small))
    for plane in (
        SmallPlane(3, 3, 256, 3, 3, 1, 1, 1, 256),
        SmallPlane(12, 12, 64, 6, 6, 2, 0, 0, 64),
        SmallPlane(13, 7, 584, 7, 4, 2, 1, 1, 584),
        SmallPlane(1, 1, 4092, 1, 1, 2, 2, 2, 4092),
        SmallPlane(6, 12, 340, 4, 10, 1, 0, 0, 340),
    ):
        found += [convolve_small_plane(plane, form=form) for form in FORM_SUFFIX]
    return found


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7", "cortex-m33"])
def test_every_routine_assembles_and_its_listing_is_the_same_code(core: str, tmp_path: Path) -> None:
    if shutil.which("arm-none-eabi-as") is None:
        pytest.skip("not installed: arm-none-eabi-as")
    found = routines()
    assert len({code.name for code in found}) == len(found)
    listings = "".join(f"{code.name}:\n{code.listing()}" for code in found)
    texts = "".join(f"{code.name}:\n{code.routine().text}" for code in found)
    assert _assemble(texts, core, tmp_path / "text.o") == _assemble(listings, core, tmp_path / "listing.o")


def _assemble(source: str, core: str, to: Path) -> bytes:
    # A routine's text has labels of its own only, so that all of them go into one file.
    whole = f".syntax unified\n.thumb\n.text\n{source}"
    command = ["arm-none-eabi-as", f"-mcpu={core}", "-o", str(to), "-"]
    done = subprocess.run(command, input=whole, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    code = to.with_suffix(".bin")
    subprocess.run(
        ["arm-none-eabi-objcopy", "-O", "binary", "-j", ".text", str(to), str(code)], timeout=60, check=True
    )
    return code.read_bytes()


def test_a_listing_reads_as_the_golden_file_says() -> None:
    """Regenerate with EDGEKIT_UPDATE_GOLDEN=1."""
    golden, listing = GOLDEN / "gather3.txt", gather_words(3).listing()
    if os.environ.get("EDGEKIT_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(listing)
    assert golden.read_text() == listing


def _code() -> Assembler:
    return Assembler("edgekit_test", "For a test.")


def _twice_named() -> None:
    code = _code()
    (first,) = code.registers("first")
    code.rename(first, "other")
    code.mov(first, 1)


def _out_of_order() -> None:
    code = _code()
    a, b, c = code.registers("a b c")
    code.ldm(a, (c, b))


def _base_among_loaded() -> None:
    code = _code()
    a, b = code.registers("a b")
    code.ldm(a, (a, b))


MISTAKES: dict[str, Callable[[], object]] = {
    "a register under its old name": _twice_named,
    "load-multiple out of order": _out_of_order,
    "load-multiple over its base": _base_among_loaded,
    "an offset too far": lambda: _code().ldr(SP, SP, 4096),
    "a pair's offset too far": lambda: _code().ldrd(SP, SP, SP, 1024),
    "a pair's offset between words": lambda: _code().ldrd(SP, SP, SP, 2),
    "a base moved too far": lambda: _code().ldr(SP, SP, post=256),
    "a constant too wide": lambda: _code().mov(SP, 65536),
    "a sum's constant too wide": lambda: _code().add(SP, SP, 4096),
    "half a byte of rotation": lambda: _code().sxtb16(SP, SP, ror=4),
    "a condition that does not exist": lambda: _code().branch("x", "maybe"),
    "a stack off its boundary": lambda: _code().enter(4),
    "more registers than there are": lambda: _code().registers("r " * 15),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_no_encoding_holds_is_refused(mistake: str) -> None:
    with pytest.raises(ValueError, match=r"edgekit_test|bytes rotate"):
        MISTAKES[mistake]()


def test_routines_of_one_name_are_one_routine() -> None:
    first, other = copy_bytes().routine(), fill_bytes().routine()
    function = tirx.PrimFunc([], tirx.Evaluate(tirx.const(0, "int32")))
    embedded = embed_routines(function, [first, other, first], "thumbv7em-unknown-none-eabihf")
    text = str(embedded.body.value.value)
    assert text.count(f"{first.name}:") == text.count(f"{other.name}:") == 1
    with pytest.raises(ValueError, match=f"two routines are called {first.name}"):
        embed_routines(function, [first, Routine(first.name, other.text)], "thumbv7em-unknown-none-eabihf")
    assert embed_routines(function, [], "x") is function
