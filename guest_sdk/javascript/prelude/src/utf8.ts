// UTF-8 in both directions for the prelude's own use: the engine's native functions where it has them.

import { engine } from "./host.ts";

export function utf8Encode(text: string): Uint8Array<ArrayBuffer> {
  return (engine.utf8Encode === undefined ? new TextEncoder().encode(text) : engine.utf8Encode(text)) as Uint8Array<ArrayBuffer>;
}

/** Decodes as the platform's `text()` does: a byte order mark is dropped, malformed input becomes U+FFFD. */
export function utf8Decode(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
