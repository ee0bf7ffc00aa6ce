/** A snapshot, and the cursor from which events complete it. */

import { call } from './call.js';
import type { Service } from './request.js';
import { streamParameters } from './transport/frame.js';
import type { Load } from './types.js';

/** Takes the cursor first: what happens while the snapshot is loaded comes as an event too, and nothing is missed. */
export async function snapshot<V>(service: Service, streams: string[], load: Load<V>): Promise<{ cursor: string; value: V }> {
  // A connection to these streams would be refused too.
  const at = await call(service, `/v1/cursor?${streamParameters(streams)}`, { refused: service.end });
  return { cursor: at.cursor, ...(await load(at)) };
}
