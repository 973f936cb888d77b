# SPDX-License-Identifier: Apache-2.0
# What tools/build, tools/test and tools/quickstart share; sourced by them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
venv=$root/.venv
build=$root/build/release

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# install_packages NAME..: Debian packages; only those that are missing.
install_packages() {
  command -v apt-get >/dev/null || die "needs apt-get (Debian 12 or newer, Ubuntu 24.04 or newer); on other systems install the libraries that README.md lists and run cmake by hand"
  local missing=() sudo=()
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null)" = "install ok installed" ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "needs root or sudo to install: ${missing[*]}"
    sudo=(sudo)
  fi
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# install_python FILE: a requirements file into the virtual environment, once for each content.
install_python() {
  local stamp
  # A virtual environment holds its own path: one that was moved or copied is made again.
  if [ "$(cat "$venv/.made-at" 2>/dev/null)" != "$venv" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    echo "$venv" >"$venv/.made-at"
  fi
  stamp=$venv/.installed-$(sha256sum < "$1" | cut -c1-16)
  [ -e "$stamp" ] && return
  say "installing $1 into .venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -r "$1"
  touch "$stamp"
}

# One of these commands at a time in this tree.
take_turn() {
  mkdir -p "$root/build"
  exec 9>"$root/build/.lock"
  flock -n 9 || { say "waiting for another build in this tree"; flock 9; }
}
