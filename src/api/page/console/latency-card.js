// From publish to delivery: this page publishes a probe each second and times when it comes back.

import { Samples, chart } from "./chart.js";
import { action, problemBox, say } from "./dom.js";
import { milliseconds } from "./format.js";
import { remember } from "./route.js";
import { follow, publish } from "./service.js";

const TOPIC = "topic:console:probe";
const EVERY_MS = 1000;
const LOST_MS = 10_000;

const samples = new Samples();

/** A chart of probes. They are stored as any event, in a topic of their own, and expire after ten seconds. */
export function latencyCard({ query }, scope) {
  const { element, draw } = chart({ title: "Publish to delivery", note: "by this page", samples, format: milliseconds });
  const problem = problemBox();
  let running = null;
  const button = action("Start probing", () => (running ? stop() : start()), { "aria-pressed": "false" });
  element.querySelector("figcaption").append(button);
  element.append(problem);

  function show() {
    button.textContent = running ? "Stop probing" : "Start probing";
    button.setAttribute("aria-pressed", String(Boolean(running)));
    remember({ probe: running ? 1 : null });
  }

  async function start() {
    running = await Probe.start(scope, (values) => {
      samples.push(values);
      draw();
    }, (words) => say(problem, words));
    show();
  }

  function stop() {
    running.stop();
    running = null;
    show();
  }

  scope.onEnd(() => running?.stop());
  if (query.get("probe")) button.click();
  return element;
}

class Probe {
  #sent = new Map();
  #own = crypto.randomUUID?.() ?? String(Math.random());
  #number = 0;

  static async start(scope, take, fail) {
    const probe = new Probe();
    probe.client = await follow({ streams: [TOPIC], onError: () => {}, onGap: () => {} });
    probe.client.on("probe", ({ data }) => data.from === probe.#own && probe.#arrived(data.n, take));
    probe.timer = setInterval(() => document.hidden || probe.#publish(take, fail), EVERY_MS);
    return probe;
  }

  stop() {
    clearInterval(this.timer);
    this.client.close();
  }

  async #publish(take, fail) {
    if (this.client.status !== "open") return;
    const n = (this.#number += 1);
    const probe = { at: performance.now(), stored: null, delivered: null };
    this.#sent.set(n, probe);
    setTimeout(() => this.#sent.delete(n), LOST_MS);
    try {
      await publish(TOPIC, JSON.stringify({ from: this.#own, n }), { type: "probe", ttl: 10 });
      probe.stored = performance.now() - probe.at;
      this.#complete(n, take);
      fail(null);
    } catch (error) {
      this.#sent.delete(n);
      fail(error.message);
    }
  }

  #arrived(n, take) {
    const probe = this.#sent.get(n);
    if (!probe) return;
    probe.delivered = performance.now() - probe.at;
    this.#complete(n, take);
  }

  #complete(n, take) {
    const probe = this.#sent.get(n);
    if (probe?.stored == null || probe.delivered == null) return;
    this.#sent.delete(n);
    take({ delivered: probe.delivered, "stored and answered": probe.stored });
  }
}
