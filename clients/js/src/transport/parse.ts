/** Reads `text/event-stream`, however it is cut. */

import { type Frame, frameOf } from './frame.js';

export function parser(take: (frame: Frame) => void): (text: string) => void {
  let rest = '';
  let fields: Record<string, string> = {};
  const line = (text: string) => {
    if (!text) {
      const { event, data, id } = fields;
      fields = {};
      if (data != null) take(frameOf(event, data, id));
      return;
    }
    const [, name, value = ''] = /^([^:]*)(?:: ?(.*))?$/s.exec(text)!;
    // A comment is a sign of life.
    if (!name) return take({ op: 'ping' });
    if (name == 'retry') take({ op: name, retry: +value });
    fields[name] = name == 'data' && fields.data != null ? fields.data + '\n' + value : value;
  };
  return (text) => {
    // A CR at the end may be half of a CR LF.
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop()!;
    lines.forEach(line);
  };
}
