// `Request` and `Response` with their bodies. Bodies are bytes until somebody asks for `body`: only then is there a stream.

import { Blob, blobBytes } from "./blob.ts";
import { concatenate, viewOf } from "./bytes.ts";
import { decodeMultipart, encodeMultipart, FormData } from "./form_data.ts";
import { Headers, type HeadersInit, makeImmutable } from "./headers.ts";
import { utf8Decode, utf8Encode } from "./utf8.ts";

type Source = Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array> | null;

/** A body that is still with the host: whole in one piece, or as a stream. */
export interface Incoming {
  whole(): Promise<Uint8Array<ArrayBuffer>>;
  text(): Promise<string>;
  stream(): ReadableStream<Uint8Array>;
}

let take: (request: Request) => Source;
let signalIfAny: (request: Request) => AbortSignal | null;
let receive: (head: ResponseHead, incoming: Incoming | null) => Response;

interface BodyInit {
  source: Source;
  type: string | null;
}

const METHOD = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const NORMALIZED_METHODS = new Set(["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"]);
const REFUSED_METHODS = new Set(["CONNECT", "TRACE", "TRACK"]);
const NULL_BODY_STATUS = new Set([101, 103, 204, 205, 304]);
const REDIRECT_STATUS = new Set([301, 302, 303, 307, 308]);

function extractBody(value: unknown): BodyInit {
  if (value === null || value === undefined) return { source: null, type: null };
  if (isStream(value)) {
    if (value.locked) throw new TypeError("a body cannot be a locked or disturbed stream");
    return { source: value, type: null };
  }
  if (typeof value === "string") return { source: utf8Encode(value), type: "text/plain;charset=UTF-8" };
  if (value instanceof Blob) return { source: blobBytes(value), type: value.type || null };
  const view = viewOf(value);
  if (view !== null) return { source: view.slice(), type: null };
  if (value instanceof URLSearchParams) {
    return { source: utf8Encode(value.toString()), type: "application/x-www-form-urlencoded;charset=UTF-8" };
  }
  if (value instanceof FormData) {
    const { bytes, type } = encodeMultipart(value);
    return { source: bytes, type };
  }
  return { source: utf8Encode(String(value)), type: "text/plain;charset=UTF-8" };
}

// Asked in this order, so that a call without streams does not load them.
function isStream(value: unknown): value is ReadableStream<Uint8Array> {
  return typeof value === "object" && typeof (value as ReadableStream).getReader === "function" && value instanceof ReadableStream;
}

class Body {
  #source: Source;
  #incoming: Incoming | null = null;
  #stream: ReadableStream<Uint8Array> | null = null;
  #used = false;
  readonly headers: Headers;

