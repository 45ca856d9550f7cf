#!/bin/sh
# Reads a report of `tilewise bench --json` and prints a name for its adapter and driver that a file can have, such as
# llvmpipe-mesa-22.3.6: their names up to a bracket, no word twice.
set -eu
sed -n 's/^  "\(adapter\|driver\)": "\([^"(]*\).*/\2/p' | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9.' '\n' |
    awk 'NF && !seen[$0]++' | paste -sd- -
