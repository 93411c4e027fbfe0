#!/bin/sh
# Make .venv hold exactly what a requirements file pins:  scripts/setup.sh [requirements.txt | requirements-test.txt]
# Quick when nothing changed. A broken or half-made .venv is rebuilt; an interrupted pip leaves no stamp behind.
set -u
cd "$(dirname "$0")/.." || exit 2
root=$(pwd -P)
requirements=${1:-requirements.txt}
venv=$root/.venv
log=$venv/pip.log

fail() {
    echo "error: $*" >&2
    exit 2
}

is_311() {
    [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 3.11 ]
}

find_python() {
    for name in ${PYTHON:-} python3.11 python3 python; do
        if is_311 "$name"; then
            "$name" -c 'import ensurepip, venv' 2>/dev/null ||
                fail "$name comes without venv and pip; install them (Debian and Ubuntu: apt-get install python3.11-venv) and run the same command again"
            python=$name
            return
        fi
    done
    found=$(python3 --version 2>/dev/null || echo "no Python 3")
    fail "Python 3.11 is needed, but ${PYTHON:-python3.11 and python3} cannot be run or are another version (found: $found); install python3.11 or name one: make PYTHON=/path/to/python3.11"
}

# What the environment was made from: the pins, where it lies (environments cannot be moved) and which Python.
stamp_of() {
    { cat requirements.txt constraints.txt pyproject.toml "$1"; echo "$root"; } | cksum
}

stamp_is_current() {
    [ ! -e "$venv/.building" ] && [ "$(cat "$venv/.ready-$1" 2>/dev/null)" = "$(stamp_of "$1")" ] && is_311 "$venv/bin/python"
}

# Every "name==version" of the requirements files is installed in that version (somebody may have run pip by hand).
pins_hold() {
    "$venv/bin/python" - requirements.txt "$requirements" 2>/dev/null <<'PY'
import sys
from importlib.metadata import version
for path in sys.argv[1:]:
    for line in open(path, encoding="utf-8"):
        name, found, pin = line.split("#")[0].strip().partition("==")
        if found and version(name).split("+")[0] != pin:
            sys.exit(1)
PY
}

free_megabytes() {
    free=$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print int($4 / 1024) }')
    echo "${free:-999999}"
}

disk_full() {
    fail "the disk is full ($(free_megabytes "$root") MB free here); free about 3 GB, 8 GB with CUDA, here and in ${TMPDIR:-the temporary folder}, and run the same command again"
}

why_pip_failed() {
    if grep -qiE 'no space left|errno 28|disk quota' "$log" 2>/dev/null || [ "$(free_megabytes "$venv")" -lt 50 ]; then
        disk_full
    elif grep -qiE 'connection|resolve host|name resolution|unreachable|timed out|max retries|proxyerror|SSLError|from versions: none' "$log" 2>/dev/null; then
        fail "the package index cannot be reached or knows none of the packages; check the network, HTTPS_PROXY or your own index (PIP_INDEX_URL) and run the same command again (details: .venv/pip.log)"
    fi
    tail -n 15 "$log" >&2 2>/dev/null
    fail "pip could not install $requirements; the lines above and .venv/pip.log say why"
}

[ -e "$requirements" ] || fail "there is no $requirements"
if stamp_is_current "$requirements" && pins_hold; then
    exit 0
fi

if [ -e "$venv/.building" ] || ! is_311 "$venv/bin/python" || ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    find_python
    [ -e "$venv" ] && echo "rebuilding .venv: the old one is broken or was never finished"
    # the packages alone take 2.6 GB: better said now than after the downloads
    [ -e "$venv" ] || [ "$(free_megabytes "$root")" -ge 2600 ] || disk_full
    echo "making .venv with $($python --version)"
    # --clear empties a folder (or the target of a link to a larger disk) and keeps it
    if ! message=$("$python" -m venv --clear "$venv" 2>&1); then
        case $message in
            *"No space left"* | *"Disk quota"*) disk_full ;;
            *) fail "cannot make .venv: $(echo "$message" | tail -n 1)" ;;
        esac
    fi
fi

rm -f "$venv"/.ready-*
: > "$venv/.building" || fail "cannot write to .venv; mend its permissions or remove it, and run the same command again"
echo "installing $requirements (a few minutes the first time)"
{
    "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off -r "$requirements"
    echo $? > "$venv/.status"
} 2>&1 | tee "$log" | grep --line-buffered -E '^ *(Downloading|Installing|Building|ERROR|error)' | cut -c 1-110
[ "$(cat "$venv/.status" 2>/dev/null)" = 0 ] || why_pip_failed

# A wheel can install and still not load (a missing system library), so load the large ones once.
"$venv/bin/python" -c 'import lib, torch, torchvision, compressai, cv2, av' ||
    fail "the packages are installed but do not load; the lines above name the one that fails"

stamp_of requirements.txt > "$venv/.ready-requirements.txt"
stamp_of "$requirements" > "$venv/.ready-$requirements" || fail "cannot write to .venv"
rm -f "$venv/.building" "$venv/.status"
echo "ready: $(du -sm "$venv" | cut -f 1) MB in .venv"
