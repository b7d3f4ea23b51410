"""The commands on a Linux board that is this machine behind a fake ssh: a trusted clock, real runners."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from edgekit.cli.app import app
from edgekit.pipeline import compile_bundle
from tests.campaign import campaign_count
from tests.ssh.conftest import FakeSsh
from tests.ssh.test_host import hostile

Run = Callable[..., Result]

TARGET = """\
schema = 1
name = "here"
description = "This machine behind ssh"
platform = "linux"
schedules = ["portable"]
[compile]
mtriple = "x86_64-unknown-linux-gnu"
[toolchain]
prefix = "x86_64-linux-gnu-"
[transport]
kind = "ssh"
[clock]
source = "clock_monotonic"
hz = 1_000_000_000
trusted = true
"""
APP = "kws_ref_model"
BUNDLE = f"build/{APP}-here"
CALM = "governor performance\nfrequency_khz 1800000\ntemperature_millicelsius 51234\nthrottled 0x0\n"


@pytest.fixture(scope="module")
def this_machine() -> None:
    if shutil.which("x86_64-linux-gnu-gcc") is None or platform.machine() != "x86_64":
        pytest.skip("not here: x86_64-linux-gnu-gcc on such a machine")


@pytest.fixture
def run(this_machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ssh: FakeSsh) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in ("EDGEKIT_TARGET", "EDGEKIT_BOARD", "EDGEKIT_TARGETS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here.toml").write_text(TARGET)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), prog_name="edgekit")

    return invoke


@pytest.fixture(scope="module")
def bundle(this_machine: None, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "here.toml").write_text(TARGET)
    place = folder / "$(touch canary);-oProxyCommand=x 'bundle"
    compile_bundle(data_dir / f"{APP}.tflite", target=folder / "here.toml", directory=place)
    return place


@pytest.fixture
def deploy(run: Run, data_dir: Path) -> Callable[..., Result]:
    model = str(data_dir / f"{APP}.tflite")

    def invoke(*more: str) -> Result:
        return run(
            "deploy", model, "--target", "here.toml", "--samples", "3", "--runs", "3", "--quiet", *more
        )

    return invoke


def test_flash(bundle: Path, run: Run, ssh: FakeSsh, tmp_path: Path) -> None:
    """Of a bundle in a folder whose name a shell would read as more than that."""
    result = run("flash", str(bundle), "--board", "ssh:board", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert (ssh.home / ".edgekit" / APP / "current" / "runner").is_file()
    assert not any("touch" in word for one in ssh.argv() for word in one)
    assert list(tmp_path.rglob("canary")) == []


def values(result: Result) -> dict[str, Any]:
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return document


def test_deploy_run_profile_status_rollback(
    deploy: Callable[..., Result], run: Run, ssh: FakeSsh, tmp_path: Path, data_dir: Path
) -> None:
    ssh.play(" health$", stdout="machine x\n" + CALM)
    result = deploy("--board", "ssh:pi@board", "--json")
    assert result.exit_code == 0, result.stderr
    profile = values(result)["profile"]
    assert (profile["unit"], profile["trusted"], profile["threads"]) == ("us", True, 1)
    assert profile["untrusted_because"] == []
    assert profile["conditions"]["governor"] == "performance"
    assert profile["conditions"]["frequency_before_khz"] == 1_800_000
    verbs = [verb for verb in (command.split(" ")[1] for command in ssh.commands()) if verb != "077"]
    assert verbs == ["hold", "install", "serve", "health", "health", "activate"]
    assert {one[one.index("--") + 1] for one in ssh.argv()} == {"pi@board"}

    rows = np.zeros((2, 1, 49, 10, 1), np.int8)
    np.save(tmp_path / "x.npy", rows)
    result = run(
        "run", BUNDLE, "--input", "x.npy", "--output", "y.npy", "--board", "ssh:pi@board", "--threads", "2"
    )
    assert result.exit_code == 0, result.stderr
    assert np.load(tmp_path / "y.npy", allow_pickle=False).shape == (2, 1, 12)
    assert ssh.commands()[-1].endswith("/runner serve --threads 2")

    result = run("profile", BUNDLE, "--board", "ssh:pi@board", "--runs", "2", "--threads", "2", "--core", "0")
    assert result.exit_code == 0, result.stderr
    assert "2 threads" in result.stdout
    assert "bound to core 0" in result.stdout
    assert "governor performance" in result.stdout

    status = values(run("status", "-t", "here.toml", "--board", "ssh:pi@board", "--json"))
    assert status["schema"] == "edgekit.status/1"
    (version,) = status["versions"]
    assert (version["app"], version["current"]) == (APP, True)
    assert version["version"] in run("status", "-t", "here.toml", "--board", "ssh:pi@board").stdout

    result = run("rollback", APP, "-t", "here.toml", "--board", "ssh:pi@board")
    assert result.exit_code == 6
    assert "can't be rolled back" in result.stderr


def test_what_spoils_a_measurement_is_told_with_it(deploy: Callable[..., Result], ssh: FakeSsh) -> None:
    ssh.play(" health$", stdout="governor ondemand\ntemperature_millicelsius 85000\nthrottled 0x50004\n")
    result = deploy("--board", "ssh:board", "--json")
    assert result.exit_code == 0, result.stderr
    profile = values(result)["profile"]
    assert profile["trusted"] is False
    reasons = " | ".join(profile["untrusted_because"])
    for words in ('governor is "ondemand"', "85.0 °C", "throttled", "under-voltage"):
        assert words in reasons
    table = deploy("--board", "ssh:board").stdout
    assert 'not trusted: the governor is "ondemand"' in table
    assert "throttled 0x50004" in table


def test_a_deployment_that_fails_to_verify_is_not_kept(
    deploy: Callable[..., Result], run: Run, ssh: FakeSsh, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.device import Client

    read = Client.read_output

    def wrong(client: Client, index: int, program: int = 0) -> bytes:
        answer = read(client, index, program)
        return bytes([answer[0] ^ 1]) + answer[1:] if "ssh:" in client._transport.name else answer

    monkeypatch.setattr(Client, "read_output", wrong)
    assert deploy("--board", "ssh:board").exit_code == 7
    assert not any(" activate " in command for command in ssh.commands())
    assert not (ssh.home / ".edgekit" / APP / "current").exists()


@pytest.mark.parametrize(
    ("verb", "play", "code", "words"),
    [
        ("cat >", {"code": 1, "stderr": "cat: write error: No space left on device\n"}, 7, "are free there"),
        (
            " hold ",
            {"code": 75, "stdout": "busy ada@laptop, pid 7, since then\n"},
            6,
            "held by ada@laptop, pid 7",
        ),
        (" hold ", {"code": 126, "stderr": "sh: Exec format error\n"}, 6, "doctor"),
        (" install ", {"code": 65, "stderr": "the upload's SHA-256 is 0\n"}, 7, "not the one that was sent"),
        (" install ", {"code": 74, "stderr": "No space left on device\n"}, 7, "could not write"),
        (" install ", {"stdout": "installed 0123456789abcdef\n"}, 7, "something else"),
        (" serve", {"code": 255}, 6, "was lost"),
        (" activate ", {"code": 74, "stderr": "I/O error\n"}, 7, "could not write"),
        (" activate ", {"code": 255}, 6, "was lost"),
        (
            "cat >",
            {"code": 255, "stderr": "Host key verification failed.\r\n"},
            6,
            "StrictHostKeyChecking=ask",
        ),
        ("cat >", {"code": 255, "stderr": "b: Permission denied (publickey).\r\n"}, 6, "ssh-copy-id board"),
    ],
)
def test_each_step_may_fail(
    bundle: Path, run: Run, ssh: FakeSsh, verb: str, play: dict[str, object], code: int, words: str
) -> None:
    ssh.play(verb, **play)
    result = run("flash", str(bundle), "--board", "ssh:board", "--quiet")
    assert result.exit_code == code, result.stderr
    assert words in result.stderr
    assert not (ssh.home / ".edgekit" / APP / "current").exists()


# --- which board -----------------------------------------------------------------------------------------


def destinations(ssh: FakeSsh) -> set[str]:
    return {one[one.index("--") + 1] for one in ssh.argv() if "-G" not in one}


def test_the_flag_comes_before_the_environment_and_edgekit_toml(
    run: Run, ssh: FakeSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edgekit.toml").write_text('schema = 1\n[boards]\nhere = "ssh:toml"\n')
    assert run("status", "-t", "here.toml").exit_code == 0
    assert destinations(ssh) == {"toml"}
    monkeypatch.setenv("EDGEKIT_BOARD", "ssh:environment")
    assert run("status", "-t", "here.toml").exit_code == 0
    assert destinations(ssh) == {"toml", "environment"}
    assert run("status", "-t", "here.toml", "--board", "ssh:flag").exit_code == 0
    assert destinations(ssh) == {"toml", "environment", "flag"}


@pytest.mark.parametrize(
    ("config", "known"),
    [
        ("host %h\nuser me\nhostname %h\nport 22\n", False),
        ("host %h\nuser me\nhostname %h.local\nport 22\n", False),
    ],
)
def test_a_name_of_which_ssh_knows_nothing_is_no_board(
    run: Run, ssh: FakeSsh, config: str, known: bool
) -> None:
    ssh.config(config)
    result = run("status", "-t", "here.toml")
    assert (result.exit_code == 0) is known
    assert "--board ssh:user@host" in result.stderr
    assert destinations(ssh) == set()


def test_an_alias_of_sshs_configuration_is_the_board(
    run: Run, ssh: FakeSsh, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.device.ssh import alias

    texts = {"here": "host here\nuser pi\nhostname 10.0.0.7\n"}
    monkeypatch.setattr(
        alias, "_settings", lambda name: texts.get(name, f"host {name}\nuser me\nhostname {name}\n")
    )
    assert run("status", "-t", "here.toml").exit_code == 0
    assert destinations(ssh) == {"here"}


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ("host rpi4\nhostname rpi4\nuser me\n", False),
        ("host rpi4\nhostname 10.0.0.7\nuser me\n", True),
        ("host rpi4\nhostname rpi4\nuser pi\n", True),
        ("host rpi4\nhostname rpi4\nuser me\nproxyjump bastion\n", True),
    ],
)
def test_what_makes_a_name_an_alias(settings: str, known: bool) -> None:
    from edgekit.device.ssh.alias import says_something_of

    nobody = "host edgekit-1\nhostname edgekit-1\nuser me\n"
    assert says_something_of("rpi4", settings, "edgekit-1", nobody) is known


def test_a_serial_board_is_not_reached_over_ssh(run: Run, ssh: FakeSsh) -> None:
    result = run("flash", "nothing", "--board", "serial:/dev/ttyACM0")
    assert result.exit_code == 3
    assert ssh.argv() == []


def test_threads_on_a_microcontroller(run: Run, data_dir: Path) -> None:
    result = run(
        "deploy", str(data_dir / f"{APP}.tflite"), "--target", "mps2-an386", "--threads", "2", "--quiet"
    )
    assert result.exit_code == 2
    assert "--threads" in result.stderr


def test_status_of_a_board_without_versions(run: Run) -> None:
    result = run("status", "-t", "mps2-an386")
    assert result.exit_code == 2
    assert "keeps no versions" in result.stderr


@pytest.mark.parametrize("command", ["status", "rollback"])
def test_hostile_boards_and_apps_run_nothing(run: Run, ssh: FakeSsh, tmp_path: Path, command: str) -> None:
    canary = tmp_path / "canary"
    reached = 0
    for text in hostile(campaign_count(500, 50), canary):
        boards = run("status", "-t", "here.toml", f"--board=ssh:{text}")
        assert boards.exit_code in (0, 2)
        reached += boards.exit_code == 0
        if command == "rollback" and "\0" not in text:
            assert run("rollback", "-t", "here.toml", "--board", "ssh:pi@board", "--", text).exit_code in (
                2,
                6,
            )
    assert reached > 0
    assert not canary.exists()
    assert not (ssh.home / "canary").exists()
    for one in ssh.argv():
        at = one.index("--")
        assert len(one) in (at + 2, at + 3)
        assert all(option in ("-T", "-o", "-O", "exit") or "=" in option for option in one[:at])


# --- doctor ----------------------------------------------------------------------------------------------


def checks(result: Result) -> dict[str, dict[str, Any]]:
    return {one["name"].removesuffix(" of here"): one for one in values(result)["checks"]}


def test_doctor_of_a_board(run: Run, ssh: FakeSsh) -> None:
    ssh.play("^uname -m$", stdout="Welcome\nx86_64\n")
    ssh.play("^getconf ", stdout="64\n")
    ssh.play("^cat /sys/", stdout="ondemand\n")
    result = run("doctor", "-t", "here.toml", "--board", "ssh:pi@board", "--json")
    assert result.exit_code == 0, result.stderr
    found = checks(result)
    assert found["board"]["detail"] == "pi@board answers; its host key is known"
    assert found["architecture"]["detail"] == "x86_64, 64-bit programs"
    assert found["free space"]["status"] == "ok"
    assert found["governor"]["status"] == "note"
    assert "sudo tee" in found["governor"]["mend"]


def test_doctor_of_a_board_that_can_not_be_reached(run: Run, ssh: FakeSsh) -> None:
    ssh.play("", code=255, stderr="ssh: connect to host board port 22: Connection refused\r\n")
    result = run("doctor", "-t", "here.toml", "--board", "ssh:pi@board", "--json")
    assert result.exit_code == 6
    assert checks(result)["board"]["status"] == "missing"
    assert "ssh" in checks(result)["board"]["mend"]


def test_doctor_of_a_full_board(run: Run, ssh: FakeSsh) -> None:
    ssh.play(
        "^df ", stdout="Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 9 8 1000 99% /\n"
    )
    result = run("doctor", "-t", "here.toml", "--board", "ssh:pi@board", "--json")
    assert result.exit_code == 6
    assert checks(result)["free space"]["status"] == "missing"


@pytest.mark.parametrize(
    ("target", "machine", "bits", "status"),
    [
        ("rpi4", "aarch64", 64, "ok"),
        ("rpi4", "aarch64", 32, "ok"),
        ("rpi4", "armv7l", 32, "missing"),
        ("rpi4", "x86_64", 64, "missing"),
        ("linux-armv7", "armv7l", 32, "ok"),
        ("linux-armv7", "aarch64", 32, "ok"),
        ("linux-armv7", "aarch64", 64, "missing"),
        ("linux-armv7", "armv6l", 32, "missing"),
        ("rpi4", None, None, "note"),
    ],
)
def test_architecture(target: str, machine: str | None, bits: int | None, status: str) -> None:
    from edgekit.cli.ssh_checks import architecture_check
    from edgekit.target import load_target

    check = architecture_check(load_target(target), machine, bits)
    assert check.status == status
    assert (check.mend is not None) == (status == "missing")


def test_doctor_says_why_instructions_can_not_be_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgekit.cli.ssh_checks import linux_board_checks
    from edgekit.device import emulated_ssh
    from edgekit.target import load_target

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(emulated_ssh, "tick_problem", lambda target: "QEMU takes no plugin")
    ssh, counter = linux_board_checks(load_target("rpi4-emulated"), None)
    assert (ssh.status, ssh.mend) == ("missing", "sudo apt-get install -y openssh-client")
    assert counter.status == "note"
    assert "QEMU takes no plugin" in counter.detail
    assert counter.mend is not None
