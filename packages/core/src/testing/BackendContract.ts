/**
 * What every backend must do, as cases for any test runner: each has a name and an Effect that fails with what is wrong.
 *
 * Cases are grouped by the service they examine, so that a backend which brings one service is asked about that one. A
 * harness brings what the contract leaves out: a program that reports on itself, and a look at leaks ({@link Harness}).
 * What a backend declares not to have is asked for too: it must be refused by name, with nothing started.
 *
 * @example
 * for (const { name, run } of BackendContract.launcherCases) {
 *   it(name, () => Effect.runPromise(run.pipe(Effect.provide([myLauncher, myHarness]))))
 * }
 */
export {
  type Behaviour,
  type Command,
  type ContractCase,
  ContractViolation,
  Harness,
  type Observer,
  type Verdict
} from "./contract/Case.ts"
export { channelCases } from "./contract/ChannelCases.ts"
export { launcherCases } from "./contract/LauncherCases.ts"
export {
  executableCases,
  fileCases,
  lockCases,
  notificationCases,
  processCases,
  socketCases
} from "./contract/ServiceCases.ts"
export { survivalCases } from "./contract/SurvivalCases.ts"
