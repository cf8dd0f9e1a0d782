// The prelude: every global that a function finds besides the language's own, installed in the order below.
//
// Evaluated once, when an image is made, before the app's bundle; the state it leaves is part of the image. Nothing here
// may keep what belongs to one call (times, ids, random values) outside the hooks that the invoker resets.

import { installAsyncContext } from "./async_context.ts";
import { installConsole } from "./console.ts";
import { installConvex } from "./convex.ts";
import { define, defineLazy, remove } from "./globals.ts";
import { installLocale } from "./locale.ts";
import { installProcess } from "./process.ts";
import { installRegister } from "./register.ts";
import { installTimers } from "./timers.ts";
import { warm } from "./warm.ts";
import { installWeak } from "./weak.ts";

declare const require: (path: string) => Record<string, unknown>;

define("self", globalThis);
installConvex();
installConsole();
installProcess();
installTimers();
installLocale();
installWeak();
installAsyncContext();
installRegister();

// The paths are literals, so that the bundler wraps each module in a function that runs at first use.
defineLazy(["TextEncoder", "TextDecoder", "TextEncoderStream", "TextDecoderStream"], () => require("./encoding.ts"));
defineLazy(["URL", "URLSearchParams"], () => require("./url.ts"));
defineLazy(["Event", "EventTarget", "AbortController", "AbortSignal"], () => require("./events.ts"));
defineLazy(["Blob", "File"], () => require("./blob.ts"));
defineLazy(["FormData"], () => require("./form_data.ts"));
defineLazy(["Headers"], () => require("./headers.ts"));
defineLazy(["Request", "Response"], () => require("./request.ts"));
defineLazy(
  [
    "ReadableStream",
    "ReadableStreamDefaultReader",
    "ReadableStreamBYOBReader",
    "WritableStream",
    "WritableStreamDefaultWriter",
    "TransformStream",
  ],
  () => require("./streams.ts"),
);
defineLazy(["structuredClone"], () => require("./structured_clone.ts"));
defineLazy(["Crypto", "SubtleCrypto", "CryptoKey", "crypto"], () => require("./crypto.ts"));
defineLazy(["Performance", "PerformanceEntry", "PerformanceMark", "PerformanceMeasure", "performance"], () =>
  require("./performance.ts"),
);

// What an engine may bring along and the platform does not have.
for (const name of ["Buffer", "require", "window", "navigator", "CustomEvent", "setImmediate"]) remove(name);
for (const name of ["ByteLengthQueuingStrategy", "CountQueuingStrategy"]) remove(name);

warm();
