// The algorithms of `crypto.subtle`: their names and parameters as the standard reads them, and who may do what with a key.

import { toBase64, viewOf } from "./bytes.ts";
import type { Usage } from "./crypto_key.ts";

export type Operation = "digest" | "sign" | "verify" | "encrypt" | "decrypt" | "generateKey" | "importKey" | "deriveBits" | "wrapKey";

export interface Algorithm {
  name: string;
  hash?: string;
  length?: number;
  namedCurve?: string;
  public?: unknown;
  [parameter: string]: unknown;
}

interface KeyKinds {
  secret?: readonly Usage[];
  public?: readonly Usage[];
  private?: readonly Usage[];
  /** A secret that other keys are derived from: imported as raw bytes, never exported or generated. */
  derives?: boolean;
}

const CIPHER: readonly Usage[] = ["encrypt", "decrypt", "wrapKey", "unwrapKey"];
const DERIVE: readonly Usage[] = ["deriveKey", "deriveBits"];
const SIGNATURE: KeyKinds = { public: ["verify"], private: ["sign"] };
const AGREEMENT: KeyKinds = { public: [], private: DERIVE };

/** What each kind of key of an algorithm may be used for. */
export const USAGES: Record<string, KeyKinds> = {
  HMAC: { secret: ["sign", "verify"] },
  "AES-GCM": { secret: CIPHER },
  "AES-CBC": { secret: CIPHER },
  "AES-CTR": { secret: CIPHER },
  "AES-KW": { secret: ["wrapKey", "unwrapKey"] },
  PBKDF2: { secret: DERIVE, derives: true },
  HKDF: { secret: DERIVE, derives: true },
  "RSASSA-PKCS1-v1_5": SIGNATURE,
  "RSA-PSS": SIGNATURE,
  "RSA-OAEP": { public: ["encrypt", "wrapKey"], private: ["decrypt", "unwrapKey"] },
  ECDSA: SIGNATURE,
  ECDH: AGREEMENT,
  Ed25519: SIGNATURE,
  X25519: AGREEMENT,
};

const HASHES = ["SHA-1", "SHA-256", "SHA-384", "SHA-512"];
export const HASH_BLOCK_BITS: Record<string, number> = { "SHA-1": 512, "SHA-256": 512, "SHA-384": 1024, "SHA-512": 1024 };

const SIGNERS = ["HMAC", "RSASSA-PKCS1-v1_5", "RSA-PSS", "ECDSA", "Ed25519"];
const CIPHERS = ["AES-GCM", "AES-CBC", "AES-CTR", "RSA-OAEP"];
const OFFERED: Record<Operation, readonly string[]> = {
  digest: HASHES,
  sign: SIGNERS,
  verify: SIGNERS,
  encrypt: CIPHERS,
  decrypt: CIPHERS,
  generateKey: Object.keys(USAGES),
  importKey: Object.keys(USAGES),
  deriveBits: ["PBKDF2", "HKDF", "ECDH", "X25519"],
  wrapKey: [...CIPHERS, "AES-KW"],
};

// With which operations an algorithm's dictionary has a hash of its own (elsewhere the key has it).
const HASH_AT_USE = new Set(["ECDSA", "HKDF", "PBKDF2"]);
const HASH_IN_KEY = new Set(["HMAC", "RSASSA-PKCS1-v1_5", "RSA-PSS", "RSA-OAEP"]);
const BUFFERS = ["iv", "additionalData", "counter", "label", "salt", "info", "publicExponent"];
const NUMBERS = ["length", "tagLength", "iterations", "saltLength", "modulusLength"];
const REQUIRED: Record<string, readonly string[]> = {
  "AES-GCM": ["iv"],
  "AES-CBC": ["iv"],
  "AES-CTR": ["counter", "length"],
  PBKDF2: ["salt", "iterations"],
  HKDF: ["salt", "info"],
  "RSA-PSS": ["saltLength"],
};

export function fail(name: string, message: string): DOMException {
  return new DOMException(message, name);
}

/** An algorithm as the standard normalizes it: canonical name, copied parameters. */
export function normalize(given: unknown, operation: Operation): Algorithm {
  const source = (typeof given === "object" && given !== null ? given : { name: given }) as Record<string, unknown>;
  if (source.name === undefined) throw new TypeError("the algorithm has no name");
  const algorithm: Algorithm = { name: canonical(String(source.name), OFFERED[operation]) };
  const forKey = operation === "importKey" || operation === "generateKey";
  if (forKey ? HASH_IN_KEY.has(algorithm.name) : HASH_AT_USE.has(algorithm.name)) {
    if (source.hash === undefined) throw new TypeError(`${algorithm.name}: the hash is missing`);
    const hash = source.hash as string | { name?: unknown };
    algorithm.hash = canonical(String(typeof hash === "object" && hash !== null ? hash.name : hash), HASHES);
  }
  for (const name of NUMBERS) if (source[name] !== undefined) algorithm[name] = toWhole(source[name], name);
  for (const name of BUFFERS) if (source[name] !== undefined) algorithm[name] = toBytes(source[name], name);
  if (source.namedCurve !== undefined) algorithm.namedCurve = String(source.namedCurve);
  if (source.public !== undefined) algorithm.public = source.public;
  if (!forKey) {
    for (const name of REQUIRED[algorithm.name] ?? []) {
      if (algorithm[name] === undefined) throw new TypeError(`${algorithm.name}: the parameter '${name}' is missing`);
    }
  }
  return algorithm;
}

/** The algorithm as a hostcall's argument carries it: bytes as base64. */
export function algorithmParameters(algorithm: Algorithm): Record<string, unknown> {
  const parameters: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(algorithm)) {
    if (name !== "public") parameters[name] = value instanceof Uint8Array ? toBase64(value) : value;
  }
  return parameters;
}

function canonical(name: string, offered: readonly string[]): string {
  const wanted = name.toLowerCase();
  const found = offered.find((each) => each.toLowerCase() === wanted);
  if (found === undefined) throw fail("NotSupportedError", `Unrecognized algorithm name '${name}'`);
  return found;
}

function toWhole(value: unknown, name: string): number {
  const number = Number(value);
  if (!Number.isFinite(number) || number < 0) throw new TypeError(`the parameter '${name}' is not a number in range`);
  return Math.trunc(number);
}

function toBytes(value: unknown, name: string): Uint8Array {
  const view = viewOf(value);
  if (view === null) throw new TypeError(`the parameter '${name}' is not an ArrayBuffer or a view of one`);
  return view.slice();
}
