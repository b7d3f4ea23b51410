"""Names of hosts, users, apps, uploads: what does not have the exact form is refused, and nothing is run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgekit.artifacts import Serving
from edgekit.device.board import parse_board
from edgekit.device.ssh import SshHost, ssh_host
from edgekit.device.ssh.argv import config_argv, exit_argv, session_argv
from edgekit.device.ssh.remote import (
    activate_command,
    check_app,
    current_program,
    hold_command,
    incoming_program,
    install_command,
    installed_program,
    rollback_command,
    serve_command,
    upload_command,
)
from edgekit.errors import UsageError
from tests.campaign import campaign_count
from tests.ssh.conftest import FakeSsh

PROGRAM = incoming_program("kws", "0123456789abcdef")

_PARTS = (
    "-oProxyCommand=touch {canary}", "-F", "-E{canary}", "--", "$(touch {canary})", "`touch {canary}`",
    ";touch {canary};", "|touch {canary}", "&& touch {canary} &&", "\ntouch {canary}\n",
    "\r", "\0", "\x1b[2J", "%h", "%%", "${{HOME}}", "~", "~root", "..", "/", "//", "../../etc", "*", "?",
    "[a-z]", "{{a,b}}", "'", '"',
    "\\", " ", "\t", "!", "#", "<", ">", "(", ")", "@", "@@", ":", "::", "ssh://h:22", "a@b@c", "é", "\u202e",
    "\u200b", "１", "a", "pi", "kws", "", "0", "A" * 300, "=", ",",
)  # fmt: skip


def hostile(count: int, canary: Path) -> list[str]:
    """Strings of one to four of the parts, the same ones in each run; and two that are harmless."""
    random_ = random.Random(2611)
    strings = [
        "".join(random_.choice(_PARTS) for _ in range(random_.randint(1, 4))).format(canary=canary)
        for _ in range(count)
    ]
    return [*strings, "pi", "0123456789abcdef"]


def test_destinations_that_are_one() -> None:
    for text in ("pi@raspberrypi.local", "rpi4", "10.0.0.7", "_u@h", "fe80::1", "pi@2001:db8::7", "a.b-c_d"):
        assert SshHost(text).destination == text
    assert SshHost("pi@board").name == "board"


@pytest.mark.parametrize(
    ("board", "destination"),
    [
        ("ssh:pi@raspberrypi.local", "pi@raspberrypi.local"),
        ("ssh:rpi4", "rpi4"),
        ("ssh:pi@[fe80::1]", "pi@fe80::1"),
    ],
)
def test_destination_of_an_address(board: str, destination: str) -> None:
    assert ssh_host(parse_board(board)).destination == destination


@pytest.mark.parametrize(
    "text",
    ["", "-oProxyCommand=x", "-F", "pi@-h", "-u@h", "a b", "a;b", "h\n", "@h", "u@", "a@b@c", "ssh://h",
     "h:22", "h%i", "$h", "h`", "é", "::" * 30],
)  # fmt: skip
def test_destinations_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        SshHost(text)


def test_hostile_hosts_are_refused_or_are_plain_words_after_the_options(tmp_path: Path, ssh: FakeSsh) -> None:
    """And those of a board's address."""
    canary = tmp_path / "canary"
    taken = 0
    for text in hostile(campaign_count(500, 50), canary):
        for make in (SshHost, lambda text: ssh_host(parse_board(f"ssh:{text}"))):
            try:
                host = make(text)
            except UsageError:
                continue
            taken += 1
            assert set(host.destination) <= set(
                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@:"
            )
            for argv in (
                session_argv(host, "true", None),
                exit_argv(host, "/tmp/e/%C"),
                config_argv(host),
            ):
                words = list(argv)
                at = words.index("--")
                assert words[at + 1] == host.destination
                assert not host.destination.startswith("-")
                assert words[at + 2 :] in ([], ["true"])
    assert taken > 0
    assert not canary.exists()
    assert ssh.argv() == []


def test_hostile_words_never_reach_a_command(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    commands = (
        lambda text: upload_command(text, "0123456789abcdef"),
        lambda text: upload_command("kws", text),
        lambda text: hold_command(PROGRAM, text),
        lambda text: install_command(PROGRAM, text, "0" * 64),
        lambda text: install_command(PROGRAM, "kws", text),
        lambda text: activate_command(PROGRAM, text, "0" * 16),
        lambda text: activate_command(PROGRAM, "kws", text),
        lambda text: rollback_command(PROGRAM, text),
        lambda text: installed_program("kws", text),
        lambda text: installed_program(text, "0" * 16),
        current_program,
        check_app,
    )
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789~/._-@ &>")
    made = 0
    for text in hostile(campaign_count(500, 50), canary):
        for command in commands:
            try:
                line = command(text)
            except UsageError:
                continue
            made += 1
            assert set(line) <= allowed
            assert ".." not in line.split("/")
    assert made > 0


def test_upload() -> None:
    assert upload_command("kws", "0123456789abcdef") == (
        "umask 077 && mkdir -p ~/.edgekit/kws/incoming && cat > ~/.edgekit/kws/incoming/0123456789abcdef "
        "&& chmod 700 ~/.edgekit/kws/incoming/0123456789abcdef"
    )


def test_commands_of_the_runner() -> None:
    version = "0123456789abcdef"
    assert hold_command(PROGRAM, "ada@laptop") == "~/.edgekit/kws/incoming/0123456789abcdef hold ada@laptop"
    assert install_command(PROGRAM, "kws", "ab" * 32) == f"{PROGRAM} install kws {'ab' * 32}"
    installed = installed_program("kws", version)
    assert installed == f"~/.edgekit/kws/{version}/runner"
    assert activate_command(installed, "kws", version) == f"{installed} activate kws {version}"
    assert rollback_command(current_program("kws"), "kws") == "~/.edgekit/kws/current/runner rollback kws"


@pytest.mark.parametrize(
    ("serving", "words"),
    [
        (Serving(), "serve"),
        (Serving(threads=4), "serve --threads 4"),
        (Serving(core=0), "serve --core 0"),
        (Serving(2, 1), "serve --threads 2 --core 1"),
    ],
)
def test_serve(serving: Serving, words: str) -> None:
    assert serve_command(current_program("kws"), serving) == f"~/.edgekit/kws/current/runner {words}"


@pytest.mark.parametrize("serving", [Serving(threads=0), Serving(threads=257), Serving(core=-1)])
def test_serve_with_numbers_that_are_none(serving: Serving) -> None:
    with pytest.raises(UsageError):
        serve_command(current_program("kws"), serving)
