// `performance`: the call's clock counted from the call's begin. In queries and mutations that clock stands still.

import { onCallBegin } from "./call.ts";
import { structuredClone } from "./structured_clone.ts";

const CONSTRUCT = Symbol("construct");

// Read when first asked for, so that a call which never asks does not depend on time.
let origin: number | undefined;
let entries: PerformanceEntry[] = [];
onCallBegin(() => {
  origin = undefined;
  entries = [];
});

function timeOrigin(): number {
  origin ??= Date.now();
  return origin;
}

export class PerformanceEntry {
  readonly name: string;
  readonly entryType: string;
  readonly startTime: number;
  readonly duration: number;
  constructor(token: symbol, name: string, entryType: string, startTime: number, duration: number) {
    if (token !== CONSTRUCT) throw new TypeError("Illegal constructor");
    this.name = name;
    this.entryType = entryType;
    this.startTime = startTime;
    this.duration = duration;
  }
  toJSON(): object {
    return { name: this.name, entryType: this.entryType, startTime: this.startTime, duration: this.duration };
  }
  get [Symbol.toStringTag](): string {
    return "PerformanceEntry";
  }
}

export class PerformanceMark extends PerformanceEntry {
  readonly detail: unknown;
  constructor(name: unknown, options: { startTime?: number; detail?: unknown } = {}) {
    const startTime = options.startTime ?? performance.now();
    if (startTime < 0) throw new TypeError("a mark's startTime cannot be negative");
    super(CONSTRUCT, String(name), "mark", startTime, 0);
    this.detail = options.detail === undefined ? null : structuredClone(options.detail);
  }
  get [Symbol.toStringTag](): string {
    return "PerformanceMark";
  }
}

export class PerformanceMeasure extends PerformanceEntry {
  readonly detail: unknown;
  constructor(token: symbol, name: string, startTime: number, duration: number, detail: unknown) {
    super(token, name, "measure", startTime, duration);
    this.detail = detail === undefined ? null : structuredClone(detail);
  }
  get [Symbol.toStringTag](): string {
    return "PerformanceMeasure";
  }
}

interface MeasureOptions {
  start?: unknown;
  end?: unknown;
  duration?: number;
  detail?: unknown;
}

// The global, not the module: events.ts must be loaded by the getter that hides the globals meanwhile (see globals.ts).
export class Performance extends globalThis.EventTarget {
  constructor(token?: symbol) {
    if (token !== CONSTRUCT) throw new TypeError("Illegal constructor");
    super();
  }
  get timeOrigin(): number {
    return timeOrigin();
  }
  now(): number {
    const start = timeOrigin();
    return Date.now() - start;
  }
  mark(name: unknown, options?: { startTime?: number; detail?: unknown }): PerformanceMark {
    const mark = new PerformanceMark(name, options);
    entries.push(mark);
    return mark;
  }
  measure(name: unknown, startOrOptions?: unknown, endMark?: unknown): PerformanceMeasure {
    const options: MeasureOptions =
      typeof startOrOptions === "object" && startOrOptions !== null ? startOrOptions : { start: startOrOptions, end: endMark };
    const end =
      options.end !== undefined
        ? this.#at(options.end)
        : options.start !== undefined && options.duration !== undefined
          ? this.#at(options.start) + options.duration
          : this.now();
    const start =
      options.start !== undefined ? this.#at(options.start) : options.duration !== undefined ? end - options.duration : 0;
    const measure = new PerformanceMeasure(CONSTRUCT, String(name), start, end - start, options.detail);
    entries.push(measure);
    return measure;
  }
  clearMarks(name?: unknown): void {
    entries = entries.filter((entry) => entry.entryType !== "mark" || (name !== undefined && entry.name !== String(name)));
  }
  clearMeasures(name?: unknown): void {
    entries = entries.filter((entry) => entry.entryType !== "measure" || (name !== undefined && entry.name !== String(name)));
  }
  getEntries(): PerformanceEntry[] {
    return [...entries].sort((a, b) => a.startTime - b.startTime);
  }
  getEntriesByName(name: unknown, type?: string): PerformanceEntry[] {
    return this.getEntries().filter((entry) => entry.name === String(name) && (type === undefined || entry.entryType === type));
  }
  getEntriesByType(type: string): PerformanceEntry[] {
    return this.getEntries().filter((entry) => entry.entryType === type);
  }
  toJSON(): object {
    return { timeOrigin: this.timeOrigin };
  }
  #at(mark: unknown): number {
    if (typeof mark === "number") return mark;
    const found = entries.findLast((entry) => entry.entryType === "mark" && entry.name === String(mark));
    if (found === undefined) throw new DOMException(`The mark '${String(mark)}' does not exist.`, "SyntaxError");
    return found.startTime;
  }
  get [Symbol.toStringTag](): string {
    return "Performance";
  }
}

export const performance = new Performance(CONSTRUCT);
