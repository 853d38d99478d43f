/**
 * The backend of the command: the one module that names it.
 */
import * as FfiBackend from "@handoff/backend-ffi/FfiBackend"

export const layer = FfiBackend.layer
