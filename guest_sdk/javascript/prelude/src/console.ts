// `console`, whose lines go to the host one by one.
//
// An argument is shown as object-inspect shows it, strings in single quotes. The host counts lines and cuts them; a line is
// cut here too, well above the host's bound, so that one giant argument does not first become a giant message.

import inspect from "object-inspect";
import { onCallBegin } from "./call.ts";
import { define } from "./globals.ts";
import { engine } from "./host.ts";

// Longer than the host's bound on a line in bytes, so that the host sees that the line was cut.
const LINE_CHARS_MAX = 8 * 1024;

type Level = "DEBUG" | "LOG" | "INFO" | "WARN" | "ERROR";

const timers = new Map<string, number>();

function show(value: unknown): string {
  switch (typeof value) {
    case "number":
      return Object.is(value, -0) ? "-0" : String(value);
    case "boolean":
    case "undefined":
      return String(value);
    default:
      return inspect(value, { indent: 2, quoteStyle: "single", maxStringLength: LINE_CHARS_MAX });
  }
}

function line(values: unknown[]): string {
  let text = "";
  for (let i = 0; i < values.length && text.length <= LINE_CHARS_MAX; i++) text += (i === 0 ? "" : " ") + show(values[i]);
  return text;
}

function write(level: Level, text: string): void {
  const message = text.length > LINE_CHARS_MAX ? text.slice(0, LINE_CHARS_MAX) : text;
  engine.hostcall("log", JSON.stringify({ level, message }));
}

function elapsed(started: number): string {
  return `${Math.round((Date.now() - started) * 1000) / 1000}ms`;
}

const methods = {
  debug: (...values: unknown[]) => write("DEBUG", line(values)),
  log: (...values: unknown[]) => write("LOG", line(values)),
  info: (...values: unknown[]) => write("INFO", line(values)),
  warn: (...values: unknown[]) => write("WARN", line(values)),
  error: (...values: unknown[]) => write("ERROR", line(values)),
  trace(...values: unknown[]) {
    const frames = (new Error().stack ?? "").split("\n");
    if (frames[0]?.startsWith("Error")) frames.shift();
    frames.shift(); // the frame of this method
    write("LOG", `${line(values)}\n${frames.join("\n")}`.trimEnd());
  },
  time(label: unknown = "default") {
    const name = String(label);
    if (timers.has(name)) write("WARN", `Timer '${name}' already exists`);
    else timers.set(name, Date.now());
  },
  timeLog(label: unknown = "default", ...values: unknown[]) {
    const name = String(label);
    const started = timers.get(name);
    if (started === undefined) write("WARN", `Timer '${name}' does not exist`);
    else write("INFO", `${name}: ${elapsed(started)}${values.length === 0 ? "" : ` ${line(values)}`}`);
  },
  timeEnd(label: unknown = "default") {
    const name = String(label);
    const started = timers.get(name);
    if (started === undefined) return write("WARN", `Timer '${name}' does not exist`);
    timers.delete(name);
    write("INFO", `${name}: ${elapsed(started)}`);
  },
};

export function installConsole(): void {
  onCallBegin(() => {
    "use hot";
    if (timers.size > 0) timers.clear();
  });
  const console = {};
  for (const [name, value] of Object.entries(methods)) {
    Object.defineProperty(console, name, { value, writable: true, enumerable: true, configurable: true });
  }
  Object.defineProperty(console, Symbol.toStringTag, { value: "console", configurable: true });
  define("console", console);
}
