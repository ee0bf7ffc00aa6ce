/** Hooks. They follow in effects alone, so nothing happens on a server, and StrictMode's second mount costs nothing. */

import { useEffect, useRef, useState } from 'react';
import type { Client } from './client.js';
import type { EventOf, Member, Stream } from './types.js';

/**
 * The events of a stream, folded into a value that begins as `initial`: with every event, or with those after
 * `after`. While no component follows a stream, nothing of it is loaded.
 */
export function useStream<V, M>(
  client: Client<M>,
  stream: Stream,
  reduce: (value: V, event: EventOf<M>) => V,
  initial: V,
  after?: string,
): V {
  const [value, setValue] = useState(initial);
  const latest = useRef({ reduce, initial });
  const followed = useRef(stream);
  useEffect(() => {
    latest.current = { reduce, initial };
  });
  useEffect(() => {
    if (followed.current != stream) setValue(latest.current.initial);
    followed.current = stream;
    const off = client.on('*', (event) => {
      if ((event as { stream: Stream }).stream == stream) setValue((value) => latest.current.reduce(value, event));
    });
    const unsubscribe = client.subscribe(stream, after);
    return () => {
      unsubscribe();
      off();
    };
  }, [client, stream, after]);
  return value;
}

/** Who is in a topic. The client is made with `members: true`, and follows the topic. */
export function usePresence(client: Client<any>, topic: Stream): Member[] {
  const [members, setMembers] = useState<Member[]>([]);
  useEffect(() => {
    const off = client.presence(topic).subscribe(setMembers);
    const unsubscribe = client.subscribe(topic);
    return () => {
      unsubscribe();
      off();
    };
  }, [client, topic]);
  return members;
}
