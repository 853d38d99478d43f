/** The warnings of this process, from here on: each is heard a turn after it was given. */
export const warnings = () => {
  const heard: Array<string> = []
  const hear = ({ message }: Error) => heard.push(message)
  process.on("warning", hear)
  return { heard, [Symbol.dispose]: () => process.off("warning", hear) }
}
