/** The names of streams: `device:NAME` and `topic:NAME`. */

import { WhimbrelError } from './failure.js';

/** A stream's kind and name. */
export function partsOf(stream: string): string[] {
  const parts = /^(device|topic):(.+)/.exec(stream);
  if (!parts) throw new WhimbrelError({ code: 'invalid-name', detail: `'${stream}' is not device:NAME or topic:NAME` });
  return parts.slice(1);
}
