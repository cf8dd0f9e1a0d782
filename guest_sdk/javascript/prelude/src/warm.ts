// Built-in functions that ordinary calls use. The engine makes each one when it is first read; read here, it is made with the
// image, and a call need not make it (which for a method of strings copies the layout of all of them).

const USED: Array<[object, string]> = [
  [Array, "from isArray"],
  [Array.prototype, "at concat entries every fill filter find findIndex flat flatMap forEach includes indexOf join map pop push"],
  [Array.prototype, "reduce reverse shift slice some sort splice unshift"],
  [Date, "now"],
  [Date.prototype, "getTime toISOString"],
  [JSON, "parse stringify"],
  [Map.prototype, "delete entries forEach get has keys set values"],
  [Math, "abs ceil floor max min round"],
  [Number, "isFinite isInteger isNaN"],
  [Number.prototype, "toFixed toString"],
  [Object, "assign create defineProperty entries freeze fromEntries getPrototypeOf hasOwn keys values"],
  [Object.prototype, "hasOwnProperty toString"],
  [Promise, "all allSettled reject resolve"],
  [Promise.prototype, "catch finally then"],
  [Set.prototype, "add delete forEach has values"],
  [String.prototype, "charCodeAt endsWith includes indexOf lastIndexOf localeCompare padStart repeat replace replaceAll slice"],
  [String.prototype, "split startsWith substring toLowerCase toUpperCase trim"],
  [Symbol, "for"],
];

declare const require: (path: string) => Record<string, unknown>;

// What a fetch needs of the prelude: loading it in each call that fetches takes longer than the rest of the call.
function warmFetch(): void {
  const scope = globalThis as unknown as { Request: new (url: string) => object; Response: new (body: null) => object };
  void [new scope.Request("http://localhost/"), new scope.Response(null), require("./fetch.ts")];
}

export function warm(): void {
  warmFetch();
  for (const [owner, names] of USED) for (const name of names.split(" ")) Reflect.get(owner, name);
  Reflect.get(Function.prototype, Symbol.hasInstance);
  for (const iterable of [Array.prototype, String.prototype, Map.prototype, Set.prototype]) Reflect.get(iterable, Symbol.iterator);
}
