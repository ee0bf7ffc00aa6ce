/** Who is in a topic: the list, and who joins and leaves from then on. */

import { call, pathOf } from './call.js';
import type { Service } from './request.js';
import type { Store } from './store.js';
import type { Frame } from './transport/frame.js';
import type { Member, Status } from './types.js';

/** What is asked of the client: whether it is connected. */
export interface Connected {
  readonly status: Status;
}

export type Watchers = Set<(frame?: Frame) => void>;

/** Keeps `store` to the members of `topic`. */
export function follow(topic: string, store: Store<Member[]>, client: Connected, service: Service, watchers: Watchers): void {
  let members = new Map<string, Member>();
  /** What happened since the list that is under way was asked for. */
  let changes: Frame[] = [];
  let loads = 0;

  const apply = ({ op, device, info }: Frame) => {
    if (op == 'joined') members.set(device!, { device: device!, info });
    else members.delete(device!);
  };
  const show = () => store.set([...members.values()]);

  /** Reads the list anew: the connection is another one, and what happened before it is not known. */
  const load = async () => {
    const number = ++loads;
    const listed = new Map<string, Member>();
    changes = [];
    for (let after = ''; after != null; ) {
      const page = await call(service, `${pathOf(topic)}/members${after && '?after=' + encodeURIComponent(after)}`);
      if (number != loads) return;
      for (const member of page.members) listed.set(member.device, member);
      after = page.next;
    }
    members = listed;
    changes.forEach(apply);
    show();
  };

  let used = false;
  const watcher = (frame?: Frame): unknown => {
    if (frame && (frame.stream != topic || !/joined|left|members/.test(frame.op))) return;
    used ||= store.size > 0;
    if (used && !store.size) return watchers.delete(watcher);
    // `members`: the service may have missed to pass on who joined or left.
    if (frame && frame.op != 'members') {
      changes.push(frame);
      apply(frame);
      show();
    } else if (client.status == 'open') load().catch(service.fail);
  };
  watchers.add(watcher);
  watcher();
}
