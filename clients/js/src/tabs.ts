/**
 * One connection for all tabs of a browser. Whoever has the lock leads: it has the connection, and passes each
 * frame on. The browser gives the lock to the next tab when the leader's is closed. Every tab knows where the
 * connection stands and who follows what, so any of them can go on.
 */

import type { Connection, Core, Source } from './connection.js';
import type { Failure } from './failure.js';
import { Position } from './position.js';
import type { Service } from './request.js';
import type { Frame } from './transport/frame.js';
import type { Status } from './types.js';

/** How often a tab looks whether there is a sign of the leader, and how often in vain before it takes over. */
const LOOK = 5_000;
const LOOKS = 3;

interface Message {
  from: string;
  /** What the sender follows; nothing when it leaves. */
  hello?: string[];
  /** The hello's number, and in the leader's answer the one that it answers. */
  number?: number;
  /** Where the sender stands, if it wants to go on from there and not from where the connection is. */
  put?: string;
  /** The sender leads now. */
  lead?: boolean;
  /** The leader's answer to a hello of this tab, with where the connection stands and what each tab follows. */
  welcome?: string;
  position?: string;
  tabs?: [string, string[]][];
  /** What the leader sees to for all: the cursor of this name, and acknowledging these streams. */
  duties?: string[];
  frame?: Frame;
  status?: Status;
  failure?: Failure;
  /** The streams that the leader's connection has, where the message is about a connection. */
  granted?: string[];
  /** Is the leader there? */
  ask?: boolean;
}

/** A source of frames that the tabs with this name share; `true`: the service's address. */
export function share(name: string | true, core: Core, make: (core: Core) => Connection, { url, signal }: Service, key: string): Source {
  return new Tabs('whimbrel:' + (name === true ? url : name), core, make, signal, key);
}

class Tabs implements Source {
  readonly #me = crypto.getRandomValues(new Uint32Array(2)).join('-');
  readonly #channel: BroadcastChannel;
  /** What each tab follows. */
  readonly #tabs = new Map<string, string[]>();
  /** Where the connection stands. */
  readonly #position = new Position();
  /** While this tab leads. */
  #connection?: Connection;
  #id?: string;
  /** The connection's, and what this tab shows of it. */
  #status: Status = 'connecting';
  #shown?: Status;
  #granted: string[] = [];
  #started = false;
  /** This tab takes no frames for now. */
  #paused = false;
  /** This tab goes on from a position of its own, and the leader has not seen to that yet. */
  #behind = false;
  /** The leader's, as long as that is another tab. */
  #duties: string[] = [];
  #number = 0;
  /** How often it was looked for a sign of the leader in vain. */
  #silent = 0;
  #waiting?: AbortController;

  constructor(
    private readonly name: string,
    private readonly core: Core,
    private readonly make: (core: Core) => Connection,
    private readonly closed: AbortSignal,
    private readonly key: string,
  ) {
    this.#channel = new BroadcastChannel(name);
  }

  get id(): string | undefined {
    return this.#connection?.id ?? this.#id;
  }

  leaves(what: string): boolean {
    return !this.#connection && this.#duties.includes(what);
  }

  start(): void {
    if (this.#started) {
      if (this.#paused) this.#hello(true);
      this.#paused = false;
      return;
    }
    this.#started = true;
    this.#channel.onmessage = ({ data }) => this.#receive(data);
    const look = setInterval(() => this.#look(), LOOK);
    this.closed.addEventListener('abort', () => {
      clearInterval(look);
      this.#post({ hello: [] });
      this.#channel.close();
      this.#waiting?.abort();
    });
    // This lock says that the tab is there, so it is taken before anybody hears of it.
    void navigator.locks.request(this.#lockOf(this.#me), () => {
      this.#hello(this.core.position.list().length > 0);
      this.#elect();
      return this.#end();
    });
  }

  stop(): void {
    this.#paused = true;
  }

  change(position?: string): void {
    const before = this.#tabs.get(this.#me) ?? [];
    const added = this.core.streams().filter((stream) => !before.includes(stream));
    const begins = added.some((stream) => this.core.position.list().some((after) => after.startsWith(stream + '/')));
    this.#hello(!!position || begins);
  }

  /** Says what this tab follows, and whether it goes on from where it stands itself. */
  #hello(behind: boolean): void {
    const { core } = this;
    const streams = core.streams();
    this.#behind ||= behind;
    const put = this.#behind ? core.position + '' : '';
    if (this.#connection) {
      this.#follow(this.#me, streams, put);
      this.#behind = false;
      this.#post({ duties: this.#own() });
    } else {
      this.#tabs.set(this.#me, streams);
      this.#post({ hello: streams, number: ++this.#number, put });
    }
  }

