// `FormData`, and the multipart form in which it travels.

import { Blob, blobBytes, File } from "./blob.ts";
import { concatenate } from "./bytes.ts";
import { utf8Decode, utf8Encode } from "./utf8.ts";

type Entry = string | File;

export class FormData {
  #entries: Array<[string, Entry]> = [];

  constructor(form?: unknown) {
    if (form !== undefined) throw new TypeError("FormData: there are no forms to read from here");
  }
  append(name: unknown, value: unknown, filename?: unknown): void {
    this.#entries.push([String(name), toEntry(value, filename)]);
  }
  set(name: unknown, value: unknown, filename?: unknown): void {
    const key = String(name);
    const entry = toEntry(value, filename);
    const at = this.#entries.findIndex(([each]) => each === key);
    if (at < 0) {
      this.#entries.push([key, entry]);
      return;
    }
    this.#entries[at] = [key, entry];
    this.#entries = this.#entries.filter(([each], i) => i <= at || each !== key);
  }
  delete(name: unknown): void {
    this.#entries = this.#entries.filter(([each]) => each !== String(name));
  }
  get(name: unknown): Entry | null {
    return this.#entries.find(([each]) => each === String(name))?.[1] ?? null;
  }
  getAll(name: unknown): Entry[] {
    return this.#entries.filter(([each]) => each === String(name)).map(([, value]) => value);
  }
  has(name: unknown): boolean {
    return this.#entries.some(([each]) => each === String(name));
  }
  forEach(callback: (value: Entry, name: string, form: FormData) => void, thisArg?: unknown): void {
    for (const [name, value] of this) callback.call(thisArg, value, name, this);
  }
  *entries(): IterableIterator<[string, Entry]> {
    for (let i = 0; i < this.#entries.length; i++) yield [...this.#entries[i]!];
  }
  *keys(): IterableIterator<string> {
    for (const [name] of this) yield name;
  }
  *values(): IterableIterator<Entry> {
    for (const [, value] of this) yield value;
  }
  [Symbol.iterator](): IterableIterator<[string, Entry]> {
    return this.entries();
  }
  get [Symbol.toStringTag](): string {
    return "FormData";
  }
}

function toEntry(value: unknown, filename: unknown): Entry {
  if (!(value instanceof Blob)) return String(value);
  if (value instanceof File && filename === undefined) return value;
  return new File([value], filename === undefined ? "blob" : String(filename), { type: value.type });
}

const escapeName = (name: string) => name.replace(/\n/g, "%0A").replace(/\r/g, "%0D").replace(/"/g, "%22");
const normalizeLines = (text: string) => text.replace(/\r\n?|\n/g, "\r\n");

export function encodeMultipart(form: FormData): { bytes: Uint8Array<ArrayBuffer>; type: string } {
  let boundary = "----skerryFormBoundary";
  for (let i = 0; i < 16; i++) boundary += Math.floor(Math.random() * 36).toString(36);
  const parts: Uint8Array[] = [];
  for (const [name, value] of form) {
    const head = `--${boundary}\r\nContent-Disposition: form-data; name="${escapeName(normalizeLines(name))}"`;
    if (typeof value === "string") {
      parts.push(utf8Encode(`${head}\r\n\r\n${normalizeLines(value)}\r\n`));
    } else {
      const type = value.type || "application/octet-stream";
      parts.push(utf8Encode(`${head}; filename="${escapeName(value.name)}"\r\nContent-Type: ${type}\r\n\r\n`));
      parts.push(blobBytes(value), utf8Encode("\r\n"));
    }
  }
  parts.push(utf8Encode(`--${boundary}--\r\n`));
  return { bytes: concatenate(parts), type: `multipart/form-data; boundary=${boundary}` };
}

export function decodeMultipart(bytes: Uint8Array, boundary: string): FormData {
  const form = new FormData();
  const delimiter = utf8Encode(`\r\n--${boundary}`);
  // The first delimiter may stand at the very beginning, without a line break before it.
  const body = concatenate([utf8Encode("\r\n"), bytes]);
  let at = indexOf(body, delimiter, 0);
  while (at >= 0) {
    let start = at + delimiter.length;
    if (body[start] === 0x2d && body[start + 1] === 0x2d) return form;
    while (body[start] === 0x20 || body[start] === 0x09) start++;
    if (body[start] !== 0x0d || body[start + 1] !== 0x0a) break;
    const end = indexOf(body, delimiter, start);
    if (end < 0) break;
    decodePart(form, body.subarray(start, end));
    at = end;
  }
  throw new TypeError("the multipart body is malformed");
}

function decodePart(form: FormData, part: Uint8Array): void {
  const headEnd = indexOf(part, utf8Encode("\r\n\r\n"), 0);
  if (headEnd < 0) throw new TypeError("the multipart body is malformed: a part has no end of its headers");
  const content = part.subarray(headEnd + 4);
  let disposition = "";
  let type = "";
  for (const header of utf8Decode(part.subarray(0, headEnd)).split("\r\n")) {
    const colon = header.indexOf(":");
    const name = header.slice(0, colon).trim().toLowerCase();
    if (name === "content-disposition") disposition = header.slice(colon + 1);
    if (name === "content-type") type = header.slice(colon + 1).trim();
  }
  const name = parameter(disposition, "name");
  if (name === null) throw new TypeError("the multipart body is malformed: a part has no name");
  const filename = parameter(disposition, "filename");
  if (filename === null) form.append(name, utf8Decode(content));
  else form.append(name, new File([content], filename, { type: type || "text/plain" }));
}

function parameter(disposition: string, name: string): string | null {
  const match = new RegExp(`;\\s*${name}=(?:"([^"]*)"|([^;\\s]*))`, "i").exec(disposition);
  if (match === null) return null;
  return (match[1] ?? match[2] ?? "").replace(/%0A/gi, "\n").replace(/%0D/gi, "\r").replace(/%22/g, '"');
}

function indexOf(bytes: Uint8Array, wanted: Uint8Array, from: number): number {
  const first = wanted[0]!;
  for (let at = bytes.indexOf(first, from); at >= 0; at = bytes.indexOf(first, at + 1)) {
    let i = 1;
    while (i < wanted.length && bytes[at + i] === wanted[i]) i++;
    if (i === wanted.length) return at;
  }
  return -1;
}
