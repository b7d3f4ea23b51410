"""An emulated board is, to ssh and to a program on it, a board."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.device.emulated_ssh import board_folder, emulated_board
from edgekit.device.ssh.host import SshHost
from edgekit.target import load_target

from .boards import Ran, run_on, ssh_argv
from .test_tick_plugin import LOOP

Run = Callable[..., Ran]


def test_a_command_runs_and_says_nothing_else(on_rpi4: Run) -> None:
    assert on_rpi4("true") == Ran(0, "", "")


def test_a_program_of_the_board_runs(on_rpi4: Run) -> None:
    assert on_rpi4("~/program") == Ran(0, "hello\n", "")
    assert on_rpi4("~/program machine").output == "aarch64 64\n"
    assert on_rpi4("./program 'a b' \"c\" -d").output == "[a b][c][-d]hello\n"


def test_the_board_says_what_it_is(on_rpi4: Run) -> None:
    assert on_rpi4("uname -m").output == "aarch64\n"
    assert on_rpi4("uname -s").output == "Linux\n"
    assert on_rpi4("getconf LONG_BIT").output == "64\n"
    assert on_rpi4("getconf PAGESIZE").output.strip().isdigit()
    assert on_rpi4("df -Pk .").status == 0


def test_an_armv7_board(world: Path, programs: dict[str, Path]) -> None:
    target = load_target("linux-armv7-emulated")
    with emulated_board(target) as host:
        shutil.copy2(programs["arm"], board_folder(target) / "home" / "program")
        shutil.copy2(programs["aarch64"], board_folder(target) / "home" / "other")
        assert run_on(host, "~/program machine").output == "armv7l 32\n"
        assert run_on(host, "~/program count").output.split() == [str(LOOP)] * 3
        assert run_on(host, "uname -m; getconf LONG_BIT").output == "armv7l\n32\n"
        other = run_on(host, "~/other")
    # As on a real board: what is made for another machine does not start.
    assert other.status == 126
    assert "Exec format error" in other.errors


def test_ticks_are_instructions_the_same_each_time(on_rpi4: Run) -> None:
    counts = [int(line) for _ in range(4) for line in on_rpi4("~/program count").output.split()]
    assert counts == [LOOP] * 12


def test_a_shell_has_no_tick_file_and_a_program_leaves_none(rpi4: SshHost, on_rpi4: Run) -> None:
    assert on_rpi4("echo ${EDGEKIT_TICK_FILE-none}").output == "none\n"
    on_rpi4("~/program count")
    assert rpi4.config is not None
    assert list((rpi4.config.parent / "ticks").iterdir()) == []


def test_statuses_and_signals_arrive(on_rpi4: Run) -> None:
    assert on_rpi4("~/program fail 75").status == 75
    assert on_rpi4("exit 7").status == 7
    assert on_rpi4("~/program fall").status == 255  # ssh's own, for a signal
    assert on_rpi4("~/nothing").status == 127
    assert on_rpi4("chmod 600 program && ~/program").status == 126
    assert on_rpi4("~/program").status == 126
    assert on_rpi4("chmod 700 program && echo; ").status == 0


def test_a_program_reads_itself(on_rpi4: Run, programs: dict[str, Path]) -> None:
    assert on_rpi4("~/program self").output == f"{programs['aarch64'].stat().st_size}\n"


def test_an_upload_arrives_whole(rpi4: SshHost, on_rpi4: Run, programs: dict[str, Path]) -> None:
    folder = "~/.edgekit/kws/incoming"
    file = f"{folder}/0123456789ab"
    upload = f"umask 077 && mkdir -p {folder} && cat > {file} && chmod 700 {file}"
    data = programs["aarch64"].read_bytes()
    assert on_rpi4(upload, given=data) == Ran(0, "", "")
    home = board_folder(load_target("rpi4-emulated")) / "home"
    written = home / ".edgekit/kws/incoming/0123456789ab"
    assert written.read_bytes() == data
    assert written.stat().st_mode & 0o777 == 0o700
    assert on_rpi4(f"{file} hold me").output == "[hold][me]hello\n"


@pytest.mark.parametrize("legacy", [False, True], ids=["sftp", "scp"])
def test_scp(rpi4: SshHost, tmp_path: Path, legacy: bool) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 100)
    protocol = ["-O"] if legacy else []
    scp = ["scp", "-q", *protocol, "-F", str(rpi4.config)]
    subprocess.run([*scp, str(source), f"{rpi4.destination}:copied"], check=True, timeout=60)
    subprocess.run([*scp, f"{rpi4.destination}:copied", str(tmp_path / "back")], check=True, timeout=60)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_several_commands_over_one_connection(rpi4: SshHost) -> None:
    assert rpi4.config is not None
    control = rpi4.config.parent / "control"
    argv = ssh_argv(
        rpi4, "-o", "ControlMaster=auto", "-o", f"ControlPath={control}", "-o", "ControlPersist=20"
    )
    for number in range(5):
        done = subprocess.run(
            [*argv, f"~/program {number}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60
        )
        assert done.stdout == f"[{number}]hello\n".encode()
    stop = ["ssh", "-F", str(rpi4.config), "-O", "exit", "-o", f"ControlPath={control}", rpi4.destination]
    subprocess.run(stop, check=True, timeout=60, stderr=subprocess.DEVNULL)
    assert rpi4.config.with_name("sshd.log").read_text().count("Accepted publickey") >= 1


def test_the_home_is_the_boards_and_stays(world: Path) -> None:
    target = load_target("rpi5-emulated")
    with emulated_board(target) as host:
        assert run_on(host, "pwd").output == f"{board_folder(target)}/home\n"
        assert run_on(host, 'echo "$HOME"').output == f"{board_folder(target)}/home\n"
        assert run_on(host, "echo kept > ~/file").status == 0
    with emulated_board(target) as host:
        assert run_on(host, "cat ~/file").output == "kept\n"


def test_two_at_once_are_one_board(world: Path) -> None:
    target = load_target("rpi5-emulated")
    with emulated_board(target) as one, emulated_board(target) as two:
        assert one.config != two.config
        holder = subprocess.Popen(
            [*ssh_argv(one), "exec flock -n ~/lock sh -c 'echo held; cat'"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert run_on(two, "flock -n ~/lock true").status == 1
            assert holder.stdin is not None
            holder.stdin.close()
            assert holder.wait(20) == 0
        assert run_on(two, "flock -n ~/lock true").status == 0


def test_what_is_known_of_the_user_stays_outside(on_rpi4: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_SECRET", "told")
    names = {line.partition("=")[0] for line in on_rpi4("env").output.splitlines()}
    assert names <= {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "PWD", "TERM", "SHLVL", "_", "OLDPWD"} | {
        "SSH_CLIENT",
        "SSH_CONNECTION",
        "SSH_ORIGINAL_COMMAND",
    }


def test_no_login_script_is_heard(on_rpi4: Run, world: Path) -> None:
    home = board_folder(load_target("rpi4-emulated")) / "home"
    for name in (".bashrc", ".profile", ".ssh/rc"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text("echo noise\n")
    assert on_rpi4("true") == Ran(0, "", "")


def test_a_banner_comes_before_the_command(world: Path) -> None:
    with emulated_board(load_target("rpi5-emulated"), banner="Linux raspberrypi\r\n\x00\xff~") as host:
        done = subprocess.run([*ssh_argv(host), "echo hi"], stdout=subprocess.PIPE, timeout=60, check=True)
    assert done.stdout == b"Linux raspberrypi\r\n\x00\xff~hi\n"


def test_a_root_of_the_tests_own(world: Path, programs: dict[str, Path], tmp_path: Path) -> None:
    governor = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("powersave\n")
    target = load_target("rpi5-emulated")
    with emulated_board(target, root=tmp_path) as host:
        shutil.copy2(programs["aarch64"], board_folder(target) / "home" / "program")
        shown = run_on(host, f"~/program show /{governor.relative_to(tmp_path)}")
    assert shown.output == "powersave\n\n"


def test_without_a_plugin_the_board_works(
    world: Path, programs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgekit.device import emulated_ssh

    monkeypatch.setattr(emulated_ssh, "_ticks", lambda *_: (None, "not here"))
    target = load_target("rpi5-emulated")
    with emulated_board(target) as host:
        shutil.copy2(programs["aarch64"], board_folder(target) / "home" / "program")
        assert run_on(host, "~/program") == Ran(0, "hello\n", "")
        assert run_on(host, "~/program count").output == "no ticks\n"


def test_a_changed_host_key_is_refused(world: Path) -> None:
    target = load_target("rpi5-emulated")
    with emulated_board(target) as host:
        assert run_on(host, "true").status == 0
    folder = board_folder(target)
    for name in ("host_key", "host_key.pub"):
        (folder / name).unlink()
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "host_key"]
    subprocess.run(keygen, cwd=folder, check=True, timeout=60)
    with emulated_board(target) as host:
        refused = run_on(host, "true")
    assert refused.status == 255
    assert "Host key verification failed" in refused.errors
    # A board whose keys are gone gets new ones, and a client that knows them.
    (folder / "host_key").unlink()
    with emulated_board(target) as host:
        assert run_on(host, "true").status == 0


def test_keys_are_the_users_alone(rpi4: SshHost, world: Path) -> None:
    folder = board_folder(load_target("rpi4-emulated"))
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("host_key", "user_key"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert rpi4.config is not None
    assert rpi4.config.parent.stat().st_mode & 0o777 == 0o700


def test_nobody_gets_in_without_the_key(rpi4: SshHost, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True, timeout=60
    )
    assert rpi4.config is not None
    own = rpi4.config.read_text().splitlines()
    strange = [
        line if not line.startswith("IdentityFile") else f"IdentityFile {tmp_path / 'key'}" for line in own
    ]
    config = tmp_path / "config"
    config.write_text("\n".join(strange))
    refused = run_on(SshHost(rpi4.destination, config), "true")
    assert refused.status == 255
    assert "Permission denied (publickey)" in refused.errors


def test_it_listens_on_this_machine_only_and_forwards_nothing(rpi4: SshHost) -> None:
    assert rpi4.config is not None
    port = re.search(r"^Port (\d+)$", rpi4.config.read_text(), re.MULTILINE)
    assert port is not None
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{int(port[1]):04X}")
    ]
    assert listening == [f"0100007F:{int(port[1]):04X}"]
    done = subprocess.run(
        [*ssh_argv(rpi4, "-W", "127.0.0.1:1")], input=b"", capture_output=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert b"administratively prohibited" in done.stderr
