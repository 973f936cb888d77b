#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# format, db, reader and the inspection tools build without Torch and CUDA, install, and serve another
# project, whose source is the README's C++ example.
#
#   core_build.sh SOURCE_DIR SCRATCH_DIR
set -euo pipefail
source=$1 scratch=$2
rm -rf "$scratch"
launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)

cmake -S "$source" -B "$scratch/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DFKDB_TORCH=OFF -DFKDB_CUDA=OFF -DFKDB_CONVERT=OFF -DFKDB_WERROR=ON \
  "${launcher[@]}" >/dev/null
begun=$SECONDS
cmake --build "$scratch/build" >/dev/null
echo "core built in $((SECONDS - begun)) s"
cmake --install "$scratch/build" --prefix "$scratch/prefix" >/dev/null

built=$(cd "$scratch/prefix/bin" && echo *)
[ "$built" = "fkdb-audit fkdb-dump fkdb-merge fkdb-share fkdb-subset fkdb-verify" ] || { echo "installed programs: $built"; exit 1; }
for program in "$scratch"/prefix/bin/*; do
  if ldd "$program" | grep -E 'torch|cuda'; then echo "$program links Torch or CUDA"; exit 1; fi
  "$program" --version
done

cmake -S "$source/tests/house/consumer" -B "$scratch/consumer" -G Ninja -DCMAKE_PREFIX_PATH="$scratch/prefix" >/dev/null
cmake --build "$scratch/consumer" >/dev/null
[ "$("$scratch/consumer/consumer" /no/such.fkdb 2>&1)" = "/no/such.fkdb: no such file" ]

# The README shows this very program.
awk '/^```cpp$/{inside=1; next} /^```$/{inside=0} inside' "$source/README.md" | diff - "$source/tests/house/consumer/main.cc"
