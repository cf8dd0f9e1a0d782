// `Headers` of the fetch standard, without the guards that only a browser needs (no-cors, forbidden names).

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const VALUE_REFUSED = /[\0\r\n]|[^\x00-\xFF]/;

export type HeadersInit = Headers | Iterable<readonly [string, string]> | Record<string, string>;

let freeze: (headers: Headers) => void;

export class Headers {
  // Lower-case name to its values, in the order in which they came.
  #map = new Map<string, string[]>();
  #immutable = false;

  constructor(init?: HeadersInit | null) {
    if (init === undefined || init === null) return;
    if (typeof init !== "object" && typeof init !== "function") throw new TypeError("Headers: not a sequence or a record");
    if (Symbol.iterator in init) {
      for (const pair of init as Iterable<readonly [string, string]>) {
        if (typeof pair !== "object" || pair === null) throw new TypeError("Headers: each entry must be a name and a value");
        const entry = [...pair];
        if (entry.length !== 2) throw new TypeError("Headers: each entry must be a name and a value");
        this.append(entry[0]!, entry[1]!);
      }
    } else {
      for (const name of Reflect.ownKeys(init)) {
        if (Object.getOwnPropertyDescriptor(init, name)?.enumerable !== true) continue;
        if (typeof name === "symbol") throw new TypeError("Headers: a name must be a string");
        this.append(name, (init as Record<string, string>)[name]!);
      }
    }
  }
  append(name: string, value: string): void {
    const key = checkName(name, "append");
    const text = checkValue(value, "append");
    this.#checkWritable();
    const values = this.#map.get(key);
    if (values === undefined) this.#map.set(key, [text]);
    else values.push(text);
  }
  set(name: string, value: string): void {
    const key = checkName(name, "set");
    const text = checkValue(value, "set");
    this.#checkWritable();
    this.#map.set(key, [text]);
  }
  delete(name: string): void {
    const key = checkName(name, "delete");
    this.#checkWritable();
    this.#map.delete(key);
  }
  get(name: string): string | null {
    return this.#map.get(checkName(name, "get"))?.join(", ") ?? null;
  }
  has(name: string): boolean {
    return this.#map.has(checkName(name, "has"));
  }
  getSetCookie(): string[] {
    return [...(this.#map.get("set-cookie") ?? [])];
  }
  forEach(callback: (value: string, name: string, headers: Headers) => void, thisArg?: unknown): void {
    if (typeof callback !== "function") throw new TypeError("Headers.forEach: not a function");
    for (const [name, value] of this) callback.call(thisArg, value, name, this);
  }
  *entries(): IterableIterator<[string, string]> {
    for (const name of [...this.#map.keys()].sort()) {
      const values = this.#map.get(name);
      if (values === undefined) continue;
      if (name === "set-cookie") for (const value of values) yield [name, value];
      else yield [name, values.join(", ")];
    }
  }
  *keys(): IterableIterator<string> {
    for (const [name] of this) yield name;
  }
  *values(): IterableIterator<string> {
    for (const [, value] of this) yield value;
  }
  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.entries();
  }
  get [Symbol.toStringTag](): string {
    return "Headers";
  }
  #checkWritable(): void {
    if (this.#immutable) throw new TypeError("Headers are immutable");
  }
  static {
    freeze = (headers) => void (headers.#immutable = true);
  }
}

/** Makes headers refuse every change, as those of `Response.error()` and `Response.redirect()` do. */
export function makeImmutable(headers: Headers): void {
  freeze(headers);
}

function checkName(name: unknown, method: string): string {
  const text = String(name);
  if (!TOKEN.test(text)) throw new TypeError(`Headers.${method}: '${text}' is not a legal header name`);
  return text.toLowerCase();
}

function checkValue(value: unknown, method: string): string {
  const text = String(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
  if (VALUE_REFUSED.test(text)) throw new TypeError(`Headers.${method}: not a legal header value`);
  return text;
}
