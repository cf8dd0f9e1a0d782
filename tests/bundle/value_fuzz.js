// Runs inside the engine beside `original` (the package's functions) and `native` (ours).

let seed = 1;
function random(bound) {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 4294967296) * bound);
}
const pick = (items) => items[random(items.length)];

function bitsOf(number) {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, number);
  return view.getBigUint64(0).toString(16);
}

function describe(value, seen = new Set()) {
  if (typeof value === "number") return `number ${bitsOf(value)}`;
  if (typeof value !== "object" || value === null) return `${typeof value} ${String(value)}`;
  if (seen.has(value)) return "cycle";
  if (value instanceof ArrayBuffer) return `buffer [${new Uint8Array(value)}]`;
  if (value instanceof original.CommitTsPlaceholder) return "placeholder";
  const inner = new Set(seen).add(value);
  const prototype = Object.getPrototypeOf(value);
  const kind = prototype === Object.prototype ? "object" : prototype === Array.prototype ? "array" : `odd ${describe(prototype, inner)}`;
  const parts = Reflect.ownKeys(value).map((key) => {
    const own = Object.getOwnPropertyDescriptor(value, key);
    return `${String(key)}:${own.writable}${own.enumerable}${own.configurable}=${describe(own.value, inner)}`;
  });
  return `${kind} ${Object.isExtensible(value)} {${parts.join()}}`;
}

function outcome(run) {
  try {
    return describe(run());
  } catch (error) {
    return `${error?.name}: ${error?.message}`;
  }
}

function compareCalls(name, left, right) {
  const expected = outcome(left), got = outcome(right);
  return expected === got ? "equal" : `${name}: expected ${expected} got ${got}`.slice(0, 4000);
}

// -- values ----------------------------------------------------------------------------------------------------

let effects = [];
class Point { constructor() { this.x = 1; } }
const KEYS = ["a", "b", "z", "_id", "name", "Zeta", "a b", "", "~", "10", "2", "4294967295", "01", "__proto__", "constructor", "toString",
  "x".repeat(20), "$bad", "$bytes", "$integer", "$float", "$undefined", "é", "a\n", "k".repeat(1024), "k".repeat(1025), "\u{1f600}"];
const PLAIN_KEYS = KEYS.slice(0, 9).concat(["title", "author", "body", "count"]);
const NUMBERS = [0, -0, 1, -1, 1.5, NaN, Infinity, -Infinity, 2 ** 31, -(2 ** 31), 2 ** 53, 1e300, 5e-324, 4294967295];
const BIGINTS = [0n, 1n, -1n, 2n ** 31n, -(2n ** 31n), 2n ** 63n - 1n, -(2n ** 63n), 2n ** 63n, -(2n ** 63n) - 1n, 2n ** 200n, 255n];
const ODD = [
  () => undefined, () => Symbol("s"), () => () => 1, () => new Set([1, "a"]), () => new Map([[1, 2]]), () => new Point(), () => new Date(0),
  () => new Uint8Array([1, 2]), () => /x/g, () => new Error("e"), () => Object.create(null), () => Object.create({ inherited: 1 }),
  () => Object.freeze({ a: 1, b: 2 }), () => Object.freeze([1, 2]), () => new Proxy({ a: 1 }, { get: (t, k) => (effects.push(String(k)), t[k]) }),
  () => new Proxy([1, 2], { get: (t, k) => (effects.push(String(k)), t[k]) }), () => ({ get a() { effects.push("get"); return 1; } }),
  () => Object.defineProperty({ b: 1 }, "hidden", { value: 2 }), () => ({ [Symbol("k")]: 1, a: 2 }), () => [1, , 3], () => Object.assign([1], { extra: 1 }),
  () => new (class extends Array {})(3), () => new original.CommitTsPlaceholder(), () => new Proxy({}, { ownKeys() { throw new Error("trap"); } }),
  () => Object(1), () => Object("s"), () => Object(1n), () => (function () { return arguments; })(1, 2), () => new SharedArrayBuffer(2),
  () => { const o = {}; o.self = o; return o; }, () => { const o = { a: 1, b: 2, c: 3 }; delete o.b; return o; }, () => globalThis.undefinedName,
  () => { const b = new ArrayBuffer(4); b.transfer?.(); return b; }, () => Object.setPrototypeOf(new ArrayBuffer(2), null), () => Promise.resolve(1),
  () => ({ a: undefined, b: 1, c: undefined }), () => ({ toJSON() { return 1; } }), () => new WeakMap(), () => Object.assign(Object.create(null), { b: 1, a: 2 }),
];

