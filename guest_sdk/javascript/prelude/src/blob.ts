// `Blob` and `File`, whose bytes are in memory. (The packages for these are made for Node: files, worker threads and dynamic
// imports that an isolate does not have.)

import { concatenate, viewOf } from "./bytes.ts";
import { utf8Decode, utf8Encode } from "./utf8.ts";

const READ_CHUNK_BYTES = 64 * 1024;
let bytesOf: (blob: Blob) => Uint8Array<ArrayBuffer>;

export class Blob {
  #bytes: Uint8Array<ArrayBuffer>;
  #type: string;

  constructor(parts?: Iterable<unknown>, options: { type?: unknown; endings?: unknown } | null = {}) {
    if (parts !== undefined && (parts === null || typeof parts !== "object" || !(Symbol.iterator in parts))) {
      throw new TypeError("Blob: the parts must be a sequence");
    }
    const native = options?.endings === "native";
    const pieces: Uint8Array[] = [];
    for (const part of parts ?? []) {
      const view = viewOf(part);
      if (view !== null) pieces.push(view);
      else if (part instanceof Blob) pieces.push(part.#bytes);
      else pieces.push(utf8Encode(native ? String(part).replace(/\r\n?/g, "\n") : String(part)));
    }
    this.#bytes = concatenate(pieces);
    this.#type = normalizeType(options?.type);
  }
  get size(): number {
    return this.#bytes.length;
  }
  get type(): string {
    return this.#type;
  }
  slice(start = 0, end = this.size, type?: unknown): Blob {
    const blob = new Blob();
    // Blobs never change, so a slice may share what it covers.
    blob.#bytes = this.#bytes.subarray(clamp(start, this.size), Math.max(clamp(start, this.size), clamp(end, this.size)));
    blob.#type = normalizeType(type);
    return blob;
  }
  async arrayBuffer(): Promise<ArrayBuffer> {
    return this.#bytes.slice().buffer;
  }
  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    return this.#bytes.slice();
  }
  async text(): Promise<string> {
    return utf8Decode(this.#bytes);
  }
  stream(): ReadableStream<Uint8Array> {
    const bytes = this.#bytes;
    let offset = 0;
    return new ReadableStream({
      type: "bytes",
      pull(controller: ReadableByteStreamController) {
        if (offset >= bytes.length) {
          controller.close();
          controller.byobRequest?.respond(0);
          return;
        }
        const chunk = bytes.slice(offset, offset + READ_CHUNK_BYTES);
        offset += chunk.length;
        controller.enqueue(chunk);
      },
    });
  }
  get [Symbol.toStringTag](): string {
    return "Blob";
  }
  static {
    bytesOf = (blob) => blob.#bytes;
  }
}

export class File extends Blob {
  #name: string;
  #lastModified: number;

  constructor(parts: Iterable<unknown>, name: unknown, options: { type?: unknown; lastModified?: unknown } | null = {}) {
    if (arguments.length < 2) throw new TypeError("File: 2 arguments are needed");
    super(parts, options);
    this.#name = String(name);
    const modified = options?.lastModified === undefined ? Date.now() : Number(options.lastModified);
    this.#lastModified = Number.isNaN(modified) ? 0 : Math.trunc(modified);
  }
  get name(): string {
    return this.#name;
  }
  get lastModified(): number {
    return this.#lastModified;
  }
  get [Symbol.toStringTag](): string {
    return "File";
  }
}

/** The bytes of a blob, not to be written to. */
export function blobBytes(blob: Blob): Uint8Array<ArrayBuffer> {
  return bytesOf(blob);
}

function normalizeType(type: unknown): string {
  const text = type === undefined ? "" : String(type);
  return /[^\x20-\x7E]/.test(text) ? "" : text.toLowerCase();
}

function clamp(index: number, size: number): number {
  const whole = Math.trunc(Number(index)) || 0;
  return whole < 0 ? Math.max(size + whole, 0) : Math.min(whole, size);
}
