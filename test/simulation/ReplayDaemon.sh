#!/bin/sh
# The daemon of a replay as one executable. exec keeps the pid: a Hello must name the process that was started.
exec "$INTEROP_NODE" --conditions=@handoff/source "${0%/*}/ReplayDaemon.ts" "$@"
