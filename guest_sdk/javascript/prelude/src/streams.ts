// The stream classes, from web-streams-polyfill, whose code follows the standard's own reference implementation.

export {
  ReadableStream,
  ReadableStreamBYOBReader,
  ReadableStreamDefaultReader,
  TransformStream,
  WritableStream,
  WritableStreamDefaultWriter,
} from "web-streams-polyfill";
