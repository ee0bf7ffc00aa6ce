/** Reads `text/event-stream`, however it is cut. */

export interface Reader {
  block(type: string, data: string, id?: string): void;
  comment(): void;
  retry(ms: number): void;
}

export function parser(reader: Reader): (text: string) => void {
  let rest = '';
  let data: string[] = [];
  let type = '';
  let id: string | undefined;
  const line = (text: string) => {
    if (!text) {
      if (data.length) reader.block(type, data.join('\n'), id);
      data = [];
      type = '';
      id = undefined;
      return;
    }
    const [, name, value = ''] = /^([^:]*)(?:: ?(.*))?$/s.exec(text)!;
    if (!name) return reader.comment();
    if (name == 'data') data.push(value);
    if (name == 'event') type = value;
    if (name == 'id') id = value;
    if (name == 'retry') reader.retry(Number(value));
  };
  return (text) => {
    // A CR at the end may be half of a CR LF.
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop()!;
    lines.forEach(line);
  };
}
