// Event ids, `ms-seq`, compared as they are: either part may exceed what a Number holds exactly.

/** `[ms, seq]` as BigInts, or null. */
export function parseId(text) {
  const parts = /^(\d+)-(\d+)$/.exec(text ?? "");
  return parts && [BigInt(parts[1]), BigInt(parts[2])];
}

/** Whether id `a` comes after id `b`; a missing id comes before all others. */
export function isAfter(a, b) {
  const [x, y] = [parseId(a), parseId(b)];
  if (!x || !y) return Boolean(x);
  return x[0] === y[0] ? x[1] > y[1] : x[0] > y[0];
}

export const later = (a, b) => (isAfter(b, a) ? b : a);

/** When the event was stored, in milliseconds since 1970. */
export const timeOf = (id) => Number(parseId(id)?.[0] ?? 0n);
