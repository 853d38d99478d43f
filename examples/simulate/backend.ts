/**
 * A backend of one's own, as the system calls it makes: does a supervisor on it keep what it has promised?
 */
import * as Explorer from "@handoff/core/testing/Explorer"
import * as World from "@handoff/core/testing/World"

/** As the shipped one, but that it takes a rename for durable without a sync of the directory. */
export const hasty: World.Backend = {
  ...World.linux,
  name: "hasty",
  replace: (calls, path, text) => World.linux.replace(World.skipping("fsync directory", calls), path, text)
}

/** Every order of events of one swap, in which the power may fail once at any moment. */
export const explore = (backend: World.Backend) =>
  Explorer.explore(World.make({ mode: "overlap", faults: 1, kinds: ["power"], aborts: 0, backend }))

if (import.meta.main) {
  for (const one of [hasty, World.linux]) {
    const { broken, states } = explore(one)
    console.log(broken === undefined ? `${one.name}: ${states} states, all as promised` : Explorer.explain(broken))
  }
}
