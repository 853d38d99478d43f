/**
 * Error numbers of Linux on x86-64 and arm64, which number them alike (asm-generic/errno.h), and their names.
 *
 * Where two names share a number the one that errno(3) lists first is used: EAGAIN (not EWOULDBLOCK), EDEADLK, EOPNOTSUPP.
 */
import type { ErrnoName } from "@handoff/core/Errno"

const ERRNO_NAMES =
  "EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST " +
  "EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE " +
  "EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP - ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH " +
  "ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT - EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE " +
  "ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD " +
  "ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT " +
  "EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH " +
  "ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN " +
  "EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE " +
  "ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON"

const names: ReadonlyArray<string> = ["-", ...ERRNO_NAMES.split(" ")]

const numbers: ReadonlyMap<string, number> = new Map([
  ...names.map((name, index): [string, number] => [name, index]),
  ["EWOULDBLOCK", 11],
  ["EDEADLOCK", 35],
  ["ENOTSUP", 95]
])

/** The name of an error number: `name(9)` is `"EBADF"`; a number without a name is written `"E" + number`. */
export const name = (number: number): ErrnoName => {
  const known = names[number]
  return known === undefined || known === "-" ? `E${number}` : (known as ErrnoName)
}

/** The number of an error name, or undefined: `number("EBADF")` is 9, `number("E4000")` is 4000. */
export const number = (name: ErrnoName): number | undefined => {
  const known = numbers.get(name)
  if (known !== undefined) return known
  return /^E[0-9]+$/.test(name) ? Number(name.slice(1)) : undefined
}
