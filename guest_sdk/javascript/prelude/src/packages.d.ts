// Types of packages that carry none.

declare module "object-inspect" {
  export default function inspect(value: unknown, options?: { indent?: number; quoteStyle?: "single"; maxStringLength?: number }): string;
}

declare module "punycode/punycode.es6.js" {
  const punycode: { encode(text: string): string; decode(text: string): string };
  export default punycode;
}

declare module "whatwg-url" {
  export const URL: unknown;
  export const URLSearchParams: unknown;
}

// The package has types, but its "exports" hide them.
declare module "event-target-shim" {
  const event: typeof globalThis.Event;
  const target: typeof globalThis.EventTarget;
  export class Event extends event {}
  export class EventTarget extends target {}
  export function setWarningHandler(handler: () => void): void;
}
