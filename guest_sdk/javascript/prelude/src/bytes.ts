// Small helpers on bytes.

/** The bytes a buffer source covers, without a copy; null for anything else. */
export function viewOf(value: unknown): Uint8Array<ArrayBuffer> | null {
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer as ArrayBuffer, value.byteOffset, value.byteLength);
  return null;
}

/** A copy of the bytes of a buffer source. */
export function copyOf(value: unknown, what: string): Uint8Array<ArrayBuffer> {
  const view = viewOf(value);
  if (view === null) throw new TypeError(`${what}: expected an ArrayBuffer or a view of one`);
  return view.slice();
}

export function concatenate(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  let length = 0;
  for (const part of parts) length += part.length;
  const result = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    result.set(part, offset);
    offset += part.length;
  }
  return result;
}

const CHUNK = 4096;

/** Bytes as base64 (the standard alphabet, padded), as hostcall arguments carry them. */
export function toBase64(bytes: Uint8Array): string {
  let binary = "";
  for (let i = 0; i < bytes.length; i += CHUNK) binary += String.fromCharCode(...bytes.subarray(i, i + CHUNK));
  return btoa(binary);
}

export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
