#!/usr/bin/env bash
# Runs tests and leaves nothing behind, also when interrupted: namespaces, processes and folders
# of test processes that are gone. Those of another run that is still under way stay.
#   run.sh COMMAND…; each argument is a command line; all are run, the first failure is kept.
set -uo pipefail

sweep() {
  trap - EXIT INT TERM
  local name pid
  for name in $(ip netns list 2>/dev/null | awk '/^vst-/ {print $1}'); do
    pid=${name#vst-}
    pid=${pid%%-*}
    kill -0 "$pid" 2>/dev/null && continue
    ip netns pids "$name" 2>/dev/null | xargs -r kill -KILL 2>/dev/null
    ip netns del "$name" 2>/dev/null
  done
  for name in "${TMPDIR:-/tmp}"/vswitch-test-*; do
    pid=${name##*/vswitch-test-}
    pid=${pid%%-*}
    [ -d "$name" ] && ! kill -0 "$pid" 2>/dev/null && rm -rf "$name"
  done
}
trap sweep EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed=0
for command in "$@"; do
  bash -c "$command" || failed=${failed/#0/$?}
done
exit "$failed"
