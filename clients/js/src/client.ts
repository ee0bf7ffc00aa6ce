/** What an application holds in its hands. */

import { Connection, type Core, type Source } from './connection.js';
import { type Failure, WhimbrelError } from './failure.js';
import { Position, isAfter } from './position.js';
import { type Service, persist } from './request.js';
import type { Requests } from './requests.js';
import { Store } from './store.js';
import { partsOf } from './stream.js';
import type { Frame } from './transport/frame.js';
import type { Event, EventOf, Gap, Load, Member, Options, Published, PublishOptions, Reduce, Status, Stream } from './types.js';

/** Frames that wait to be handled. More pause the connection, and half of it lets it go on. */
const MOST = 1000;

type Listener = [type: string, call: (event: any) => unknown];

export class Client<M = Record<string, unknown>> implements AsyncIterable<EventOf<M>> {
  /** Whether the service can be heard. */
  status: Status = 'idle';
  /** Why the client closed, if not by `close()`. */
  error?: WhimbrelError;

  #abort = new AbortController();
  #service: Service;
  #source?: Source;
  /** How often each stream is wanted. */
  #wanted = new Map<string, number>();
  #listeners = new Set<Listener>();
  /** Called with each frame, and, without one, for another status. */
  #watchers = new Set<(frame?: Frame) => void>();
  #received = new Position();
  #handled = new Position();
  /** The newest event of each stream: what comes again is dropped. */
  #seen = new Map<string, string>();
  #key: string;
  /** What is not handled yet. */
  #queue: Frame[] = [];
  #delivering = false;
  #paused = false;
  /** The streams that the source knows of. */
  #following: string[] = [];
  #changing = false;
  /** Loads the snapshot of `state`. */
  #load?: () => Promise<{ cursor: string }>;
  #loaded?: Requests;

  constructor(options: Options) {
    const { url = globalThis.location?.origin ?? '', streams = [], after = '', onError = console.error } = options;
    const { signal } = this.#abort;
    const end = (failure: Failure) => {
      this.#source?.stop();
      this.#show('closed', failure);
    };
    this.#service = { url: url.replace(/\/$/, ''), options, signal, fail: onError, end, Error: WhimbrelError };
    this.#key = options.storageKey ?? `whimbrel:${this.#service.url}:${streams}`;
    for (const stream of streams) this.subscribe(stream);
    this.#received.put(after, streams);
  }

  /** Up to where everything is handled: a value for `after`. */
  get cursor(): string {
    return this.#handled + '';
  }

  /** Calls `listener` with each event of a type, or of any with `*`. The next event waits for a promise that it returns. */
  on<K extends keyof M & string>(type: K, listener: (event: Event<M[K], K>) => unknown): () => void;
  on(type: '*', listener: (event: EventOf<M>) => unknown): () => void;
  on(...listener: Listener): () => void {
    this.#listeners.add(listener);
    void this.#deliver();
    return () => void this.#listeners.delete(listener);
  }

