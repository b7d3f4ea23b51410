#!/bin/sh
# Prepares what `make demo` or `make test` needs, and nothing when it is there already.
#
#   sh scripts/setup.sh demo|test
#
# Debian packages are installed where that is allowed, else the one command is printed. The stamp is written last, so
# a set-up that was interrupted goes on where it stopped. Settings: PYTHON, VENV, TORCH_INDEX (see the Makefile).
set -eu

goal=${1:?usage: setup.sh demo|test}
python=${PYTHON:-python3}
venv=${VENV:-.venv}
torch_index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
torch_range='torch>=2.13,<2.14'

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The names of the Debian packages that are lacking, found by what they bring.
lacking_packages() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null || [ -x "$venv/bin/python" ] || printf 'python3-venv '
    have gcc || printf 'gcc '
    echo '#include <stdio.h>' | gcc -E -x c - >/dev/null 2>&1 || printf 'libc6-dev '
    have qemu-system-arm || printf 'qemu-system-arm '
    have arm-none-eabi-gcc || printf 'gcc-arm-none-eabi '
    echo '#include <stdint.h>' | arm-none-eabi-gcc -E -x c - >/dev/null 2>&1 \
        && [ -f "$(arm-none-eabi-gcc -print-file-name=libc.a 2>/dev/null)" ] \
        || printf 'libnewlib-arm-none-eabi '
}

# What only a part needs, which is skipped by name without it: the example's data; in tests, emulated Linux boards.
optional_packages() {
    [ -f /usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz ] || printf 'dataset-fashion-mnist '
    [ "$goal" = test ] || return 0
    if ! have qemu-aarch64 || ! have qemu-arm; then printf 'qemu-user '; fi
    have aarch64-linux-gnu-gcc || printf 'gcc-aarch64-linux-gnu '
    [ -f /usr/aarch64-linux-gnu/include/stdio.h ] || printf 'libc6-dev-arm64-cross '
    have arm-linux-gnueabihf-gcc || printf 'gcc-arm-linux-gnueabihf '
    [ -f /usr/arm-linux-gnueabihf/include/stdio.h ] || printf 'libc6-dev-armhf-cross '
    have clang || printf 'clang '
    have cmake || printf 'cmake '
    have ssh || printf 'openssh-client '
    # On a machine that systemd runs, this package would start a server for the whole network: its owner's choice.
    [ -x /usr/sbin/sshd ] || [ -d /run/systemd/system ] || printf 'openssh-server '
}

may_install() { have apt-get && { [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }; }

install_packages() {
    say "installing Debian packages: $*"
    as_root=
    [ "$(id -u)" = 0 ] || as_root='sudo -n'
    # RUNLEVEL=1 keeps invoke-rc.d from starting services: the programs are all that is wanted.
    {
        $as_root apt-get update -qq \
            && $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
                apt-get install -y -qq --no-install-recommends "$@"
    } >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        fail "apt-get could not install: $*"
    }
}

# True when the index answers within a few seconds, name look-up included.
index_answers() {
    timeout 8 "$venv/bin/python" - "$1" 2>/dev/null <<'PY'
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1].rstrip("/") + "/torch/", timeout=5) as answer:
    sys.exit(0 if answer.status == 200 else 1)
PY
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

install_torch() {
    if "$venv/bin/python" -c '
import sys
from importlib.metadata import version
release = tuple(int(part) for part in version("torch").split("+")[0].split(".")[:2])
sys.exit(not (2, 13) <= release < (2, 14))' 2>/dev/null; then
        return
    fi
    if index_answers "$torch_index"; then
        say "installing $torch_range from $torch_index"
        # Only torch itself comes from there; what it depends on comes with edgekit from the usual index.
        pip install -qq --no-deps --retries 1 --index-url "$torch_index" "$torch_range" && return
    else
        say "$torch_index can't be reached"
    fi
    say "installing $torch_range with plain pip"
    pip install -qq "$torch_range"
}

have "$python" || fail "$python is not installed"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "Python 3.10 or later is needed: make PYTHON=python3.X"
mkdir -p build
log=build/setup-$goal.log

required=$(lacking_packages)
optional=$(optional_packages)
if [ -n "$required$optional" ]; then
    if may_install; then
        # shellcheck disable=SC2086 # lists of words
        install_packages $required $optional
    elif [ -n "$required" ]; then
        fail "type this command, then make $goal again:
    sudo apt-get update && sudo apt-get install -y --no-install-recommends $required$optional"
    else
        say "some parts will be skipped; this command installs what they need:
    sudo apt-get update && sudo apt-get install -y --no-install-recommends $optional"
    fi
fi

case $goal in
    demo) extras=torch ;;
    test) extras=torch,test ;;
    *) fail "unknown goal: $goal" ;;
esac

stamp=$venv/.edgekit-$goal
wanted="$(pwd) $(cksum <pyproject.toml)"
[ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "creating $venv"
    "$python" -m venv --clear "$venv"
fi
install_torch
say "installing edgekit[$extras]"
pip install -qq -e ".[$extras]"
printf '%s' "$wanted" >"$stamp.tmp"
mv "$stamp.tmp" "$stamp"
say "ready"
