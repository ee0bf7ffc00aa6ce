/** What an application sees: events, gaps, options. */

/** `device:NAME` or `topic:NAME`. */
export type Stream = `device:${string}` | `topic:${string}`;

/** An event as it was published. */
export interface Event<T = unknown, K extends string = string> {
  stream: Stream;
  /** Missing where the event is ephemeral. */
  id?: string;
  type: K;
  /** When it was stored, in RFC 3339; missing where the event is ephemeral. */
  time?: string;
  data: T;
}

/** The events of a map from type to data: `EventOf<{ price: Price; message: string }>`. */
export type EventOf<M> = { [K in keyof M & string]: Event<M[K], K> }[keyof M & string];

/** Events after `after` and before `next` can't be delivered any more. */
export interface Gap {
  stream: Stream;
  after: string;
  next: string;
  reason: 'trimmed' | 'expired' | 'lost';
}

/** A device that follows a topic as a member. */
export interface Member {
  device: string;
  info?: unknown;
}

/** `idle` without streams, `waiting` between two attempts, `closed` for good. */
export type Status = 'idle' | 'authorizing' | 'connecting' | 'open' | 'waiting' | 'closed';

/** How events come. `sse` is Server-Sent Events by `fetch`, and `post` the same with `POST` in place of `GET`. */
export type TransportName = 'sse' | 'post' | 'eventsource' | 'websocket';

/** Keeps the cursor: `localStorage`, `sessionStorage`, or anything of their shape, also with promises. */
export interface CursorStorage {
  getItem(key: string): string | null | undefined | Promise<string | null | undefined>;
  setItem(key: string, value: string): unknown;
}

export interface Options {
  /** Where the service is; the page's own origin if missing. May end in a path. */
  url?: string;
  streams?: Stream[];
  /** Where to begin: `now` (the default), `earliest`, `last:N`, `ack`, an id or a cursor. */
  after?: string;
  /** The token, or where to get one. Asked again before it expires. */
  token?: string | (() => string | Promise<string>);
  /** Keeps the cursor over page loads. What is in it goes before `after`. */
  storage?: CursorStorage;
  /** The storage's key; made of the streams if missing. */
  storageKey?: string;
  /** One transport, or several to fall over between. Default: `sse`, `websocket`, `post`. */
  transport?: TransportName | TransportName[];
  /** Only events of these types. */
  types?: string[];
  /** Be a member of the topics, and get to know who joins and leaves. Needs a device. */
  members?: boolean;
  /** Share one connection with the other tabs that give the same name (`true`: the same address). */
  tabs?: boolean | string;
  /** Acknowledge a device's events by themselves once they are handled. */
  ack?: boolean;
  /** Send cookies to another origin too. */
  credentials?: 'include';
  onStatus?: (status: Status) => void;
  /** A gap, unless `recover` is given. Default: `console.warn`. */
  onGap?: (gap: Gap) => void;
  /** Loads what a gap took away, before the next event is delivered. A cursor that it returns is gone on from. */
  recover?: (gap: Gap) => void | { cursor: string } | Promise<void | { cursor: string }>;
  /**
   * What went wrong and did not end the client: a stream that was refused, a token that could not be got, what a
   * listener threw. Default: `console.error`.
   */
  onError?: (error: unknown) => void;
  /** Where the platform has none of its own: Node before 22 has no `WebSocket`, and none has `EventSource`. */
  WebSocket?: typeof WebSocket;
  EventSource?: typeof EventSource;
}

export interface PublishOptions {
  type?: string;
  /** Seconds after which the event is no longer delivered. */
  ttl?: number;
  /** Who catches up gets only the newest event of each collapse key. */
  collapse?: string;
  /** Only to whoever is connected now; not stored, not repeated. */
  ephemeral?: boolean;
  /** `replicas:N` or `disk`: answer when reached. */
  durable?: string;
  /** The idempotency key; a random one if missing. */
  key?: string;
  /** `false`: everyone but this client's own connection gets it. */
  echo?: boolean;
}

export interface Published {
  id?: string;
  stream: Stream;
  nodes: number;
  duplicate?: boolean;
}

/** Loads a snapshot. `cursor` is a position of a moment before. */
export type Load<V> = (at: { cursor: string }) => Promise<{ cursor?: string; value: V }>;

/** The value after an event. */
export type Reduce<V, E> = (value: V, event: E) => V;
