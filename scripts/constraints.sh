#!/bin/sh
# What `make constraints` runs: one file for every Python from 3.10 on, so lines carry markers where versions differ.
# CUDA's packages are left out: the environment of the Makefile is a CPU one.
set -eu
"$1" -m pip --disable-pip-version-check install --quiet uv
torch=$(sed -n 's/^torch==\([^ ;]*\).*/\1/p' constraints.txt) # chosen by hand: it decides which wheels exist
tmp=$(mktemp); new=$(mktemp)
trap 'rm -f "$tmp" "$new"' EXIT
echo "torch==$torch" > "$tmp"
{
    echo '# The exact versions that `make test` passes with. Remake: make constraints (newest versions), then make test.'
    echo '# torch is chosen by hand, on the line that names it.'
    "$1" -m uv pip compile --quiet --universal --python-version 3.10 --all-extras --no-annotate --no-header \
        --constraint "$tmp" pyproject.toml | grep -Ev '^(nvidia-|cuda-|triton)'
} > "$new"
cp "$new" constraints.txt
