"""Untrusted text: nothing that a terminal or a path would obey gets through."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given, strategies as st

from edgekit.quantities import parse_bytes, parse_count, parse_duration_us
from edgekit.text import did_you_mean, file_name, function_name, printable


@given(st.text(alphabet=st.characters(codec=None), max_size=400), st.integers(1, 100))
def test_printable_has_no_control_characters_and_is_one_line(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert all(unicodedata.category(character)[0] != "C" for character in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


def test_printable_escapes_and_shortens() -> None:
    assert printable("a\x1b[2Jb\n\u202ec") == "a\\x1b[2Jb\\n\\u202ec"
    assert printable("grün ✓") == "grün ✓"
    assert printable("x" * 300) == "x" * 199 + "…"


@given(st.text(max_size=300))
def test_a_file_name_is_one_harmless_component(text: str) -> None:
    name = file_name(text)
    path = PurePosixPath("build") / name
    assert path.parent == PurePosixPath("build")
    assert name not in ("", ".", "..")
    assert not name.startswith((".", "-"))
    assert len(name.encode()) <= 100


def test_the_nearest_word_is_offered_only_when_it_is_near() -> None:
    assert did_you_mean("traget", ["target", "model"]) == ' Did you mean "target"?'
    assert did_you_mean("zzz", ["target", "model"]) == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [("4M", 4_000_000), ("150k", 150_000), ("2_500_000", 2_500_000), ("1.5M", 1_500_000), ("7", 7)],
)
def test_counts(text: str, value: int) -> None:
    assert parse_count(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("40KiB", 40_960), ("110 KiB", 112_640), ("1MB", 1_000_000), ("512K", 524_288), ("9", 9)],
)
def test_sizes(text: str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(("text", "value"), [("20ms", 20_000.0), ("350us", 350.0), ("1.5s", 1.5e6)])
def test_durations(text: str, value: float) -> None:
    assert parse_duration_us(text) == value


@pytest.mark.parametrize("text", ["", "-4", "0", "many", "4 MM", "1e9", "4M4", "9" * 40])
def test_what_is_no_amount(text: str) -> None:
    for parse in (parse_count, parse_bytes, parse_duration_us):
        with pytest.raises(ValueError, match=r"amount|greater"):
            parse(text)


def test_what_a_function_makes_is_called_after_module_and_function() -> None:
    assert function_name("package.networks:small") == "networks_small"
    assert function_name("networks:small") != function_name("networks:large")
