/** The token of a request. */

import type { Service } from './request.js';

/** The token, a new one if need be. */
export async function tokenOf(service: Service, fresh: boolean): Promise<string | undefined> {
  const { token } = service.options;
  if (typeof token != 'function') return token;
  const { Credentials } = await import('./credentials.js');
  return (service.credentials ??= new Credentials(token)).get(fresh);
}
