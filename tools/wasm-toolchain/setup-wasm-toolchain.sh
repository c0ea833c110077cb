#!/usr/bin/env bash
# Makes a Rust compiler that can build for wasm32-wasip2, and says which one.
#
#   setup-wasm-toolchain.sh [--prefix DIR] [--fallback] [--rustup-add] [--check]
#
#   --prefix DIR      where the fallback goes (default: $WASM_TOOLCHAIN_DIR, or
#                     ${XDG_CACHE_HOME:-~/.cache}/wasm-toolchain)
#   --fallback        skip the search for an installed target; use the fallback
#   --rustup-add      let it run `rustup target add`, which downloads; never done unless
#                     asked for
#   --check           change nothing; exit 0 if a toolchain is ready, else 1
#
# On success it prints one line and writes DIR/env, a file to source, with
#   WASM_RUSTC    the compiler (give it to cargo as RUSTC)
#   WASM_TARGET   wasm32-wasip2
#   WASM_KIND     installed | fallback
#
# The order: (1) a rustc that has the target's standard library already, from
# rustup or a distribution; (2) `rustup target add`, if --rustup-add is given; (3) on
# Debian 12, the packaged compiler and its library source, from which the standard
# library is built once (about a minute of CPU, 80 MB). Packages that are missing or
# older than the plugins need are installed or upgraded, from fresh package lists.
set -euo pipefail

TARGET=wasm32-wasip2
HOST=x86_64-unknown-linux-gnu
PREFIX=${WASM_TOOLCHAIN_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/wasm-toolchain}
# The plugins' rust-version (Cargo.toml); an older packaged compiler is upgraded.
RUSTC_MIN=1.95
COMPONENT_LD_VERSION=0.5.21
FALLBACK=0 ADD=0 CHECK=0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

die() { echo "setup-wasm-toolchain: $*" >&2; exit 1; }
note() { [ -t 2 ] && echo "setup-wasm-toolchain: $*" >&2 || true; }

while [ $# -gt 0 ]; do
  case $1 in
    --prefix) PREFIX=${2:?--prefix needs a folder}; shift 2 ;;
    --fallback) FALLBACK=1; shift ;;
    --rustup-add) ADD=1; shift ;;
    --check) CHECK=1; shift ;;
    -h | --help) sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *) die "unknown option $1 (see --help)" ;;
  esac
