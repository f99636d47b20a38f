#!/usr/bin/env bash
# nix-fetch.sh FOLDER: puts a Nix into FOLDER that runs from there, with a store of its own; nothing is installed. FOLDER/env sets what it needs.
#
# It is Debian's, of a suite whose Nix is recent enough (NIX_SUITE), with that suite's libraries beside it, so that this machine's may be older. A second
# run does nothing. A Nix on PATH is not used: its store would fill with what is made here from stand-ins.
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd) suite=${NIX_SUITE:-trixie}

give_up() {
  printf 'nix-fetch.sh: %s\nnix-fetch.sh: it needs an x86_64 Debian-like machine, root, and a mirror that has %s (set DEB_MIRROR).\n' "$1" "$suite" >&2
  exit 1
}

works() { [[ -x $dir/bin/nix && -f $dir/env ]] && "$dir/bin/nix" --version >/dev/null 2>&1; }
works && exit 0

[[ $(uname -m) == x86_64 ]] || give_up "this is not x86_64"
rm -rf "${dir:?}/bin"
mkdir -p "$dir"/{bin,conf}
"$(dirname "${BASH_SOURCE[0]}")/deb" closure "$suite" "$dir/root" nix-bin patchelf || give_up "the Nix of $suite could not be fetched"

# The program is told where its loader and libraries are.
libraries=$dir/root/usr/lib/x86_64-linux-gnu
loader=$libraries/ld-linux-x86-64.so.2
"$loader" --library-path "$libraries" "$dir/root/usr/bin/patchelf" --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" \
  --output "$dir/bin/nix" "$dir/root/usr/bin/nix"
for name in build store hash instantiate shell; do ln -sf nix "$dir/bin/nix-$name"; done

# No cache, no registry, no builders' users: what is not here is not to be had.
printf '%s\n' 'experimental-features = nix-command flakes' 'sandbox = false' 'build-users-group =' 'substituters =' 'flake-registry =' \
  >"$dir/conf/nix.conf"
cat >"$dir/env" <<EOF
export PATH=$dir/bin:\$PATH NIX_CONF_DIR=$dir/conf NIX_STORE_DIR=$dir/store NIX_STATE_DIR=$dir/var/nix NIX_LOG_DIR=$dir/var/log XDG_CACHE_HOME=$dir/cache
EOF
works || give_up "the Nix of $suite does not run here"
"$dir/bin/nix" --version >&2