function text() {
  return pick(["", "a", "hello", "é", "\u{1f600}", "\ud800", "x".repeat(100), "$", "a" + random(100) + "b", "q\"\\/\b\f\n\r\t\u0001\u007f\u2028", "é\n\ud800", "日本\u{1f600}\udc00"]);
}

function bytes() {
  const out = new Uint8Array(random(20));
  for (let i = 0; i < out.length; i++) out[i] = random(256);
  return out.buffer;
}

function value(depth, odd) {
  const kind = random(depth > 0 ? 12 : 8);
  if (odd && random(12) === 0) return pick(ODD)();
  if (kind === 0) return null;
  if (kind === 1) return random(2) === 0;
  if (kind <= 3) return random(2) ? pick(NUMBERS) : random(1000) / 8;
  if (kind === 4) return pick(BIGINTS.slice(0, odd ? 11 : 7));
  if (kind === 5) return bytes();
  if (kind <= 7) return text();
  if (kind <= 9) return Array.from({ length: random(5) }, () => value(depth - 1, odd));
  const out = {};
  for (let i = random(6); i > 0; i--) out[pick(odd && random(4) === 0 ? KEYS : PLAIN_KEYS)] = value(depth - 1, odd);
  return out;
}

const TO_JSON = ["convexToJson", "patchValueToJson", "convexOrUndefinedToJson"];

function compareConversion(name, convert, argument, round) {
  effects = [];
  const expected = outcome(() => original[convert](argument)), expectedEffects = effects.join();
  effects = [];
  const got = outcome(() => native[convert](argument)), gotEffects = effects.join();
  if (expected !== got) return `${name} ${convert} ${round}: expected ${expected} got ${got}`.slice(0, 4000);
  return expectedEffects === gotEffects ? "equal" : `${name} ${convert} ${round}: effects ${expectedEffects} and ${gotEffects}`;
}

function compareText(name, argument, round) {
  effects = [];
  const expected = outcome(() => JSON.stringify(original.convexToJson(argument))), expectedEffects = effects.join();
  effects = [];
  const got = outcome(() => native.convexToJsonText(argument)), gotEffects = effects.join();
  if (expected !== got) return `${name} text ${round}: expected ${expected} got ${got}`.slice(0, 4000);
  return expectedEffects === gotEffects ? "equal" : `${name} text ${round}: effects ${expectedEffects} and ${gotEffects}`;
}

// What a bound operation sends, against JSON.stringify: any value at all may be the argument.
function fuzzArguments(first, count) {
  seed = first;
  for (let round = 0; round < count; round++) {
    const argument = random(2) ? value(4, round % 2 === 1) : json2(random(3));
    effects = [];
    const expected = outcome(() => JSON.stringify(argument)), expectedEffects = effects.join();
    effects = [];
    const own = (op, given) => JSON.stringify(given);
    const ask = __skerry.bindOperation(own);
    const got = outcome(() => {
      const answer = ask("echo", argument);
      return typeof answer === "object" ? __skerry.hostcall("last", "null") : answer;
    });
    const gotEffects = effects.join();
    if (expected !== got) return `arguments ${round}: expected ${expected} got ${got}`.slice(0, 4000);
    if (expectedEffects !== gotEffects) return `arguments ${round}: effects ${expectedEffects} and ${gotEffects}`;
  }
  return "equal";
}

function json2(depth) {
  try { return JSON.parse(json(depth)); } catch { return undefined; }
}

function fuzzValues(first, count) {
  seed = first;
  for (let round = 0; round < count; round++) {
    const argument = value(4, round % 2 === 1);
    const before = outcome(() => argument);
    for (const convert of TO_JSON.concat(["jsonToConvex"])) {
      const result = compareConversion("value", convert, argument, round);
      if (result !== "equal") return result;
    }
    const result = compareText("value", argument, round);
    if (result !== "equal") return result;
    if (outcome(() => argument) !== before) return `round ${round} changed its argument`;
  }
  return "equal";
}

// -- JSON ------------------------------------------------------------------------------------------------------

