// Little text that asks for much time, memory or stack.
import { query } from "./server";

const deep = (depth: number, wrap: (inner: any) => any, value: any = 1) => {
  for (let i = 0; i < depth; i++) value = wrap(value);
  return value;
};
const MANY = 1 << 20;

const BOMBS: Record<string, () => any> = {
  regexBacktracks: () => /^(a+)+$/.test("a".repeat(40) + "!"),
  regexNested: () => /(x+x+)+y/.test("x".repeat(5000)),
  regexLookbehind: () => /(?<=(a|aa)+)$/.exec("a".repeat(60) + "b"),
  regexCompile: () => new RegExp("(".repeat(100000) + ")".repeat(100000)).source.length,
  regexCounts: () => new RegExp("(?:a{0,65535}){0,65535}".repeat(20)).test("a".repeat(1000)),
  regexBackreference: () => /^(.*?),(.*?),\1\2$/.test("a,".repeat(3000)),
  regexReplaceGlobal: () => "a".repeat(1 << 20).replace(/a/g, "$`").length,
  repeat: () => "x".repeat(2 ** 30).length,
  repeatDoubling: () => {
    let text = "x";
    for (;;) text += text;
  },
  pad: () => "".padStart(2 ** 29, "ab").length,
  replaceAll: () => "a".repeat(1 << 14).replaceAll("a", "b".repeat(1 << 16)).length,
  joinHuge: () => new Array(2 ** 28).join("ab").length,
  splitHuge: () => "x".repeat(1 << 24).split("").length,
  arrayFill: () => new Array(2 ** 32 - 1).fill(0).length,
  arrayFrom: () => Array.from({ length: 2 ** 32 - 1 }).length,
  arrayConcat: () => {
    let list: number[] = [1];
    for (;;) list = list.concat(list);
  },
  arrayFlat: () => {
    const list: any[] = [];
    list.push(list, list);
    return (list as any).flat(Infinity).length;
  },
  arraySortLies: () => Array.from({ length: 200000 }, (_, i) => i).sort(() => (Math.random() < 0.5 ? -1 : 1)).length,
  arraySortGrows: () => {
    const list = [3, 2, 1];
    list.sort(() => (list.push(...list), 1));
    return list.length;
  },
  typedArray: () => new Float64Array(2 ** 28).length,
  arrayBuffer: () => new ArrayBuffer(2 ** 53 - 1).byteLength,
  resizableBuffer: () => new (ArrayBuffer as any)(8, { maxByteLength: 2 ** 52 }).byteLength,
  resizeFlood: () => {
    const kept: any[] = [];
    for (;;) {
      const buffer = new (ArrayBuffer as any)(1, { maxByteLength: 1 << 24 });
      buffer.resize(1 << 24);
      kept.push(buffer);
    }
  },
  bigintPower: () => String((2n ** 4000000n) ** 3n).length,
  bigintShift: () => (1n << (1n << 30n)).toString().length,
  bigintText: () => (3n ** 3000000n).toString().length,
  bigintParse: () => BigInt("9".repeat(5000000)) > 0n,
  jsonDeep: () => JSON.parse("[".repeat(1000000) + "]".repeat(1000000)),
  jsonWide: () => JSON.parse(`[${"[],".repeat(4000000)}[]]`).length,
  jsonStringifyDeep: () => JSON.stringify(deep(1000000, (inner) => [inner])).length,
  jsonIndent: () => JSON.stringify(deep(3000, (inner) => [inner]), null, 10).length,
  jsonReviver: () => JSON.parse("[1]", function (this: any) { this.push?.(...this); return this; }),
  stringifyGrows: () => JSON.stringify({ toJSON() { return this; }, get a() { return { b: "x".repeat(MANY) }; } }).length,
  evalDeep: () => (0, eval)("(".repeat(200000) + "1" + ")".repeat(200000)),
  evalArrays: () => (0, eval)("[".repeat(200000) + "]".repeat(200000)),
  evalBlocks: () => (0, eval)("{".repeat(200000) + "}".repeat(200000)),
  evalTernary: () => (0, eval)("1?".repeat(100000) + "1" + ":1".repeat(100000)),
  evalLong: () => (0, eval)("a = 1;".repeat(2000000)),
  evalTemplates: () => (0, eval)("`${".repeat(50000) + "1" + "}`".repeat(50000)),
  functionArguments: () => new Function(...Array.from({ length: 70000 }, (_, i) => `a${i}`), "return 1")(),
  spreadArguments: () => Math.max(...new Array(5000000).fill(1)),
  applyArguments: () => String.fromCharCode.apply(null, { length: 2 ** 31 } as any),
  boundChain: () => deep(100000, (inner) => inner.bind(null), () => 1)(),
  proxyChain: () => deep(100000, (inner) => new Proxy(inner, {}), {}).a,
  prototypeChain: () => deep(1000000, (inner) => Object.create(inner), {}).a,
  getterRecursion: () => ({ get a(): any { return this.a; } }).a,
  toStringRecursion: () => `${deep(200000, (inner) => [inner])}`,
  toPrimitive: () => +({ [Symbol.toPrimitive](): any { return +(this as any); } } as any),
  compareDeep: () => String(deep(100000, (inner) => ({ toString: () => `${inner}` }), "x")),
  cloneDeep: () => structuredClone(deep(500000, (inner) => [inner])),
  cloneWide: () => structuredClone(Array.from({ length: 300000 }, () => ({ a: [1] }))).length,
  inspectDeep: () => console.log(deep(500000, (inner) => ({ inner }))),
  inspectWide: () => console.log(Array.from({ length: 500000 }, (_, i) => ({ i }))),
  generatorForever: () => {
    for (const _ of (function* () { for (;;) yield 1; })());
  },
  asyncIteratorForever: async () => {
    for await (const _ of (async function* () { for (;;) yield 1; })());
  },
  microtasks: async () => {
    const again = (): Promise<void> => Promise.resolve().then(again);
    return await again();
  },
  microtaskFork: async () => {
    const fork = async (): Promise<void> => void (await null, fork(), fork());
    await fork();
    await new Promise(() => {});
  },
  promiseChain: async () => {
    let chain: Promise<number> = Promise.resolve(1);
    for (let i = 0; i < 300000; i++) chain = chain.then((n) => n + 1);
    return await chain;
  },
  promiseNested: async () => await deep(300000, (inner) => new Promise((resolve) => resolve(inner)), Promise.resolve("inner")),
  promiseAll: async () => (await Promise.all(new Array(500000).fill(1))).length,
  rejections: async () => {
    for (let i = 0; i < 500000; i++) void Promise.reject(i);
    return "returned";
  },
  weakRefs: () => {
    const kept: any[] = [];
    for (let i = 0; i < 1000000; i++) kept.push(new WeakRef({ i }));
    return kept[0].deref().i;
  },
  symbols: () => {
    for (let i = 0; ; i++) Symbol.for(`s${i}`);
  },
  shapes: () => {
    const kept: any[] = [];
    for (let i = 0; ; i++) kept.push({ [`a${i}`]: 1, [`b${i}`]: 2 });
  },
  closures: () => {
    const kept: any[] = [];
    for (;;) kept.push(() => kept);
  },
  textDecoder: () => new TextDecoder().decode(new Uint8Array(1 << 25)).length,
  urlLong: () => new URL(`http://a/${"../".repeat(1000000)}`).href.length,
  urlHost: () => new URL(`http://${"a.".repeat(500000)}b/`).href.length,
  urlPercent: () => new URLSearchParams("%41=%42&".repeat(500000)).toString().length,
  normalize: () => "\u1e9b\u0323".repeat(1000000).normalize("NFKD").length,
  localeCompare: () => "a".repeat(1 << 22).localeCompare("a".repeat(1 << 22)),
  atob: () => atob("A".repeat(1 << 24)).length,
  dateParse: () => Number.isNaN(Date.parse("1".repeat(1 << 24))),
  parseFloat: () => parseFloat("1".repeat(1 << 24)) > 0,
  toFixed: () => Array.from({ length: 100000 }, (_, i) => (1e20 / (i + 1)).toFixed(100)).length,
  headers: () => {
    const all = new Headers();
    for (let i = 0; i < 20000; i++) all.append(`h${i}`, "v");
    return [...all].length;
  },
  logFlood: () => {
    for (let i = 0; i < 100001; i++) console.log(i);
  },
};

export const run = query({ handler: async (_ctx, { what }: any) => (await BOMBS[what]!()) ?? null });
