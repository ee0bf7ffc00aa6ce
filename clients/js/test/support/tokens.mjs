// Tokens as a backend signs them.
import { createHmac } from 'node:crypto';

export const SECRET = 'a secret that is long enough for a test of tokens';

/** A device's token for so many seconds. */
export function token(device, seconds, secret = SECRET) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const claims = { sub: device, iat: now, exp: now + seconds, whimbrel: { subscribe: ['topic:open:*'], publish: ['topic:open:*', `device:${device}`] } };
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}