  #own(): string[] {
    return [this.key, ...this.core.streams()];
  }

  #post(message: Omit<Message, 'from'>): void {
    this.#channel.postMessage({ ...message, from: this.#me });
  }

  #receive(message: Message): void {
    const { from, hello, number, put = '', lead, welcome, position, tabs = [], duties, frame, status, failure, granted, ask } = message;
    if (this.#connection) {
      if (hello) {
        this.#follow(from, hello, put);
        const { granted } = this.#connection;
        const [position, tabs] = [this.#position + '', [...this.#tabs]];
        this.#post({ welcome: from, number, position, tabs, duties: this.#own(), status: this.#status, granted });
        if (this.id) this.#post({ frame: { op: 'shared', connection: this.id } });
      }
      if (ask) this.#post({});
      return;
    }
    if (hello) this.#tabs.set(from, hello);
    if (hello || ask) return;
    this.#silent = 0;
    if (lead) this.#hello(false);
    if (duties) this.#duties = duties;
    if (welcome == this.#me && number == this.#number) {
      for (const [tab, streams] of tabs) this.#tabs.set(tab, streams);
      this.#position.put(position!, []);
      this.#behind = false;
    }
    if (frame) this.#take(frame);
    if (granted) this.#granted = granted;
    if (granted || status) this.#show(status, failure);
  }

  /** As the leader: a tab follows these streams. */
  #follow(tab: string, streams: string[], put = ''): void {
    const before = this.#union();
    if (!this.#tabs.has(tab)) this.#watch(tab);
    if (streams[0]) this.#tabs.set(tab, streams);
    else this.#tabs.delete(tab);
    if (put || this.#union() + '' != before + '') this.#connection!.change(put);
  }

  #union(): string[] {
    return [...new Set([...this.#tabs.values()].flat())];
  }

  #lockOf(tab: string): string {
    return this.name + ':' + tab;
  }

  /** Notices when a tab is gone, however it went. */
  #watch(tab: string): void {
    const gone = () => this.#connection && this.#follow(tab, []);
    if (tab != this.#me) navigator.locks.request(this.#lockOf(tab), { signal: this.closed }, gone).catch(() => {});
  }

  /** Resolves when this client is closed. */
  #end(): Promise<void> {
    return new Promise((resolve) => {
      if (this.closed.aborted) resolve();
      this.closed.addEventListener('abort', () => resolve());
    });
  }

  #elect(steal = false): void {
    this.#waiting?.abort();
    this.#waiting = new AbortController();
    const { signal } = this.#waiting;
    const lead = () => {
      if (!this.closed.aborted) this.#lead();
      return this.#end();
    };
    navigator.locks.request(this.name, steal ? { steal } : { signal }, lead).catch(() => {
      if (this.closed.aborted || signal.aborted) return;
      // Another tab took over. What it passed on meanwhile was not for a leader.
      this.#connection?.stop();
      this.#connection = undefined;
      this.#hello(true);
      this.#elect();
    });
  }

  #lead(): void {
    for (const tab of this.#tabs.keys()) this.#watch(tab);
    const connection = this.make({
      streams: () => this.#union(),
      position: this.#position,
      frame: (frame) => {
        const { granted } = connection;
        this.#post(frame.connection ? { frame, granted } : { frame });
        if (frame.op == 'unsubscribed') this.#drop(frame.stream!);
        this.#take(frame);
      },
      status: (status, failure) => {
        const { granted } = connection;
        this.#post({ status, failure, granted });
        this.#granted = granted;
        this.#show(status, failure);
      },
    });
    this.#connection = connection;
    this.#post({ lead: true });
    this.#hello(false);
    this.#connection.start();
  }

  #drop(stream: string): void {
    for (const [tab, streams] of this.#tabs) this.#tabs.set(tab, streams.filter((name) => name != stream));
  }

  #take(frame: Frame): void {
    this.#position.move(frame);
    this.#id = frame.connection ?? this.#id;
    if (!this.#paused && !this.#behind) this.core.frame(frame);
  }

  /** A tab is open once the connection has its streams, not as soon as there is one. */
  #show(status = this.#status, failure?: Failure): void {
    this.#status = status;
    const follows = this.core.streams().every((stream) => this.#granted.includes(stream));
    const shown = status == 'open' && this.#shown != 'open' && !follows ? 'connecting' : status;
    if (shown != this.#shown) this.core.status((this.#shown = shown), failure);
  }

  /** A leader whose tab is frozen passes nothing on. Only a tab that somebody looks at takes over. */
  #look(): void {
    if (this.#connection || document.hidden) this.#silent = 0;
    else if (++this.#silent > LOOKS) {
      this.#silent = 0;
      this.#elect(true);
    } else this.#post({ ask: true });
  }
}
