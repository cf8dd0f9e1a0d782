// `fetch`, on the host's operations: a head comes with the first ticket, the body when it is asked for.
//
// Whoever wants the whole body gets it in one operation; `response.body` reads it chunk by chunk, as fast as it is drunk.

import { engine, type HostError } from "./host.ts";
import { type Incoming, Request, type Response, responseOf, signalOf, takeBody } from "./request.ts";
import { utf8Encode } from "./utf8.ts";

interface Head {
  status: number;
  statusText: string;
  url: string;
  redirected: boolean;
  headers: Array<[string, string]>;
  text?: string; // the whole body, where it came with the head
}

const NULL_BODY_STATUS = new Set([101, 103, 204, 205, 304]);
let last = 0;

export async function fetchFromHost(input: unknown, init?: unknown): Promise<Response> {
  const request = new Request(input, (init ?? {}) as ConstructorParameters<typeof Request>[1]);
  const signal = signalOf(request);
  signal?.throwIfAborted();
  const exchange = new Exchange(++last);
  const body = takeBody(request);
  const argument = JSON.stringify({
    id: exchange.id,
    method: request.method,
    url: request.url.split("#", 1)[0],
    headers: [...request.headers],
    redirect: request.redirect,
    eager: true,
    body: body === null ? "none" : body instanceof Uint8Array ? "bytes" : "stream",
  });
  const started = engine.hostcallAsync("fetch/start", argument, body instanceof Uint8Array ? body : undefined);
  if (body !== null && !(body instanceof Uint8Array)) void send(exchange, body as ReadableStream<Uint8Array>);
  let head: Head;
  try {
    head = JSON.parse(await (signal === null ? started : Promise.race([started, exchange.untilAborted(signal)]))) as Head;
  } catch (error) {
    exchange.isOver = true;
    throw signal?.aborted === true ? signal.reason : failure(error);
  }
  const hasBody = request.method !== "HEAD" && !NULL_BODY_STATUS.has(head.status);
  if (head.text !== undefined) exchange.arrived(head.text);
  else if (!hasBody) exchange.cancel();
  return responseOf(head, hasBody ? exchange : null);
}

function failure(error: unknown): TypeError {
  const { message, code } = error as HostError;
  const shown: HostError = new TypeError(`fetch failed: ${message}`);
  if (code !== undefined) shown.code = code;
  return shown as TypeError;
}

// The guest's side of one fetch: its number, and the body of the answer.
class Exchange implements Incoming {
  readonly id: number;
  isOver = false;
  #text: string | null = null;
  #reason: unknown;
  #isAborted = false;
  #controller: ReadableByteStreamController | undefined;

  constructor(id: number) {
    this.id = id;
  }
  arrived(text: string): void {
    this.#text = text;
    this.isOver = true;
  }
  async whole(): Promise<Uint8Array<ArrayBuffer>> {
    if (this.#text !== null) return utf8Encode(this.#text);
    const bytes = await this.#read(readBytes, `"whole":true`);
    this.isOver = true;
    return bytes;
  }
  // The host decodes: it has the tables at hand.
  async text(): Promise<string> {
    if (this.#text !== null) return this.#text;
    const text = await this.#read((argument) => engine.hostcallAsync("fetch/read", argument), `"whole":true,"text":true`);
    this.isOver = true;
    return text;
  }
  stream(): ReadableStream<Uint8Array> {
    if (this.#text !== null) return new Blob([this.#text]).stream();
    return new ReadableStream({
      type: "bytes",
      start: (controller: ReadableByteStreamController) => {
        this.#controller = controller;
      },
      pull: async (controller: ReadableByteStreamController) => {
        const chunk = await this.#read(readBytes, `"whole":false`);
        if (chunk.length > 0) {
          controller.enqueue(chunk);
          return;
        }
        this.isOver = true;
        controller.close();
        controller.byobRequest?.respond(0);
      },
      cancel: () => this.cancel(),
    });
  }
  cancel(): void {
    if (this.isOver) return;
    this.isOver = true;
    engine.hostcall("fetch/cancel", `{"id":${this.id}}`);
  }
  // Rejects when the signal aborts, from now until the body's end.
  untilAborted(signal: AbortSignal): Promise<never> {
    const aborted = new Promise<never>((_resolve, reject) => {
      signal.addEventListener("abort", () => {
        this.abort(signal.reason);
        reject(signal.reason);
      });
    });
    aborted.catch(() => {}); // an abort after the end is nobody's failure
    return aborted;
  }
  abort(reason: unknown): void {
    if (this.isOver) return;
    this.#isAborted = true;
    this.#reason = reason;
    this.cancel();
    this.#controller?.error(reason);
  }
  async #read<T>(read: (argument: string) => Promise<T>, options: string): Promise<T> {
    if (this.#isAborted) throw this.#reason;
    try {
      return await read(`{"id":${this.id},${options}}`);
    } catch (error) {
      this.isOver = true;
      throw this.#isAborted ? this.#reason : failure(error);
    }
  }
}

function readBytes(argument: string): Promise<Uint8Array<ArrayBuffer>> {
  return engine.hostcallAsyncBytes("fetch/read", argument);
}

// Sends a streamed body: the host asks for the next chunk by answering for the one before it.
async function send(exchange: Exchange, body: ReadableStream<Uint8Array>): Promise<void> {
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (exchange.isOver) {
        await reader.cancel();
        return;
      }
      if (!done && !(value instanceof Uint8Array)) throw new TypeError("a body's stream must give Uint8Array chunks");
      await engine.hostcallAsync("fetch/write", `{"id":${exchange.id},"last":${done}}`, done ? undefined : value);
      if (done) return;
    }
  } catch (error) {
    if (exchange.isOver) return;
    const message = JSON.stringify(String((error as Error | null)?.message ?? error));
    await engine.hostcallAsync("fetch/write", `{"id":${exchange.id},"last":true,"failure":${message}}`).catch(() => {});
  }
}