  constructor(source: Source, headers: Headers) {
    this.#source = source;
    this.headers = headers;
    if (source !== null && !(source instanceof Uint8Array)) this.#stream = source;
    Object.defineProperty(this, "headers", { value: headers, enumerable: true, writable: false, configurable: true });
  }
  get body(): ReadableStream<Uint8Array> | null {
    this.#receiveStream();
    if (this.#source === null) return null;
    if (this.#stream === null) {
      const bytes = this.#source as Uint8Array<ArrayBuffer>;
      this.#stream = this.#used ? new ReadableStream() : new Blob([bytes]).stream();
      if (this.#used) void this.#stream.cancel();
    }
    return this.#stream;
  }
  get bodyUsed(): boolean {
    return this.#used || isDisturbed(this.#stream);
  }
  protected setIncoming(incoming: Incoming): void {
    this.#incoming = incoming;
  }
  // From here on what the host still has is a stream like any other.
  #receiveStream(): void {
    if (this.#incoming === null) return;
    if (this.#used) this.#source = new Uint8Array();
    else this.#source = this.#stream = this.#incoming.stream();
    this.#incoming = null;
  }
  // What the host still has, for whoever reads all of it; from here on the body counts as read.
  #takeIncoming(): Incoming | null {
    if (this.#incoming === null) return null;
    if (this.#used) throw new TypeError("Body is unusable: Body has already been read");
    this.#used = true;
    return this.#incoming;
  }
  async #text(): Promise<string> {
    const incoming = this.#takeIncoming();
    return incoming === null ? utf8Decode(await this.#consume()) : incoming.text();
  }
  async #consume(): Promise<Uint8Array<ArrayBuffer>> {
    const incoming = this.#takeIncoming();
    if (incoming !== null) return incoming.whole();
    if (this.#source === null) return new Uint8Array();
    if (this.bodyUsed || this.#stream?.locked === true) throw new TypeError("Body is unusable: Body has already been read");
    this.#used = true;
    if (this.#stream === null) return this.#source as Uint8Array<ArrayBuffer>;
    const reader = this.#stream.getReader();
    const chunks: Uint8Array[] = [];
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return concatenate(chunks);
      if (!(value instanceof Uint8Array)) throw new TypeError("a body's stream must give Uint8Array chunks");
      chunks.push(value);
    }
  }
  async arrayBuffer(): Promise<ArrayBuffer> {
    return (await this.#consume()).slice().buffer;
  }
  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    return (await this.#consume()).slice();
  }
  async blob(): Promise<Blob> {
    return new Blob([await this.#consume()], { type: this.headers.get("content-type") ?? "" });
  }
  async text(): Promise<string> {
    return this.#text();
  }
  async json(): Promise<unknown> {
    return JSON.parse(await this.#text()) as unknown;
  }
  async formData(): Promise<FormData> {
    const type = this.headers.get("content-type") ?? "";
    const boundary = /^multipart\/form-data\s*;.*?\bboundary=(?:"([^"]+)"|([^;\s]+))/i.exec(type);
    if (boundary !== null) return decodeMultipart(await this.#consume(), (boundary[1] ?? boundary[2])!);
    if (!/^application\/x-www-form-urlencoded\s*(;|$)/i.test(type)) throw new TypeError(`'${type}' is not the content type of a form`);
    const form = new FormData();
    for (const [name, value] of new URLSearchParams(utf8Decode(await this.#consume()))) form.append(name, value);
    return form;
  }
  protected cloneSource(): Source {
    this.#receiveStream();
    if (this.bodyUsed || this.#stream?.locked === true) throw new TypeError("a body that has been read cannot be cloned");
    if (this.#stream === null) return this.#source;
    const [mine, other] = this.#stream.tee();
    this.#stream = mine;
    this.#source = mine;
    return other;
  }
  // The body moves to another Request; this one counts as read.
  protected moveSource(): Source {
    this.#receiveStream();
    if (this.#source === null) return null;
    if (this.bodyUsed || this.#stream?.locked === true) throw new TypeError("Body is unusable: Body has already been read");
    this.#used = true;
    return this.#stream ?? this.#source;
  }
}

function isDisturbed(stream: ReadableStream | null): boolean {
  // The package keeps the flag of the standard under the standard's own name.
  return (stream as { _disturbed?: boolean } | null)?._disturbed === true;
}

interface RequestInit {
  method?: unknown;
  headers?: HeadersInit;
  body?: unknown;
  signal?: AbortSignal | null;
  [option: string]: unknown;
}

const REQUEST_OPTIONS: Record<string, string> = {
  cache: "default",
  credentials: "same-origin",
  integrity: "",
  mode: "cors",
  redirect: "follow",
  referrer: "about:client",
  referrerPolicy: "",
};

export class Request extends Body {
  #method: string;
  #url: string;
  #given: AbortSignal | null; // the signal is made from it when somebody asks
  #signal: AbortSignal | null = null;
  #options: Record<string, unknown> = {};

  constructor(input: unknown, init: RequestInit = {}) {
    const from = input instanceof Request ? input : null;
    const url = from === null ? parseUrl(input) : from.#url;
    const method = init.method === undefined ? (from?.method ?? "GET") : checkMethod(init.method);
    const hasBody = init.body !== undefined && init.body !== null;
    const inherits = from !== null && !hasBody;
    if ((hasBody || (inherits && from.body !== null)) && (method === "GET" || method === "HEAD")) {
      throw new TypeError("Request with GET/HEAD method cannot have body.");
    }
    const { source, type } = hasBody ? extractBody(init.body) : { source: from === null ? null : from.moveSource(), type: null };
    const headers = new Headers(init.headers ?? from?.headers);
    if (type !== null && !headers.has("content-type")) headers.append("content-type", type);
    super(source, headers);
    this.#method = method;
    this.#url = url;
    const signal = (init.signal === undefined ? (from === null ? null : signalIfAny(from)) : init.signal) ?? null;
    if (signal !== null && !(signal instanceof AbortSignal)) throw new TypeError("Request: the signal is not an AbortSignal");
    this.#given = signal;
    const inherited = from === null ? {} : from.#options;
    for (const [name, otherwise] of Object.entries(REQUEST_OPTIONS)) this.#options[name] = init[name] ?? inherited[name] ?? otherwise;
    this.#options.keepalive = Boolean(init.keepalive ?? inherited.keepalive ?? false);
  }
  get method(): string {
    return this.#method;
  }
  get url(): string {
    return this.#url;
  }
  get signal(): AbortSignal {
    this.#signal ??= AbortSignal.any(this.#given === null ? [] : [this.#given]);
    return this.#signal;
  }
  get cache(): unknown {
    return this.#options.cache;
  }
  get credentials(): unknown {
    return this.#options.credentials;
  }
  get destination(): string {
    return "";
  }
  get duplex(): string {
    return "half";
  }
  get integrity(): unknown {
    return this.#options.integrity;
  }
  get keepalive(): unknown {
    return this.#options.keepalive;
  }
  get mode(): unknown {
    return this.#options.mode;
  }
  get redirect(): unknown {
    return this.#options.redirect;
  }
  get referrer(): unknown {
    return this.#options.referrer;
  }
  get referrerPolicy(): unknown {
    return this.#options.referrerPolicy;
  }
  clone(): Request {
    const copy = new Request(this.#url, { method: this.#method, headers: this.headers, signal: signalIfAny(this), ...this.#options });
    return this.body === null && !this.bodyUsed ? copy : Request.#withBody(copy, this.cloneSource());
  }
  static #withBody(request: Request, source: Source): Request {
    return new Request(request.#url, {
      method: request.#method,
      headers: request.headers,
      signal: signalIfAny(request),
      ...request.#options,
      body: source,
    });
  }
  get [Symbol.toStringTag](): string {
    return "Request";
  }
  static {
    take = (request) => request.moveSource();
    signalIfAny = (request) => (request.#given === null && request.#signal === null ? null : request.signal);
  }
}

/** The signal of a request, null where nothing can abort it. */
export function signalOf(request: Request): AbortSignal | null {
  return signalIfAny(request);
}

/** The body of a request that is about to be sent; the request counts as read. */
export function takeBody(request: Request): Source {
  return take(request);
}

// Addresses that are their own normal form, which need no parser: most that programs write.
const NORMAL_URL = /^https?:\/\/(?:localhost|(?:[a-z][a-z0-9-]*\.)+[a-z]{2,}|127\.0\.0\.1)(?::(?!80\/|443\/)(?:[1-5][0-9]{4}|[1-9][0-9]{0,3}))?\/(?:[\w-]+\/)*[\w-]*(?:\?[\w=&-]*)?$/;

function parseUrl(input: unknown): string {
  if (typeof input === "string" && NORMAL_URL.test(input) && !input.includes("xn--")) return input;
  let url: URL;
  try {
    url = new URL(String(input));
  } catch {
    throw new TypeError(`Failed to parse URL from ${String(input)}`);
  }
  if (url.username !== "" || url.password !== "") throw new TypeError(`Request cannot be constructed from a URL that includes credentials: ${String(input)}`);
  return url.href;
}

function checkMethod(method: unknown): string {
  const text = String(method);
  const upper = text.toUpperCase();
  if (!METHOD.test(text) || REFUSED_METHODS.has(upper)) throw new TypeError(`'${text}' is not a valid HTTP method.`);
  return NORMALIZED_METHODS.has(upper) ? upper : text;
}

interface ResponseInit {
  status?: unknown;
  statusText?: unknown;
  headers?: HeadersInit;
}

export class Response extends Body {
  #status: number;
  #statusText: string;
  #type = "default";
  #url = "";
  #redirected = false;

  constructor(body?: unknown, init: ResponseInit = {}) {
    const status = init.status === undefined ? 200 : Math.trunc(Number(init.status));
    if (!(status >= 200 && status <= 599)) throw new RangeError("the status of a Response must be in the range 200 to 599");
    const statusText = init.statusText === undefined ? "" : String(init.statusText);
    if (/[^\t\x20-\x7E\x80-\xFF]/.test(statusText)) throw new TypeError("Invalid statusText");
    const headers = new Headers(init.headers);
    if (body !== undefined && body !== null && NULL_BODY_STATUS.has(status)) {
      throw new TypeError(`a Response with status ${status} cannot have a body`);
    }
    const { source, type } = extractBody(body);
    if (type !== null && !headers.has("content-type")) headers.append("content-type", type);
    super(source, headers);
    this.#status = status;
    this.#statusText = statusText;
  }
  get type(): string {
    return this.#type;
  }
  get url(): string {
    return this.#url;
  }
  get redirected(): boolean {
    return this.#redirected;
  }
  get status(): number {
    return this.#status;
  }
  get ok(): boolean {
    return this.#status >= 200 && this.#status <= 299;
  }
  get statusText(): string {
    return this.#statusText;
  }
  clone(): Response {
    const copy = new Response(this.cloneSource(), { status: this.#status || 200, statusText: this.#statusText, headers: this.headers });
    copy.#status = this.#status;
    copy.#type = this.#type;
    copy.#url = this.#url;
    copy.#redirected = this.#redirected;
    return copy;
  }
  static error(): Response {
    const response = new Response();
    response.#status = 0;
    response.#type = "error";
    makeImmutable(response.headers);
    return response;
  }
  static redirect(url: unknown, status: number = 302): Response {
    const location = new URL(String(url)).href;
    if (!REDIRECT_STATUS.has(status)) throw new RangeError("Invalid status code");
    const response = new Response(null, { status, headers: { location } });
    makeImmutable(response.headers);
    return response;
  }
  static json(data: unknown, init: ResponseInit = {}): Response {
    const text = JSON.stringify(data);
    if (text === undefined) throw new TypeError("the data is not JSON serializable");
    const headers = new Headers(init.headers);
    if (!headers.has("content-type")) headers.set("content-type", "application/json");
    return new Response(utf8Encode(text), { ...init, headers });
  }
  get [Symbol.toStringTag](): string {
    return "Response";
  }
  static {
    receive = (head, incoming) => {
      const response = new Response(null, { headers: head.headers });
      response.#status = head.status;
      response.#statusText = head.statusText;
      response.#url = head.url;
      response.#redirected = head.redirected;
      makeImmutable(response.headers);
      if (incoming !== null) response.setIncoming(incoming);
      return response;
    };
  }
}

interface ResponseHead {
  status: number;
  statusText: string;
  url: string;
  redirected: boolean;
  headers: Array<[string, string]>;
}

/** The response to a fetch, its body still with the host. */
export function responseOf(head: ResponseHead, incoming: Incoming | null): Response {
  return receive(head, incoming);
}
