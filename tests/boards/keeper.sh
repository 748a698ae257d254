#!/bin/bash
# Holds what a board keeps between boots (a layer in memory over its root) and starts and kills the board:
# "up" and "down" are read from standard input. When that ends, however the tests ended, all of it is gone.
#   keeper.sh ROOT STATE NAME        as: unshare --mount keeper.sh …
root=$1 state=$2 name=$3 board=
mount --make-rprivate / && mkdir -p "$state/layer" && mount -t tmpfs -o size=2g,mode=755 tmpfs "$state/layer" || exit 1
down() {
  [ -z "$board" ] || { kill -KILL "$board"; wait "$board"; } 2>/dev/null
  board=
}
while read -r word; do
  case $word in
    up)
      unshare --mount --uts --ipc --pid --fork --kill-child=KILL bash "${0%/*}/init.sh" "$root" "$state" "$name" \
        >> "$state/log" 2>&1 < /dev/null &
      board=$!
      ;;
    down) down ;;
  esac
  echo "$word"
done
down
