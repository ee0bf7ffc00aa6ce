// The node's figures: samples out of the text that Prometheus reads, and rates between two of them.

const LINE = /^whimbrel_([a-z0-9_]+)(?:\{([^}]*)\})? (\S+)/;

/** Sums by name, over all labels. */
export function parseMetrics(text) {
  const sums = new Map();
  for (const line of text.split("\n")) {
    const [, name, , value] = LINE.exec(line) ?? [];
    if (name) sums.set(name, (sums.get(name) ?? 0) + Number(value));
  }
  return sums;
}

/** What counters grow by in a second. */
export class Rates {
  #before = null;
  #at = 0;

  /** Takes a sample; gives a function from a counter's name to its rate, null where none is known. */
  sample(sums, at = performance.now()) {
    const [before, seconds] = [this.#before, (at - this.#at) / 1000];
    [this.#before, this.#at] = [sums, at];
    return (name) => {
      const grown = sums.get(name) - before?.get(name);
      // A counter that shrank belongs to a node that was started again, or to another one behind the same address.
      return grown >= 0 && seconds > 0 ? grown / seconds : null;
    };
  }
}
