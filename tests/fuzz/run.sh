#!/bin/sh
# Builds the fuzz targets and runs each for a while: run.sh SECONDS DIRECTORY [TARGET...]. What was found before is kept
# in DIRECTORY, with the build. `cargo fuzz` is on the PATH. Ends at the first finding.
set -eu
cd "$(dirname "$0")/../.."
seconds=$1 directory=$2
shift 2
here=tests/fuzz
[ $# -gt 0 ] || set -- $(cd $here/fuzz_targets && ls *.rs | grep -v careful | sed 's/\.rs$//')
# A stable compiler has the sanitizers as well.
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$directory/build"
for target in "$@"; do
  corpus=$directory/corpus/$target seeds='' options=''
  mkdir -p "$corpus"
  case $target in
  gguf | model)
    seeds=$here/seeds/gguf options=-dict=$here/gguf.dict
    # The headers of real files.
    for file in tiny-e2b-q8_0 tiny-e2b-mtp-q8_0 tiny-e2b-mmproj-f16; do
      head -c 140K models/tiny/$file.gguf > "$corpus/$file"
    done
    ;;
  picture | sound) seeds=tests/data/${target}s ;;
  *) [ ! -d "$here/seeds/$target" ] || seeds=$here/seeds/$target ;;
  esac
  [ "$target" != vocabulary ] || options=-dict=$here/gguf.dict
  case $target in
  picture | sound) options="$options -timeout=10 -rss_limit_mb=1024" ;;
  document | archive | docx | xlsx | pptx | opendocument | epub | rtf | mail | notebook | table) options="$options -timeout=60 -rss_limit_mb=2048" ;;
  schema | template) options="$options -timeout=30 -rss_limit_mb=2048 -max_len=4096" ;;
  answer | body | bus | catalog | form | frames | hub | kept | packed | prompt | strict | token | vocabulary)
    options="$options -timeout=10 -rss_limit_mb=1024 -max_len=16384"
    ;;
  model) options="$options -timeout=60 -rss_limit_mb=1024" ;;
  esac
  echo "== $target, $seconds s"
  # shellcheck disable=SC2086
  cargo fuzz run --fuzz-dir $here "$target" "$corpus" $seeds -- -max_total_time="$seconds" -print_final_stats=1 $options
done
