// State that belongs to one call. A call starts from the image, in which code at module level may have touched it.

const resets: Array<() => void> = [];

/** Registers what must be forgotten when a call begins. */
export function onCallBegin(reset: () => void): void {
  resets.push(reset);
}

export function beginCall(): void {
  "use hot";
  for (let i = 0; i < resets.length; i++) resets[i]!();
}
