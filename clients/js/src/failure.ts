/** What went wrong with a request or a connection, and whether trying again can help. */

export interface Failure {
  /** Missing: no answer. */
  status?: number;
  /** The problem's name, from `urn:whimbrel:problem:NAME`; missing where the answer is not the service's own. */
  code?: string;
  detail?: string;
  /** When to come back, in milliseconds. */
  retry?: number;
  /** The platform does not have this transport. */
  missing?: boolean;
}

export class WhimbrelError extends Error {
  readonly status?: number;
  readonly code: string;
  constructor({ status, code = 'unreachable', detail }: Failure) {
    super(detail ?? code);
    this.status = status;
    this.code = code;
  }
}

/** What an answer that is no success says. A proxy's answer, say in HTML, has no code. */
export async function failureOf(response: Response): Promise<Failure> {
  const { status, headers } = response;
  const { type, detail } = await response.json().catch(() => ({}));
  return {
    status,
    code: status == 204 ? 'stopped' : /^urn:whimbrel:problem:(.+)/.exec(type)?.[1],
    detail,
    retry: Number(headers.get('retry-after')) * 1000 || undefined,
  };
}

/** Whether the service itself refused it for good. A 401 is for whoever asks to judge. */
export function isFinal({ status = 0, code }: Failure): boolean {
  return !!code && status < 500 && ![401, 408, 429].includes(status);
}