done
case $PREFIX in /*) ;; *) PREFIX=$PWD/$PREFIX ;; esac
LOG=$PREFIX/setup.log

# Runs a step with its output in the log, and shows the end of it on failure.
step() {
  local what=$1; shift
  note "$what"
  if ! { echo "== $what"; "$@"; } >>"$LOG" 2>&1; then
    echo "setup-wasm-toolchain: failed: $what" >&2
    tail -n 15 "$LOG" | sed 's/^/    /' >&2
    die "the whole log is $LOG"
  fi
}

# Has the compiler $1 the target's standard library?
has_target() {
  local dir
  dir=$("$1" --print target-libdir --target $TARGET 2>/dev/null) || return 1
  compgen -G "$dir/libstd-*.rlib" >/dev/null
}

# Builds a real program: the header of a component ends in 0d 00 01 00.
works() {
  local dir rc=1
  dir=$(mktemp -d)
  echo 'fn main() { println!("{:?}", std::time::SystemTime::now()) }' >"$dir/t.rs"
  if "$1" --edition 2024 -O --target $TARGET -o "$dir/t.wasm" "$dir/t.rs" >"$dir/log" 2>&1 &&
    [ "$(head -c 8 "$dir/t.wasm" | od -An -tx1 | tr -d ' \n')" = 0061736d0d000100 ]; then
    rc=0
  else
    { echo "== test build with $1"; cat "$dir/log"; } >>"$LOG" 2>/dev/null || true
  fi
  rm -rf "$dir"
  return $rc
}

finish() { # KIND RUSTC
  mkdir -p "$PREFIX"
  printf 'export WASM_KIND=%q\nexport WASM_RUSTC=%q\nexport WASM_TARGET=%q\n' "$1" "$2" $TARGET >"$PREFIX/env.new"
  mv "$PREFIX/env.new" "$PREFIX/env"
  echo "wasm toolchain: $1, $("$2" --version), $TARGET ($PREFIX/env)"
  exit 0
}

# The compiler itself rather than rustup's proxy, which follows the folder.
real_rustc() {
  if command -v rustup >/dev/null && [ -z "${RUSTC:-}" ]; then
    rustup which rustc 2>/dev/null && return 0
  fi
  command -v "${RUSTC:-rustc}" || true
}

# Is version $1 (of a compiler or a package) at least RUSTC_MIN?
new_enough() {
  [ "$(printf '%s\n%s\n' "$RUSTC_MIN" "$1" | sort -V | head -n 1)" = "$RUSTC_MIN" ]
}

# --- 1 and 2: an installed target ---------------------------------------------
if [ $FALLBACK = 0 ]; then
  rustc=$(real_rustc)
  if [ -n "$rustc" ] && has_target "$rustc" && works "$rustc"; then
    [ $CHECK = 1 ] && { echo "wasm toolchain: installed, $("$rustc" --version)"; exit 0; }
    finish installed "$rustc"
  fi
fi

# --- the fallback, if it is ready -----------------------------------------------
# The stamp names all that the fallback is made of, so a change rebuilds it.
deb_rustc=/usr/bin/rustc
stamp() {
  "$deb_rustc" -vV 2>/dev/null
  dpkg-query -W -f '${Package} ${Version}\n' rust-web-src wasi-libc 2>/dev/null
  cat "$here/wasip2-compat.rs" "${BASH_SOURCE[0]}" | sha256sum
}
if [ -x "$PREFIX/bin/rustc" ] && [ -x $deb_rustc ] &&
  [ "$(stamp)" = "$(cat "$PREFIX/stamp" 2>/dev/null)" ]; then
  [ $CHECK = 1 ] && { echo "wasm toolchain: fallback, $("$PREFIX/bin/rustc" --version)"; exit 0; }
  finish fallback "$PREFIX/bin/rustc"
fi
[ $CHECK = 1 ] && { echo "wasm toolchain: none ready; run $0" >&2; exit 1; }

if [ $FALLBACK = 0 ] && [ $ADD = 1 ] && command -v rustup >/dev/null; then
  note "rustup target add $TARGET"
  if timeout 120 rustup target add $TARGET >/dev/null 2>&1; then
    rustc=$(real_rustc)
    has_target "$rustc" && works "$rustc" && finish installed "$rustc"
  fi
fi

# --- 3: the fallback --------------------------------------------------------------
how="Install the target yourself ('rustup target add $TARGET') and run this again."
command -v apt-get >/dev/null || die "no $TARGET library and no apt-get for the fallback. $how"
[ "$(uname -m)" = x86_64 ] || die "the fallback is for x86_64 only. $how"
mkdir -p "$PREFIX"
exec 9>"$PREFIX/lock"
flock -w 1200 9 || die "another run has held $PREFIX/lock for 20 minutes"
: >"$LOG"

# What version of package $1 is installed? Nothing if it is not.
installed() {
  dpkg-query -W -f '${db:Status-Status} ${Version}\n' "$1" 2>/dev/null | sed -n 's/^installed //p' || true
}
packages=()
for p in rustc-web cargo-web rust-web-src; do
  # The three are one release: one that is missing or too old takes the others along.
  v=$(installed "$p")
  if [ -z "$v" ] || ! new_enough "$v" || [ "$v" != "$(installed rustc-web)" ]; then
    packages=(rustc-web cargo-web rust-web-src)
  fi
done
for p in wasi-libc binutils; do
  [ -n "$(installed "$p")" ] || packages+=("$p")
done

# The two linkers: wasm-component-ld runs wasm-ld. Every rustup toolchain since
# 1.82 has both, whichever its targets.
find_linkers() {
  local d
  for d in "$(rustup run stable rustc --print sysroot 2>/dev/null || true)" \
    "${RUSTUP_HOME:-$HOME/.rustup}"/toolchains/*; do
    d=$d/lib/rustlib/$HOST/bin
    [ -x "$d/wasm-component-ld" ] && [ -x "$d/gcc-ld/wasm-ld" ] && { echo "$d"; break; }
  done
  return 0
}
linkers=$(find_linkers)
if [ -z "$linkers" ] && ! compgen -c wasm-ld- >/dev/null && ! command -v wasm-ld >/dev/null; then
  packages+=(lld-22)
fi

if [ ${#packages[@]} -gt 0 ]; then
  sudo=
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || die "these Debian packages are needed, and this is not root: apt-get install ${packages[*]}"
    sudo="sudo -n"
  fi
  export DEBIAN_FRONTEND=noninteractive
  # Stale lists offer the release's first compiler instead of the security update's.
  step "apt-get update" $sudo apt-get -q update
  for p in "${packages[@]}"; do
    apt-cache show "$p" >/dev/null 2>&1 ||
      die "this system has no package $p (rustc-web is in Debian 12's security updates). $how"
  done
  step "apt-get install ${packages[*]}" $sudo apt-get -q -y --no-install-recommends install "${packages[@]}"
fi

src=/usr/lib/rustlib/src/rust/library
about=$($deb_rustc -vV)
version=$(sed -n 's/^release: //p' <<<"$about")
[ -f $src/Cargo.lock ] || die "rust-web-src has no library source at $src"
[[ $about == *"host: $HOST"* ]] || die "$deb_rustc is not for $HOST"
new_enough "$version" ||
  die "$deb_rustc is $version and apt-get has none newer; the plugins need $RUSTC_MIN. $how"

new=$PREFIX/new
rm -rf "$new"
lib=$new/lib/rustlib/$TARGET/lib
mkdir -p "$new/bin" "$lib/self-contained" "$new/lib/rustlib/$HOST/bin" "$new/std/src"

# The linkers, where rustc looks for them.
if [ -n "$linkers" ]; then
  ln -s "$linkers"/* "$new/lib/rustlib/$HOST/bin/"
else
  wasm_ld=$(command -v wasm-ld || compgen -c wasm-ld- | sort -V | tail -n 1)
  ln -s "$(command -v "$wasm_ld")" "$new/lib/rustlib/$HOST/bin/wasm-ld"
  if ! command -v wasm-component-ld >/dev/null; then
    step "cargo install wasm-component-ld" env RUSTC=$deb_rustc CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
      CARGO_PROFILE_RELEASE_LTO=off CARGO_TARGET_DIR="$new/ld" /usr/bin/cargo install -q --locked \
      --version $COMPONENT_LD_VERSION --root "$PREFIX/tools" wasm-component-ld
    rm -rf "$new/ld"
    export PATH=$PREFIX/tools/bin:$PATH
  fi
  ln -s "$(command -v wasm-component-ld)" "$new/lib/rustlib/$HOST/bin/wasm-component-ld"
fi
# Build scripts and macros go on using the packaged host library.
ln -s /usr/lib/rustlib/$HOST/lib "$new/lib/rustlib/$HOST/lib"

# The standard library. embed-bitcode: plugins may be built with LTO.
cat >"$new/std/Cargo.toml" <<'TOML'
[package]
name = "std-probe"
version = "0.0.0"
edition = "2024"
[profile.release]
opt-level = 3
debug = false
[workspace]
TOML
: >"$new/std/src/lib.rs"
build_std() (
  cd "$new/std"
  unset RUSTC_WRAPPER CARGO_BUILD_RUSTC_WRAPPER CARGO_BUILD_TARGET CARGO_ENCODED_RUSTFLAGS
  export RUSTC_BOOTSTRAP=1 RUSTC=$deb_rustc RUSTFLAGS="-Cembed-bitcode=yes" CARGO_TARGET_DIR=$new/std/target
  /usr/bin/cargo build --release --target $TARGET -Zbuild-std=std,panic_abort
)
step "build the standard library for $TARGET" build_std
cp "$new/std/target/$TARGET/release/deps/"*.rlib "$lib/"
rm -rf "$lib"/libstd_probe* "$new/std"

printf '#!/bin/sh\nexec %s --sysroot %q "$@"\n' $deb_rustc "$PREFIX" >"$new/bin/rustc"
chmod +x "$new/bin/rustc"

# The C library, with the functions that this older one lacks.
cp /usr/lib/wasm32-wasi/crt1-command.o /usr/lib/wasm32-wasi/crt1-reactor.o \
  /usr/lib/wasm32-wasi/libc.a "$lib/self-contained/"
step "build the C library's missing functions" env RUSTC_BOOTSTRAP=1 $deb_rustc --sysroot "$new" --edition 2024 \
  --target $TARGET -O -Cpanic=abort -Ccodegen-units=1 --crate-type lib --emit obj \
  -o "$lib/self-contained/compat.o" "$here/wasip2-compat.rs"
step "add them to libc.a" ar rS "$lib/self-contained/libc.a" "$lib/self-contained/compat.o"

rm -rf "$PREFIX/lib" "$PREFIX/bin"
mv "$new/lib" "$new/bin" "$PREFIX/"
rmdir "$new"
works "$PREFIX/bin/rustc" || { tail -n 15 "$LOG" >&2; die "the fallback was built and does not work; the log is $LOG"; }
stamp >"$PREFIX/stamp"
finish fallback "$PREFIX/bin/rustc"
