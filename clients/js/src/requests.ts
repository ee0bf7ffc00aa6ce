/** What a page loads when it first needs it: publishing, acknowledging, snapshots, members. */

import { type Connected, type Watchers, follow } from './presence.js';
import { acknowledger, publisher } from './publish.js';
import type { Service } from './request.js';
import { snapshot } from './snapshot.js';
import type { Store } from './store.js';
import type { Load, Member } from './types.js';

/** Made once for a client: publishing and acknowledging keep their order. */
export function requests(service: Service) {
  return {
    publish: publisher(service),
    ack: acknowledger(service),
    snapshot: <V>(streams: string[], load: Load<V>) => snapshot(service, streams, load),
    follow: (topic: string, store: Store<Member[]>, client: Connected, watchers: Watchers) =>
      follow(topic, store, client, service, watchers),
  };
}

export type Requests = ReturnType<typeof requests>;
