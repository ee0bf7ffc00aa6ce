// Tokens as a backend signs them.
import { createHmac } from 'node:crypto';

export const SECRET = 'a secret that is long enough for a test of tokens';

/** A device's token for so many seconds, which names these topics. */
export function token(device, seconds, secret = SECRET, subscribe = ['topic:open:*']) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const publish = ['topic:open:*', `device:${device}`];
  const claims = { sub: device, iat: now, exp: now + seconds, whimbrel: { subscribe, publish } };
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}
