"""The login of an emulated board takes a command apart only where a shell would find the same words."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import example, given, settings, strategies as st

from edgekit.device.board_shell import parse

HOME = "/a home/of 'quotes' $x"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("~/.edgekit/kws/incoming/0a1b2c3d hold me@here", ["hold", "me@here"]),
        (
            "~/.edgekit/kws/current/runner serve --threads 4 --core 2",
            ["serve", "--threads", "4", "--core", "2"],
        ),
        ("  ~/x\t'a b'  \"c d\"''e ", ["a b", "c de"]),
        ("exec ~/x", []),
    ],
)
def test_the_contracts_commands_are_words(command: str, words: list[str]) -> None:
    parsed = parse(command, "/h")
    assert parsed is not None
    assert parsed.words[0].startswith("/h/")
    assert parsed.words[1:] == words


def test_variables_before_a_program_are_for_it_alone() -> None:
    parsed = parse("A=1 B='x y' ~/p A=2", "/h")
    assert parsed is not None
    assert (parsed.words, parsed.variables) == (["/h/p", "A=2"], {"A": "1", "B": "x y"})


@pytest.mark.parametrize(
    "command",
    [
        "",
        "   ",
        "ls",
        "uname -m; ~/x",
        "~/x; id",
        "~/x && id",
        "~/x | cat",
        "~/x > y",
        "~/x < y",
        "~/x &",
        "~/x $(id)",
        "~/x `id`",
        "~/x $HOME",
        '~/x "$HOME"',
        '~/x "`id`"',
        '~/x "a\\"b"',
        "~/x \\; id",
        "~/x\nid",
        "~/x\rid",
        "~/x *",
        "~/x ?",
        "~/x [a]",
        "~/x {a,b}",
        "~/x #",
        "~/x !1",
        "~root/x",
        "~/x ~/y'",
        "~/x 'a",
        '~/x "a',
        "(~/x)",
        "~/x \u00a0 y",
        "~/x \x00",
        "~/x \x1b[2J",
        "A=1",
    ],
)
def test_what_a_shell_reads_otherwise_is_left_to_it(command: str) -> None:
    assert parse(command, "/h") is None


_PIECES = st.sampled_from(
    (
        *(
            "~/x",
            "/x",
            "./y",
            "a",
            "b c",
            "A=1",
            "=",
            "'",
            '"',
            "'a b'",
            '"c $d"',
            "\\",
            "$",
            "`",
            ";",
            "|",
            "&",
        ),
        *(
            " ",
            "\t",
            "\n",
            "~",
            "*",
            "#",
            "!",
            "-",
            "--",
            "{",
            "}",
            "(",
            ")",
            "<",
            ">",
            "exec",
            "''",
            "é",
            "\u2003",
        ),
    )
)


@settings(max_examples=300)
@given(st.lists(_PIECES, max_size=8).map(lambda pieces: "~/x " + "".join(pieces)))
@example("~/x '' \"\"")
@example("~/x a=~/y")
@example("./y ~/'z'")
def test_a_command_taken_apart_is_what_sh_makes_of_it(command: str) -> None:
    parsed = parse(command, HOME)
    if parsed is None or parsed.variables or command.strip(" \t").startswith("exec"):
        return
    said = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\0' {command}"],
        capture_output=True,
        text=True,
        env={"HOME": HOME},
        timeout=20,
        check=True,
    ).stdout
    words = said.split("\0")[:-1]
    assert parsed.words[1:] == words[1:]
    assert parsed.words[0] == (words[0] if words[0].startswith("/") else f"{HOME}/{words[0]}")