const ENCODED = ['{"$integer":"AAAAAAAAAAA="}', '{"$integer":"__________8="}', '{"$integer":"AAAA"}', '{"$integer":1}', '{"$bytes":"aGVsbG8="}', '{"$bytes":""}',
  '{"$bytes":"a"}', '{"$bytes":"a=b="}', '{"$bytes":"===="}', '{"$bytes":"a b "}', '{"$bytes":"-_-_"}', '{"$bytes":"éééé"}', '{"$bytes":null}',
  '{"$float":"AAAAAAAA+H8="}', '{"$float":"AAAAAAAAAIA="}', '{"$float":"AAAAAAAA8D8="}', '{"$float":"AQAAAAAA+H8="}', '{"$float":[]}', '{"$commitTs":null}',
  '{"$commitTs":1}', '{"$set":[]}', '{"$map":[]}', '{"$undefined":null}', '{"$other":1}', '{"$bytes":"aGVsbG8=","a":1}', '{"__proto__":{"a":1}}', '{"__proto__":1,"b":2}',
  '{"2":1,"1":2,"a":3}', '{"a":1,"a":2}', '{"constructor":1,"toString":2}', "-0", "1e400", '"\\ud800"', '{"\\u00e9":1}', '{"":1}', '{"a\\n":1}', "[]", "{}",
  '{"$integer":"AAAAAAAAAAA"}', '{"$integer":"AAAAAAAAAAAAAAAA"}', '{"$bytes":"ab=="}', '{"$bytes":"abc="}', '{"$bytes":"ab=c"}', "[[[[[[{}]]]]]]"];

function json(depth) {
  if (random(8) === 0) return pick(ENCODED);
  const kind = random(depth > 0 ? 8 : 5);
  if (kind === 0) return pick(["null", "true", "false"]);
  if (kind <= 2) return String(random(100000) / 16 - 100);
  if (kind <= 4) return JSON.stringify(text());
  const items = Array.from({ length: random(5) }, () => json(depth - 1));
  if (kind === 5) return `[${items.join(random(2) ? "," : " , ")}]`;
  return `{${items.map((item) => `${JSON.stringify(pick(random(10) ? PLAIN_KEYS : KEYS))}:${item}`).join()}}`;
}

function alike() {
  const keys = PLAIN_KEYS.slice(random(4), 5 + random(6));
  const one = () => `{${keys.filter(() => random(12)).map((key) => `${JSON.stringify(random(30) ? key : pick(KEYS))}:${json(random(3))}`).join()}}`;
  return `[${Array.from({ length: 2 + random(6) }, one).join()}]`;
}

function fuzzJson(first, count) {
  seed = first;
  for (let round = 0; round < count; round++) {
    const source = random(50) === 0 ? json(2).slice(1) : random(3) ? json(4) : alike();
    const whole = compareCalls(`text ${round} ${source}`, () => original.jsonToConvex(JSON.parse(source)), () => native.jsonTextToConvex(source));
    if (whole !== "equal") return whole;
    let parsed;
    try { parsed = JSON.parse(source); } catch { continue; }
    const result = compareConversion("json", "jsonToConvex", parsed, source);
    if (result !== "equal") return result;
  }
  return "equal";
}

// -- named -----------------------------------------------------------------------------------------------------

function namedCases() {
  const deep = (count) => { let out = 1; for (let i = 0; i < count; i++) out = i % 2 ? [out] : { a: out }; return out; };
  const wide = (count) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${(i * 7919) % count}`, i]));
  const cases = [...ODD.map((make) => make), ...ENCODED.map((source) => () => JSON.parse(source)), () => deep(60), () => deep(100), () => wide(255), () => wide(256),
    () => wide(257), () => wide(1025), () => Array.from({ length: 9000 }, (_, i) => ({ i, s: "x" + i })), () => [undefined], () => [[Symbol("x")]], () => ({ a: { b: undefined } }),
    () => ({ b: 1, a: undefined }), () => "a".repeat(10) + "b".repeat(5000), () => ({ s: "l".repeat(9000) + "r".repeat(9000) })];
  for (const [round, make] of cases.entries()) {
    for (const convert of TO_JSON.concat(["jsonToConvex"])) {
      const result = compareConversion("named", convert, make(), round);
      if (result !== "equal") return result;
    }
    const result = compareText("named", make(), round);
    if (result !== "equal") return result;
  }
  for (const [prototype, sample] of [[Object.prototype, { a: [1] }], [Array.prototype, { a: [1] }]]) {
    prototype.toJSON = function () { effects.push("toJSON"); return "own"; };
    const result = compareText("toJSON", sample, 0);
    delete prototype.toJSON;
    if (result !== "equal") return result;
  }
  Object.defineProperty(Object.prototype, "title", { set() { effects.push("set"); }, configurable: true });
  const tampered = compareConversion("tampered", "convexToJson", { title: 1, a: 2 }, 0);
  const tamperedBack = compareConversion("tampered", "jsonToConvex", { a: 2, get b() { return 1; } }, 0);
  delete Object.prototype.title;
  return tampered === "equal" ? tamperedBack : tampered;
}

function shareTakenNatively(count) {
  seed = 99;
  let asked = 0;
  const probe = __skerry.bindValues({ ...original, convexToJson: (v) => (asked++, original.convexToJson(v)) });
  for (let i = 0; i < count; i++) try { probe.convexToJson(value(4, false)); } catch {}
  return 1 - asked / count;
}
null;
