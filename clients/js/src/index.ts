/** The client for Whimbrel. */

import { Client } from './client';
import type { Options } from './types';

export { Client } from './client';
export { WhimbrelError } from './failure';
export type { Store } from './store';
export type * from './types';

/** A client that listens to streams, if there are any yet, and can publish. `M` maps event types to their data. */
export function connect<M = Record<string, any>>(options: Options = {}): Client<M> {
  return new Client<M>(options);
}
