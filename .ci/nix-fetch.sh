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
[[ $(id -u) == 0 ]] || give_up "this is not root"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || give_up "apt-get or dpkg-deb is missing"
mirror=${DEB_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | awk '/\/debian\/$/ { u = $0 } END { print u }')}
[[ $mirror ]] || give_up "apt knows no Debian mirror"

rm -rf "${dir:?}"/{fetch,root,bin}
state=$dir/fetch
mkdir -p "$state"/{lists/partial,cache/archives/partial} "$dir"/{root,bin,conf}
# No package counts as installed, so that every library comes along.
: >"$state/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$state/sources.list"
apt=(apt-get -qq -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State="$state" -o Dir::State::Lists="$state/lists"
  -o Dir::State::Status="$state/status" -o Dir::Cache="$state/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none
  -o Acquire::Check-Valid-Until=false -o APT::Install-Recommends=false -o Debug::NoLocking=1)
"${apt[@]}" update >&2 || give_up "apt-get could not read the package index of $suite"
"${apt[@]}" -y --download-only -o APT::Keep-Downloaded-Packages=true install nix-bin patchelf >/dev/null || give_up "apt-get could not download nix-bin"
for package in "$state"/cache/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -xf - -C "$dir/root" --keep-directory-symlink --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*'
done
rm -rf "$state"

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
