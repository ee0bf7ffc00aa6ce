// The life of a page of the console: what it started ends with it.

import { say } from "./dom.js";

export class Scope {
  #controller = new AbortController();

  get signal() {
    return this.#controller.signal;
  }

  get ended() {
    return this.signal.aborted;
  }

  end() {
    this.#controller.abort();
  }

  /** Calls `run` when the page is left, or at once if it is left already. */
  onEnd(run) {
    if (this.ended) run();
    else this.signal.addEventListener("abort", run, { once: true });
  }

  /** Runs, and says in `problem` what went wrong, or that nothing did. */
  async attempt(problem, run) {
    try {
      await run();
      say(problem, null);
    } catch (error) {
      if (!this.ended) say(problem, error.message);
    }
  }

  /**
   * Runs now, and again `ms` after each run has ended, for as long as the page is there. A tab in the background
   * rests. Returns what makes it run at once.
   */
  every(ms, run) {
    let timer = 0;
    let running = false;
    const round = async () => {
      clearTimeout(timer);
      if (running || this.ended) return;
      running = true;
      try {
        if (!document.hidden) await run();
      } finally {
        running = false;
        if (!this.ended) timer = setTimeout(round, ms);
      }
    };
    document.addEventListener("visibilitychange", () => document.hidden || round(), { signal: this.signal });
    this.onEnd(() => clearTimeout(timer));
    round();
    return round;
  }
}
