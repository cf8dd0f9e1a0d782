# Sourced by tools/*: leaves the project's own environment ready, its programs first on the PATH, and `root`, `venv` and `python`
# set. The check costs a few milliseconds; only when it fails is a Python looked for and tools/lib/bootstrap.py run.
# shellcheck shell=sh
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd -P)
venv=$root/.venv
python=$venv/bin/python

skerry_env_ready() {
    [ -x "$python" ] &&
        cmp -s "$root/requirements.lock" "$venv/.skerry-ready" &&
        { [ -x "$venv/bin/node" ] || command -v node >/dev/null 2>&1; }
}

skerry_find_python() {
    for candidate in ${SKERRY_PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
        if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    echo "skerry: no Python 3.11 or newer found. Install one (Debian: apt-get install python3), or name it in SKERRY_PYTHON." >&2
    return 1
}

if ! skerry_env_ready; then
    skerry_base_python=$(skerry_find_python) || exit 1
    "$skerry_base_python" "$root/tools/lib/bootstrap.py" || exit 1
fi
PATH=$venv/bin:$PATH
# Nothing in the folder the user stands in may shadow a module of ours.
PYTHONSAFEPATH=1
export PATH PYTHONSAFEPATH
