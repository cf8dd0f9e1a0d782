// `CryptoKey`: what a program may see of a key, and the material that only this prelude sees.

export type Usage = "encrypt" | "decrypt" | "sign" | "verify" | "deriveKey" | "deriveBits" | "wrapKey" | "unwrapKey";
export type KeyType = "secret" | "public" | "private";

export interface KeyAlgorithm {
  name: string;
  hash?: { name: string };
  length?: number;
  namedCurve?: string;
  modulusLength?: number;
  publicExponent?: Uint8Array;
}

/** Shown to constructors that programs may not call. */
export const CONSTRUCT = Symbol("construct");

type Material = Uint8Array<ArrayBuffer>;

let make: (type: KeyType, extractable: boolean, algorithm: KeyAlgorithm, usages: readonly Usage[], material: Material) => CryptoKey;
let read: (key: CryptoKey) => Material;

export class CryptoKey {
  #type: KeyType = "secret";
  #extractable = false;
  #algorithm: KeyAlgorithm = { name: "" };
  #usages: readonly Usage[] = [];
  #material: Material = new Uint8Array();

  constructor(token?: symbol) {
    if (token !== CONSTRUCT) throw new TypeError("Illegal constructor");
  }
  get type(): KeyType {
    return this.#type;
  }
  get extractable(): boolean {
    return this.#extractable;
  }
  get algorithm(): KeyAlgorithm {
    return this.#algorithm;
  }
  get usages(): readonly Usage[] {
    return this.#usages;
  }
  get [Symbol.toStringTag](): string {
    return "CryptoKey";
  }
  static {
    make = (type, extractable, algorithm, usages, material) => {
      const key = new CryptoKey(CONSTRUCT);
      key.#type = type;
      key.#extractable = extractable;
      // Frozen, since what is decided by them must not be changed by the program that holds the key.
      key.#algorithm = Object.freeze(algorithm);
      key.#usages = Object.freeze([...usages]);
      key.#material = material;
      return key;
    };
    read = (key) => key.#material;
  }
}

export const makeKey = make!;
export const materialOf = read!;
