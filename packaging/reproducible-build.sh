#!/usr/bin/env bash
# Builds the static programs twice, in two different folders, and says whether they are the same
# to the last bit. Needs Rust, a C linker with static glibc, and binutils; the network only for
# crates that cargo does not have yet.
set -euo pipefail
exec </dev/null

usage() {
  cat <<'TEXT'
usage: packaging/reproducible-build.sh [--once] [--worktree] [--out DIR]

  --once      build once only; prints digests to compare with somebody else's
  --worktree  take the files as they are now, not the last commit
  --out DIR   put saltbridged, salt-bridge and SHA256SUMS there
TEXT
}

top=$(cd "$(dirname "$0")/.." && pwd)
target=x86_64-unknown-linux-gnu
# The most bytes of the program of dom0.
most_bytes=6000000
builds=2 worktree='' out=''
while [ $# -gt 0 ]; do
  case $1 in
    --once) builds=1 ;;
    --worktree) worktree=1 ;;
    --out) out=$(mkdir -p -- "${2:?--out needs a folder}" && cd -- "$2" && pwd) && shift ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

# The sources, without anything that was built: of the last commit where there is one. Packed
# once, since somebody may commit or write meanwhile.
if [ -e "$top/.git" ] && [ -z "$worktree" ]; then
  git -C "$top" archive HEAD >"$work/sources.tar"
else
  tar -c -C "$top" --exclude=./target --exclude=./.git . >"$work/sources.tar"
fi

# build FOLDER: no name of a folder of this machine may get into the programs.
build() (
  cd -- "$1"
  home=${CARGO_HOME:-$HOME/.cargo}
  unset RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER CARGO_ENCODED_RUSTFLAGS
  export CARGO_TARGET_DIR=$1/target CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never
  export SOURCE_DATE_EPOCH=1 LC_ALL=C TZ=UTC
  # Split at spaces by cargo.
  export RUSTFLAGS="-C target-feature=+crt-static -Awarnings \
    --remap-path-prefix=$home=/cargo --remap-path-prefix=$1=/salt-bridge"
  # One package at a time, so that neither gets features that only the other asked for.
  for package in qubes-rpc salt-bridge; do
    cargo build --quiet --release --locked --target "$target" --package "$package" --bins
  done
)

# Says what is wrong with a program, if anything is.
faults() {
  local program=$1 name=${1##*/} found
  if readelf --program-headers --wide "$program" | grep -q INTERP ||
    readelf --dynamic --wide "$program" | grep -q NEEDED; then
    printf '%s is not statically linked\n' "$name"
  fi
  if readelf --sections --wide "$program" | grep -q -e '\.symtab' -e '\.debug_'; then
    printf '%s is not stripped\n' "$name"
  fi
  # getpwnam, getaddrinfo and their like open these by name, which then stands in the program.
  # The bare name of /etc/resolv.conf means less: glibc's resolver state, without a look-up.
  found=$(strings -a "$program" | grep -E 'nsswitch\.conf|libnss_|/etc/gai\.conf' | sort -u) || true
  if [ -n "$found" ]; then
    printf '%s holds the name service switch of glibc: %s\n' "$name" "${found//$'\n'/, }"
  fi
  found=$(strings -a "$program" | grep -F -e "$work" -e "${CARGO_HOME:-$HOME/.cargo}/" | head -3) || true
  if [ -n "$found" ]; then
    printf '%s holds folders of this machine: %s\n' "$name" "${found//$'\n'/, }"
  fi
  if [ "$name" = saltbridged ] && [ "$(stat -c %s -- "$program")" -ge "$most_bytes" ]; then
    printf '%s must stay below %s bytes\n' "$name" "$most_bytes"
  fi
}

programs=(saltbridged salt-bridge)
folders=("$work/one" "$work/with-another-name/and-depth/two")
for ((number = 0; number < builds; number++)); do
  folder=${folders[number]}
  mkdir -p -- "$folder"
  tar -x -C "$folder" -f "$work/sources.tar"
  build "$folder"
  printf 'build %d\n' $((number + 1))
  for name in "${programs[@]}"; do
    program=$folder/target/$target/release/$name
    printf '  %s  %9s bytes  %s\n' "$(sha256sum <"$program" | cut -d ' ' -f 1)" \
      "$(stat -c %s -- "$program")" "$name"
  done
done

wrong=$(
  for name in "${programs[@]}"; do
    first=${folders[0]}/target/$target/release/$name
    faults "$first"
    if [ "$builds" -eq 2 ]; then
      cmp -s -- "$first" "${folders[1]}/target/$target/release/$name" ||
        printf '%s differs between the two builds\n' "$name"
    fi
  done
)
if [ -n "$wrong" ]; then
  printf '%s\n' "$wrong"
  exit 1
fi
if [ -n "$out" ]; then
  for name in "${programs[@]}"; do
    install -m 0755 -- "${folders[0]}/target/$target/release/$name" "$out/$name"
  done
  (cd -- "$out" && sha256sum "${programs[@]}" >SHA256SUMS)
fi
[ "$builds" -eq 1 ] && same='' || same=', the same in both builds'
printf 'static, stripped, no name service switch, saltbridged below %s bytes%s\n' "$most_bytes" "$same"
