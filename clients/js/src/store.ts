/** A value that says when it is another one; of the shape that React's `useSyncExternalStore` takes. */

export class Store<V> {
  #subscribers = new Set<(value: V) => void>();

  constructor(public value: V) {}

  subscribe = (subscriber: (value: V) => void): (() => void) => {
    this.#subscribers.add(subscriber);
    return () => void this.#subscribers.delete(subscriber);
  };

  /** How many subscribe. */
  get size(): number {
    return this.#subscribers.size;
  }

  get = (): V => this.value;

  set(value: V): void {
    this.value = value;
    this.#subscribers.forEach((subscriber) => subscriber(value));
  }
}
