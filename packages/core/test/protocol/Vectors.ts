/** The frames the Rust crate made (`vectors.json`), as this project's values. */
import { readFileSync } from "node:fs"
import type { Message, Role } from "@handoff/core/protocol/Message"

export type Json = string | number | boolean | null | ReadonlyArray<Json> | { readonly [key: string]: Json }
export type Fields = { readonly [key: string]: Json }

const file = readFileSync(new URL("./vectors.json", import.meta.url), "utf8")
export const vectors: ReadonlyArray<Fields> = JSON.parse(file)

export const ofKind = (kind: string): ReadonlyArray<Fields> => vectors.filter((one) => one.kind === kind)

export const isFields = (value: Json | undefined): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

export const text = (value: Json | undefined): string => {
  if (typeof value === "string") return value
  if (isFields(value) && typeof value.$repeat === "string") return value.$repeat.repeat(Number(value.$count))
  throw new Error(`not a string: ${JSON.stringify(value)}`)
}

export const list = (value: Json | undefined): ReadonlyArray<Json> => {
  if (Array.isArray(value)) return value
  throw new Error(`not a list: ${JSON.stringify(value)}`)
}

export const fields = (value: Json | undefined): Fields => {
  if (isFields(value)) return value
  throw new Error(`not an object: ${JSON.stringify(value)}`)
}

export const bytes = (value: Json | undefined): Uint8Array => Uint8Array.from(Buffer.from(text(value), "hex"))
export const hex = (value: Uint8Array): string => Buffer.from(value).toString("hex")

const bigints = (value: Json | undefined): ReadonlyArray<bigint> => list(value).map((one) => BigInt(text(one)))
const role = (value: Json | undefined): Role => (text(value) === "Incumbent" ? "Incumbent" : "Successor")

/** A message as the vectors write it. */
export const message = (value: Json | undefined): Message => {
  const from = fields(value)
  const handoffId = from.handoff_id === undefined ? "" : text(from.handoff_id)
  const _tag = text(from.type)
  switch (_tag) {
    case "Hello":
      return {
        _tag,
        role: role(from.role),
        pid: Number(from.pid),
        buildId: bytes(from.build_id),
        protoMin: Number(from.proto_min),
        protoMax: Number(from.proto_max),
        capabilities: { reserved: BigInt(text(fields(from.capabilities).reserved)) }
      }
    case "HelloAck":
      return { _tag, protoVersionChosen: Number(from.proto_version_chosen), handoffId }
    case "PrepareHandoff":
      return {
        _tag,
        handoffId,
        successorPid: Number(from.successor_pid),
        deadlineMs: BigInt(text(from.deadline_ms)),
        drainGraceMs: BigInt(text(from.drain_grace_ms))
      }
    case "Drained":
      return {
        _tag,
        openConnsRemaining: Number(from.open_conns_remaining),
        acceptClosed: from.accept_closed === true
      }
    case "SealProgress":
      return {
        _tag,
        shardsSealed: Number(from.shards_sealed),
        shardsTotal: Number(from.shards_total),
        lastRevision: BigInt(text(from.last_revision))
      }
    case "SealComplete":
      return {
        _tag,
        handoffId,
        lastRevisionPerShard: bigints(from.last_revision_per_shard),
        dataDirFingerprint: bytes(from.data_dir_fingerprint)
      }
    case "SealFailed":
      return { _tag, handoffId, error: text(from.error), partialState: text(from.partial_state) }
    case "Ready":
      return {
        _tag,
        handoffId,
        listeningOn: list(from.listening_on).map(text),
        healthzOk: from.healthz_ok === true,
        advertisedRevisionPerShard: bigints(from.advertised_revision_per_shard)
      }
    case "Abort":
      return { _tag, handoffId, reason: text(from.reason) }
    case "SealRequest":
    case "Begin":
    case "Commit":
    case "ResumeAfterAbort":
      return { _tag, handoffId }
    case "Heartbeat":
      return { _tag, tsMs: BigInt(text(from.ts_ms)) }
    default:
      throw new Error(`unknown message ${_tag}`)
  }
}
