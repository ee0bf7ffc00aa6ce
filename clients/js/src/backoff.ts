const FIRST = 500;
const MOST = 30_000;

/** Milliseconds to wait after so many failures in a row: growing, jittered, and never before `hint`. */
export function backoff(failures: number, hint = 0, random = Math.random): number {
  const most = Math.min(MOST, FIRST * 2 ** failures);
  return Math.max(hint, most * (0.5 + random() / 2));
}
