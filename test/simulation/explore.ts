/**
 * Explores the handoff from the command line: `npm run explore -- --mode sealed --faults 2`.
 *
 *   --mode MODE      sealed, overlap, exclusive; default: all three
 *   --faults N       how many faults may happen [1]
 *   --kinds A,B      only faults of these kinds (see packages/core/src/testing/world/Settings.ts)
 *   --swaps N        how many swaps may be asked for [1]
 *   --aborts N       how many aborts [1]
 *   --stops N        how often the supervisor may be stopped [0]
 *   --writes N       how many writes clients may send [1]
 *   --states N       stop at so many states
 *
 * Exits with status 1 when a property is broken, after printing a shortest trace.
 */
import { parseArgs } from "node:util"
import * as Explorer from "@handoff/core/testing/Explorer"
import * as World from "@handoff/core/testing/World"

const { values } = parseArgs({
  options: {
    mode: { type: "string" },
    faults: { type: "string", default: "1" },
    kinds: { type: "string" },
    swaps: { type: "string", default: "1" },
    aborts: { type: "string", default: "1" },
    stops: { type: "string", default: "0" },
    writes: { type: "string", default: "1" },
    states: { type: "string", default: "50000000" }
  }
})

const modes = (["sealed", "overlap", "exclusive"] as const).filter((mode) => (values.mode ?? mode) === mode)
const wanted = values.kinds?.split(",")
const kinds = World.faultKinds.filter((kind) => wanted === undefined || wanted.includes(kind))

/** Time on the processor: what else the machine does is not counted. */
const clock = (): number => process.cpuUsage().user / 1000

for (const mode of modes) {
  const model = World.make({
    mode,
    kinds,
    faults: Number(values.faults),
    swaps: Number(values.swaps),
    aborts: Number(values.aborts),
    stops: Number(values.stops),
    writes: Number(values.writes)
  })
  const result = Explorer.explore(model, { maxStates: Number(values.states), clock })
  console.log(Explorer.summary(`${mode}, ${values.swaps} swap(s), ${values.faults} fault(s)`, result))
  if (result.broken === undefined) continue
  console.log(Explorer.explain(result.broken))
  const last = Explorer.replay(model, result.broken.trace).state
  console.log(`in the end: ${model.unsettled(last) ?? "at rest"}`)
  process.exitCode = 1
}