  /** The events. One is handled, for cursor and acknowledgement, when the next is asked for. */
  async *[Symbol.asyncIterator](): AsyncGenerator<EventOf<M>, void> {
    let wake = () => {};
    let handled = wake;
    let event: EventOf<M> | undefined;
    const off = this.on('*', (next) => {
      event = next;
      wake();
      return new Promise<void>((resolve) => (handled = resolve));
    });
    const watcher = () => wake();
    this.#watchers.add(watcher);
    try {
      for (;;) {
        if (event) {
          const next = event;
          event = undefined;
          yield next;
          handled();
        } else if (this.status == 'closed' && !this.#queue[0]) {
          if (this.error) throw this.error;
          return;
        } else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      off();
      this.#watchers.delete(watcher);
      handled();
    }
  }

  /** Follows one more stream, from now on or from `after`. Call what is returned to unsubscribe. */
  subscribe(stream: Stream, after?: string): () => void {
    partsOf(stream);
    this.#wanted.set(stream, (this.#wanted.get(stream) ?? 0) + 1);
    if (after && !this.#following.includes(stream)) this.#received.put(after, [stream]);
    this.#changed();
    let follows = true;
    return () => {
      if (follows) this.unsubscribe(stream);
      follows = false;
    };
  }

  /** Follows a stream no more, unless it was subscribed to more often. */
  unsubscribe(stream: Stream): void {
    const count = this.#wanted.get(stream)! - 1;
    if (count) this.#wanted.set(stream, count);
    else this.#wanted.delete(stream);
    this.#changed();
  }

  /** Publishes; repeated, without being stored twice, until it is answered. In order within a stream. */
  async publish(stream: Stream, data: unknown, options: PublishOptions = {}): Promise<Published> {
    const { publish } = await this.#requests();
    return publish(stream, data, options, this.#source?.id);
  }

  /** Acknowledges an event of a device, and all before it. */
  async ack({ stream, id }: { stream: Stream; id?: string }): Promise<void> {
    return (await this.#requests()).ack(stream, id);
  }

  /**
   * A value made of a snapshot and the events after it. `load` is given the cursor of a moment before it was
   * called; if what it loads has a cursor of its own, that is where the events begin. After a gap it is called anew.
   */
  state<V>(load: Load<V>, reduce: Reduce<V, EventOf<M>>): Store<V | undefined> {
    const store = new Store<V | undefined>(undefined);
    this.#load = async () => {
      const { snapshot } = await this.#requests();
      const loaded = await snapshot(this.#streams(), load);
      store.set(loaded.value);
      return loaded;
    };
    this.on('*', (event) => store.set(reduce(store.value as V, event)));
    return store;
  }

  /**
   * Who is in a topic, for as long as somebody subscribes. The client needs `members` to be in it itself, and to get
   * to know of others at once.
   */
  presence(topic: Stream): Store<Member[]> {
    const store = new Store<Member[]>([]);
    void this.#requests().then(({ follow }) => follow(topic, store, this, this.#watchers));
    return store;
  }

  /** Ends the connection, for good. */
  close(): void {
    // What is being handled still counts.
    this.#queue.splice(+this.#delivering);
    this.#source?.stop();
    this.#show('closed');
  }

  /** Tells the source of other streams, once for all changes of a turn of the event loop. */
  #changed(): void {
    if (this.#changing) return;
    this.#changing = true;
    queueMicrotask(async () => {
      const starting = !this.#source;
      if (starting) await this.#begin().catch(this.#service.fail);
      this.#changing = false;
      const gone = this.#following.filter((stream) => !this.#wanted.has(stream));
      for (const stream of gone) {
        this.#received.drop(stream);
        this.#handled.drop(stream);
        this.#seen.delete(stream);
      }
      const changed = gone[0] || this.#wanted.size > this.#following.length;
      this.#following = this.#streams();
      if (this.status == 'closed') return;
      if (starting) this.#source!.start();
      else if (changed) this.#source!.change();
    });
  }

  async #begin(): Promise<void> {
    const { tabs, storage } = this.#service.options;
    const core: Core = {
      streams: () => this.#streams(),
      position: this.#received,
      frame: (frame) => this.#frame(frame),
      status: (status, failure) => this.#show(status, failure),
    };
    const make = (core: Core) => new Connection(this.#service, core);
    const shared = tabs && globalThis.navigator?.locks && globalThis.BroadcastChannel;
    this.#source = shared ? (await persist(this.#service, () => import('./tabs.js'))).share(tabs, core, make, this.#service, this.#key) : make(core);
    const streams = this.#streams();
    this.#received.put((await storage?.getItem(this.#key)) ?? '', streams);
    if (this.#load) this.#received.put((await persist(this.#service, this.#load)).cursor, streams);
    this.#handled.set(this.#received);
  }

  /** Loads what is not needed to listen. Once the service was heard it is there, so that publishing can wait for a network. */
  #requests() {
    return persist(this.#service, async () => {
      const { requests } = await import('./requests.js');
      return (this.#loaded ??= requests(this.#service));
    });
  }

  #streams(): string[] {
    return [...this.#wanted.keys()];
  }

  #frame(frame: Frame): void {
    const { op, stream, id } = frame;
    if (op == 'unsubscribed' && this.#wanted.delete(stream!)) {
      this.#following = this.#streams();
      this.#service.fail(new WhimbrelError({ code: 'forbidden', ...frame }));
    }
    this.#notify(frame);
    if (op == 'gap') this.#seen.delete(stream!);
    if (op == 'event' && id) {
      if (isAfter(id, this.#seen.get(stream!))) this.#seen.set(stream!, id);
      else frame = { ...frame, op: 'again' };
    }
    this.#received.move(frame);
    if (this.#queue.push(frame) >= MOST && !this.#paused) {
      this.#paused = true;
      this.#source!.stop();
    }
    void this.#deliver();
  }

  async #deliver(): Promise<void> {
    if (this.#delivering) return;
    this.#delivering = true;
    while (this.#queue[0] && this.#listeners.size) {
      const queue = this.#queue;
      const frame = queue[0]!;
      // Whatever an application's own code throws, the events go on.
      await this.#handle(frame).catch(this.#service.fail);
      // Else there is another position meanwhile, and it comes anew.
      if (queue == this.#queue) {
        queue.shift();
        await this.#moved(frame).catch(this.#service.fail);
      }
      if (this.#paused && this.#queue.length < MOST / 2) {
        this.#paused = false;
        this.#source!.start();
      }
    }
    this.#delivering = false;
    // Whoever waits for one more event waits no more.
    if (this.status == 'closed') this.#notify();
  }

  async #handle({ op, stream, id, type, time, data, after, next, reason }: Frame): Promise<unknown> {
    if (!this.#wanted.has(stream!)) return;
    if (op == 'gap') return this.#recover({ stream, after, next, reason } as Gap);
    if (op != 'event') return;
    const event = { stream, id, type, time, data };
    const deliver = async ([wanted, listener]: Listener) => {
      if (wanted == '*' || wanted == type) await listener(event);
    };
    return Promise.all([...this.#listeners].map((listener) => deliver(listener).catch(this.#service.fail)));
  }

  async #recover(gap: Gap): Promise<void> {
    const { recover, onGap = console.warn } = this.#service.options;
    const load = this.#load ?? recover;
    if (!load) return onGap(gap);
    const cursor = (await persist(this.#service, () => load(gap)))?.cursor;
    if (!cursor) return;
    // Goes on from there. What was not handled yet comes anew.
    this.#queue = [];
    this.#seen.clear();
    this.#handled.put(cursor, this.#streams());
    this.#received.set(this.#handled);
    this.#source!.change(this.cursor);
  }

  async #moved(frame: Frame): Promise<void> {
    const { ack, storage } = this.#service.options;
    this.#handled.move(frame);
    const { op, stream = '' } = frame;
    const mine = (what: string) => !this.#source!.leaves?.(what);
    const handled = op == 'event' && /^device:/.test(stream) && this.#wanted.has(stream);
    if (ack && handled && mine(stream)) this.ack(frame as Event).catch(this.#service.fail);
    if (mine(this.#key)) await storage?.setItem(this.#key, this.cursor);
  }

  #show(status: Status, failure?: Failure): void {
    if (this.status == 'closed') return;
    this.status = status;
    if (status == 'open') this.#requests().catch(() => {});
    if (status == 'closed') {
      if (failure) this.error = new WhimbrelError(failure);
      this.#abort.abort();
    }
    this.#service.options.onStatus?.(status);
    this.#notify();
  }

  #notify(frame?: Frame): void {
    this.#watchers.forEach((watcher) => watcher(frame));
  }
}
