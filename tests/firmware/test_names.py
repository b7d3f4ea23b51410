"""Names out of hostile model names."""

from __future__ import annotations

import re

import pytest

from edgekit.errors import ModelError
from edgekit.firmware.names import check_compiled_file_names, library_name, valid_text


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("kws", "kws"),
        ("KWS Ref-Model.v2", "kws_ref_model_v2"),
        ("pretrainedResnet_quant", "pretrainedresnet_quant"),
        ("", "model"),
        ("../../etc/passwd", "etc_passwd"),
        ("*/", "model"),
        ("<script>alert(1)</script>", "script_alert_1_script"),
        ("\x1b[31mred", "31mred"),
        ("-lc", "lc"),
        ("Lock", "lock_model"),
        ("8bit", "m8bit"),
        ("Модель", "model"),
        ("İstanbul", "i_stanbul"),
        ("a" * 500, "a" * 32),
        ("\ud800", "model"),
        ("a\nb", "a_b"),
        ("_", "model"),
        ("a" * 31 + "_b", "a" * 31),
    ],
    ids=ascii,
)
def test_a_library_name_is_harmless(name: str, library: str) -> None:
    made = library_name(name)
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,31}", made)
    assert made == (library if library[0].isalpha() else f"m{library}")


@pytest.mark.parametrize(
    "name",
    ["", "../x", "/x", "a/b", ".x", "x y", "manifest.json", "README.md", "-x", "x\n", "a" * 99, "é.c", "x;y"],
)
def test_compiled_files_have_plain_names(name: str) -> None:
    with pytest.raises(ModelError):
        check_compiled_file_names([name], frozenset({"manifest.json", "README.md"}))


def test_the_compilers_own_files_are_allowed() -> None:
    names = ["kernels.o", "weights.bin", "weights.S", "model.c", "edgekit_model.h"]
    check_compiled_file_names(names, frozenset({"manifest.json"}))


def test_text_for_json_has_no_lone_surrogates() -> None:
    assert valid_text("a\ud800b") == "a?b"
    assert valid_text("ok é") == "ok é"
