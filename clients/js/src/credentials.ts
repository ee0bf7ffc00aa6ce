/** The token: asked for once at a time, kept until it is about to expire. */

import { failureOf } from './failure.js';
import { type Service, type TokenSource, ask } from './request.js';
import type { Transport } from './transport/frame.js';

/** A token is renewed so long before its end, in milliseconds. */
const MARGIN = 30_000;

export class Credentials implements TokenSource {
  #token?: string;
  #expires = Infinity;
  #pending?: Promise<string>;

  constructor(private readonly source: () => string | Promise<string>) {}

  async get(fresh: boolean): Promise<string> {
    if (this.#token && !fresh && Date.now() < this.#expires - MARGIN) return this.#token;
    this.#pending ??= (async () => this.source())().finally(() => (this.#pending = undefined));
    this.#token = await this.#pending;
    this.#expires = expiryOf(this.#token);
    return this.#token;
  }
}

/** Gets a new token, and gives it to the connection that is open. */
export async function renew(service: Service, connection: string, { send }: Transport): Promise<string> {
  const token = service.credentials ? await service.credentials.get(true) : (service.options.token as string);
  if (send) send({ op: 'renew', token });
  else {
    const response = await ask(service, `/v1/connections/${connection}/renew`, { method: 'POST' }, token);
    if (!response.ok) throw new service.Error(await failureOf(response));
  }
  return token;
}

/** When a JWT expires; never, if it does not say. The service is the judge, this is only to be early. */
function expiryOf(token: string): number {
  try {
    const claims = token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/');
    return JSON.parse(atob(claims)).exp * 1000 || Infinity;
  } catch {
    return Infinity;
  }
}
