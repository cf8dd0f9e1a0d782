// `TextEncoder`, `TextDecoder` and their streams, from @exodus/bytes: its lite entry, which leaves out the tables of the
// legacy multi-byte encodings (175 KB). Where the engine has native UTF-8, that does the work.

import * as lite from "@exodus/bytes/encoding-lite.js";
import { engine } from "./host.ts";

class NativeTextEncoder extends lite.TextEncoder {
  encode(text = ""): Uint8Array<ArrayBuffer> {
    return engine.utf8Encode!(String(text)) as Uint8Array<ArrayBuffer>;
  }
}

export const TextEncoder = engine.utf8Encode === undefined ? lite.TextEncoder : NativeTextEncoder;
export const { TextDecoder, TextDecoderStream, TextEncoderStream } = lite;
