#!/bin/sh
# Makes sure that this machine has a GPU adapter: asks the program given as $1, and on Debian and Ubuntu installs Mesa's
# software Vulkan driver if there is none. Elsewhere it says what to install.
set -eu
tilewise=$1

if "$tilewise" info --brief 2>/dev/null; then
    exit 0
fi

echo "This machine has no GPU adapter that wgpu can use."
if ! command -v apt-get >/dev/null 2>&1; then
    cat >&2 <<'TEXT'
Install a Vulkan driver and run the command again. Software drivers, which need no GPU:
  Fedora   sudo dnf install mesa-vulkan-drivers vulkan-loader
  Arch     sudo pacman -S vulkan-swrast vulkan-icd-loader
  Alpine   sudo apk add mesa-vulkan-swrast vulkan-loader
  Windows  DirectX 12's software adapter (WARP) is part of the system: update Windows
  macOS    Metal is part of the system: macOS 10.15 or newer on supported hardware
TEXT
    exit 1
fi

sudo=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "Run as root: apt-get update && apt-get install mesa-vulkan-drivers" >&2
        exit 1
    fi
    sudo=sudo
fi
echo "Installing Mesa's software Vulkan driver: $sudo apt-get install mesa-vulkan-drivers"
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mesa-vulkan-drivers >/dev/null
"$tilewise" info --brief
