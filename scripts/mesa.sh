#!/usr/bin/env bash
# Runs a program on the newest Mesa's software adapter (lavapipe), which Debian's unstable distribution ships, without
# installing it: the driver and every library below it are unpacked into a folder, and the program is started by that
# folder's own loader. For Debian and Ubuntu on x86-64; needs no root.
#
#     scripts/mesa.sh target/release/tilewise info
#
# MESA_ROOT is the folder (default: target/mesa; about 700 MB). MESA_SUITE is Debian's distribution (default: sid).
# Delete the folder to fetch it anew. Programs that start others find this script in TILEWISE_RUNNER.
set -euo pipefail

if [[ $# -eq 0 ]]; then
  echo "usage: $0 PROGRAM [ARGUMENT …]" >&2
  exit 2
fi
root=${MESA_ROOT:-$(cd "$(dirname "$0")/.." && pwd)/target/mesa}
suite=${MESA_SUITE:-sid}

# A package manager of its own, that knows of nothing installed, so that every dependency comes along.
fetch() {
  for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || { echo "$0: needs $tool (Debian or Ubuntu)" >&2; exit 1; }
  done
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg
  [[ -e $keys ]] || { echo "$0: needs $keys: apt-get install debian-archive-keyring" >&2; exit 1; }
  rm -rf "$root"
  mkdir -p "$root"/apt/{lists/partial,archives/partial} "$root/system"
  : >"$root/apt/status"
  echo "deb [arch=amd64 signed-by=$keys] http://deb.debian.org/debian $suite main" >"$root/apt/sources.list"
  local options=(
    -q -o APT::Architecture=amd64 -o Dir::Etc::SourceList="$root/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$root/apt/lists" -o Dir::State::Status="$root/apt/status"
    -o Dir::Cache="$root/apt" -o Dir::Cache::Archives="$root/apt/archives" -o APT::Sandbox::User=""
    -o APT::Install-Recommends=false -o Debug::NoLocking=true
  )
  apt-get "${options[@]}" update >&2
  apt-get "${options[@]}" install --yes --download-only mesa-vulkan-drivers libvulkan1 >&2
  for package in "$root"/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$root/system"
  done
  rm -rf "$root/apt/archives" "$root/apt/lists"
  touch "$root/complete"
}
[[ -e $root/complete ]] || fetch

libraries=$root/system/usr/lib/x86_64-linux-gnu
# The loader reads the driver's place from a file, which must name the unpacked one.
sed "s|\"library_path\": *\"[^\"]*\"|\"library_path\": \"$libraries/libvulkan_lvp.so\"|" \
  "$root/system/usr/share/vulkan/icd.d/lvp_icd.json" >"$root/lvp_icd.json"
export VK_DRIVER_FILES=$root/lvp_icd.json MESA_ROOT=$root
TILEWISE_RUNNER=$(realpath "$0")
export TILEWISE_RUNNER
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$@"
