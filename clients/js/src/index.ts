/** The client for Whimbrel. */

import { Client } from './client.js';
import type { Options } from './types.js';

export { Client } from './client.js';
export { WhimbrelError } from './failure.js';
export type { Store } from './store.js';
export type * from './types.js';

/** A client that listens to streams, if there are any yet, and can publish. `M` maps event types to their data. */
export function connect<M = Record<string, any>>(options: Options = {}): Client<M> {
  return new Client<M>(options);
}
