// `crypto`: random values, and `crypto.subtle` as host operations (`crypto/*`, see CRYPTO.md).
//
// This file holds the standard's bookkeeping: names, usages, key formats, which error when. The cryptography itself, and the
// reading of asymmetric keys, is the host's.

import { concatenate, copyOf, fromBase64, toBase64, viewOf } from "./bytes.ts";
import {
  CONSTRUCT,
  CryptoKey,
  type KeyAlgorithm,
  type KeyType,
  makeKey,
  materialOf,
  type Usage,
} from "./crypto_key.ts";
import { engine, type HostError, refuseOutsideActions } from "./host.ts";
import { exportSecretJwk, importSecretJwk, type Jwk, jwkAlgorithm, checkJwk } from "./jwk.ts";
import { algorithmParameters, type Algorithm, fail, HASH_BLOCK_BITS, normalize, type Operation, USAGES } from "./crypto_algorithms.ts";
import { utf8Decode, utf8Encode } from "./utf8.ts";

const RANDOM_BYTES_MAX = 65_536;
const RANDOMNESS = "cryptographic randomness";
const INTEGER_ARRAYS = new Set([
  "Int8Array",
  "Uint8Array",
  "Uint8ClampedArray",
  "Int16Array",
  "Uint16Array",
  "Int32Array",
  "Uint32Array",
  "BigInt64Array",
  "BigUint64Array",
]);

const ERROR_NAMES: Record<string, string> = {
  CryptoDataError: "DataError",
  CryptoOperationError: "OperationError",
  CryptoNotSupportedError: "NotSupportedError",
  CryptoInvalidAccessError: "InvalidAccessError",
  CryptoLimitExceeded: "OperationError",
};

type Format = "raw" | "pkcs8" | "spki" | "jwk";
type Host = (op: string, argument: string, raw?: Uint8Array) => unknown;

function host<T>(call: Host, op: string, argument: object, raw?: Uint8Array): T {
  try {
    return call(`crypto/${op}`, JSON.stringify(argument), raw) as T;
  } catch (error) {
    const { code, message } = error as HostError;
    const name = code === undefined ? undefined : ERROR_NAMES[code];
    throw name === undefined ? new Error(message) : new DOMException(message, name);
  }
}

const hostBytes = (op: string, argument: object, raw?: Uint8Array) => host<Uint8Array<ArrayBuffer>>(engine.hostcallBytes, op, argument, raw);
const hostJson = <T>(op: string, argument: object, raw?: Uint8Array) => JSON.parse(host<string>(engine.hostcall, op, argument, raw)) as T;

function bufferOf(bytes: Uint8Array<ArrayBuffer>): ArrayBuffer {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes.buffer : bytes.slice().buffer;
}

function dataOf(value: unknown, method: string): Uint8Array<ArrayBuffer> {
  const view = viewOf(value);
  if (view === null) throw new TypeError(`SubtleCrypto.${method}: the data must be an ArrayBuffer or a view of one`);
  return view;
}

/** The key's material in base64, once it is clear that the key is for this algorithm and this usage. */
function materialFor(key: unknown, algorithm: Algorithm, usage: Usage): string {
  if (!(key instanceof CryptoKey)) throw new TypeError("the key is not a CryptoKey");
  if (key.algorithm.name !== algorithm.name) throw fail("InvalidAccessError", `the key is for ${key.algorithm.name}, not ${algorithm.name}`);
  if (!key.usages.includes(usage)) throw fail("InvalidAccessError", `the key does not have the usage '${usage}'`);
  return toBase64(materialOf(key));
}

/** What the host needs to know of an algorithm: the parameters of this use and those the key was made for. */
function hostAlgorithm(key: CryptoKey, parameters: object): object {
  const { name, hash, namedCurve } = key.algorithm;
  return { name, ...(hash && { hash: hash.name }), ...(namedCurve && { namedCurve }), ...parameters };
}

function checkUsages(usages: readonly Usage[], allowed: readonly Usage[], needed: boolean): Usage[] {
  const distinct = [...new Set(usages)];
  for (const usage of distinct) if (!allowed.includes(usage)) throw new DOMException(`a key of this kind has no usage '${usage}'`, "SyntaxError");
  if (needed && distinct.length === 0) throw new DOMException("usages cannot be empty when creating a key", "SyntaxError");
  return allowed.filter((usage) => distinct.includes(usage));
}

interface ImportedKey {
  type: "public" | "private";
  key: string;
  modulusLength?: number;
  publicExponent?: string;
  namedCurve?: string;
}

function keyFromHost(imported: ImportedKey, algorithm: Algorithm, extractable: boolean, usages: readonly Usage[], generated = false): CryptoKey {
  const described: KeyAlgorithm = { name: algorithm.name };
  if (imported.modulusLength !== undefined) {
    described.modulusLength = imported.modulusLength;
    described.publicExponent = fromBase64(imported.publicExponent!);
    described.hash = { name: algorithm.hash! };
  }
  if (imported.namedCurve !== undefined) described.namedCurve = imported.namedCurve;
  const allowed = USAGES[algorithm.name]![imported.type] ?? [];
  const kept = generated ? allowed.filter((usage) => usages.includes(usage)) : checkUsages(usages, allowed, imported.type === "private");
  return makeKey(imported.type, extractable || imported.type === "public", described, kept, fromBase64(imported.key));
}

function secretKey(algorithm: Algorithm, material: Uint8Array<ArrayBuffer>, extractable: boolean, usages: Usage[]): CryptoKey {
  const described: KeyAlgorithm = { name: algorithm.name };
  const bits = material.length * 8;
  if (algorithm.name.startsWith("AES-")) {
    if (bits !== 128 && bits !== 192 && bits !== 256) throw fail("DataError", "an AES key has 128, 192 or 256 bits");
    described.length = bits;
  } else if (algorithm.name === "HMAC") {
    const wanted = algorithm.length ?? bits;
    if (bits === 0 || wanted > bits || wanted <= bits - 8) throw fail("DataError", "the length does not fit the HMAC key");
    described.hash = { name: algorithm.hash! };
    described.length = wanted;
  } else if (extractable) {
    throw new DOMException(`a key of ${algorithm.name} cannot be extractable`, "SyntaxError");
  }
  return makeKey("secret", extractable, described, usages, material);
}

function importKey(format: Format, data: unknown, algorithm: Algorithm, extractable: boolean, usages: readonly Usage[]): CryptoKey {
  const kinds = USAGES[algorithm.name];
  if (kinds === undefined) throw fail("NotSupportedError", `a key of ${algorithm.name} cannot be imported`);
  if (kinds.secret === undefined) return importPair(format, data, algorithm, extractable, usages);
  const checked = checkUsages(usages, kinds.secret, true);
  if (format === "raw") return secretKey(algorithm, copyOf(data, "importKey"), extractable, checked);
  if (format === "jwk" && kinds.derives !== true) {
    const material = importSecretJwk(data as Jwk, algorithm, extractable, checked);
    return secretKey(algorithm, material, extractable, checked);
  }
  throw fail("NotSupportedError", `a key of ${algorithm.name} cannot be imported as '${format}'`);
}

function importPair(format: Format, data: unknown, algorithm: Algorithm, extractable: boolean, usages: readonly Usage[]): CryptoKey {
  const { name, namedCurve } = algorithm;
  if (format === "jwk") {
    const jwk = data as Jwk;
    const type: KeyType = typeof jwk === "object" && jwk !== null && jwk.d !== undefined ? "private" : "public";
    checkUsages(usages, USAGES[name]![type] ?? [], false);
    checkJwk(jwk, algorithm, extractable, usages);
    return keyFromHost(hostJson("import_key", { format, algorithm: { name, namedCurve }, jwk }), algorithm, extractable, usages);
  }
  const raw = dataOf(data, "importKey");
  return keyFromHost(hostJson("import_key", { format, algorithm: { name, namedCurve } }, raw), algorithm, extractable, usages);
}

function exportKey(format: Format, key: CryptoKey): ArrayBuffer | Jwk {
  if (!(key instanceof CryptoKey)) throw new TypeError("the key is not a CryptoKey");
  if (!key.extractable) throw fail("InvalidAccessError", "the key is not extractable");
  if (key.type === "secret") {
    if (format === "raw") return materialOf(key).slice().buffer;
    if (format === "jwk") return exportSecretJwk(key);
    throw fail("NotSupportedError", `a secret key cannot be exported as '${format}'`);
  }
  const fits = { raw: "public", spki: "public", pkcs8: "private", jwk: key.type }[format];
  if (fits === undefined) throw new TypeError(`'${format}' is not a key format`);
  if (fits !== key.type) throw fail("InvalidAccessError", `a ${key.type} key cannot be exported as '${format}'`);
  const exported = hostJson<{ bytes?: string; jwk?: Jwk }>("export_key", {
    format,
    type: key.type,
    algorithm: { name: key.algorithm.name },
    key: toBase64(materialOf(key)),
  });
  if (exported.bytes !== undefined) return fromBase64(exported.bytes).buffer;
  return { key_ops: [...key.usages], ext: key.extractable, ...exported.jwk, ...jwkAlgorithm(key.algorithm) };
}

function deriveBits(algorithm: Algorithm, key: CryptoKey, length: number | null, usage: "deriveBits" | "deriveKey"): ArrayBuffer {
  const material = materialFor(key, algorithm, usage);
  const other = algorithm.public as CryptoKey | undefined;
  const parameters: Record<string, unknown> = { ...algorithmParameters(algorithm) };
  if (algorithm.name === "ECDH" || algorithm.name === "X25519") {
    if (!(other instanceof CryptoKey)) throw new TypeError(`${algorithm.name}: the other party's public key is missing`);
    if (other.type !== "public" || other.algorithm.name !== algorithm.name) throw fail("InvalidAccessError", "the other party's key does not fit");
    if (other.algorithm.namedCurve !== key.algorithm.namedCurve) throw fail("InvalidAccessError", "the two keys are on different curves");
    parameters.public = toBase64(materialOf(other));
  } else if (length === null || length % 8 !== 0) {
    throw fail("OperationError", "the length must be a multiple of 8 bits");
  }
  return bufferOf(hostBytes("derive_bits", { algorithm: parameters, key: material, length }));
}

/** How many bits a key of this algorithm takes from a derivation; null where it takes all there are. */
function derivedLength(algorithm: Algorithm): number | null {
  if (algorithm.name.startsWith("AES-")) {
    if (![128, 192, 256].includes(algorithm.length as number)) throw fail("OperationError", "an AES key has 128, 192 or 256 bits");
    return algorithm.length!;
  }
  if (algorithm.name === "HMAC") return algorithm.length ?? HASH_BLOCK_BITS[algorithm.hash!]!;
  return null;
}

function crypt(operation: "encrypt" | "decrypt", algorithm: Algorithm, key: CryptoKey, usage: Usage, data: Uint8Array): ArrayBuffer {
  const material = materialFor(key, algorithm, usage);
  const parameters = hostAlgorithm(key, algorithmParameters(algorithm));
  return bufferOf(hostBytes(operation, { algorithm: parameters, key: material }, data));
}

function generateKey(algorithm: Algorithm, extractable: boolean, usages: readonly Usage[]): CryptoKey | { publicKey: CryptoKey; privateKey: CryptoKey } {
  const kinds = USAGES[algorithm.name];
  if (kinds === undefined || kinds.derives === true) throw fail("NotSupportedError", `a key of ${algorithm.name} cannot be generated`);
  if (kinds.secret !== undefined) {
    const checked = checkUsages(usages, kinds.secret, true);
    const { secret } = hostJson<{ secret: string }>("generate_key", { algorithm: algorithmParameters(algorithm) });
    return secretKey(algorithm, fromBase64(secret), extractable, checked);
  }
  const all = [...new Set([...kinds.private!, ...kinds.public!])];
  checkUsages(usages, all, true);
  if (!usages.some((usage) => kinds.private!.includes(usage))) {
    throw new DOMException("usages cannot be empty when creating a key", "SyntaxError");
  }
  const pair = hostJson<{ publicKey: ImportedKey; privateKey: ImportedKey }>("generate_key", { algorithm: algorithmParameters(algorithm) });
  return {
    publicKey: keyFromHost(pair.publicKey, algorithm, true, usages, true),
    privateKey: keyFromHost(pair.privateKey, algorithm, extractable, usages, true),
  };
}

export class SubtleCrypto {
  constructor(token?: symbol) {
    if (token !== CONSTRUCT) throw new TypeError("Illegal constructor");
  }
  async digest(algorithm: unknown, data: unknown): Promise<ArrayBuffer> {
    const { name } = normalize(algorithm, "digest");
    return bufferOf(hostBytes("digest", { hash: name }, dataOf(data, "digest")));
  }
  async sign(algorithm: unknown, key: CryptoKey, data: unknown): Promise<ArrayBuffer> {
    const normalized = normalize(algorithm, "sign");
    const material = materialFor(key, normalized, "sign");
    const parameters = hostAlgorithm(key, algorithmParameters(normalized));
    return bufferOf(hostBytes("sign", { algorithm: parameters, key: material }, dataOf(data, "sign")));
  }
  async verify(algorithm: unknown, key: CryptoKey, signature: unknown, data: unknown): Promise<boolean> {
    const normalized = normalize(algorithm, "verify");
    const material = materialFor(key, normalized, "verify");
    const parameters = hostAlgorithm(key, algorithmParameters(normalized));
    const given = toBase64(dataOf(signature, "verify"));
    return hostJson("verify", { algorithm: parameters, key: material, signature: given }, dataOf(data, "verify"));
  }
  async encrypt(algorithm: unknown, key: CryptoKey, data: unknown): Promise<ArrayBuffer> {
    return crypt("encrypt", normalize(algorithm, "encrypt"), key, "encrypt", dataOf(data, "encrypt"));
  }
  async decrypt(algorithm: unknown, key: CryptoKey, data: unknown): Promise<ArrayBuffer> {
    return crypt("decrypt", normalize(algorithm, "decrypt"), key, "decrypt", dataOf(data, "decrypt"));
  }
  async generateKey(algorithm: unknown, extractable: boolean, usages: readonly Usage[]): Promise<unknown> {
    refuseOutsideActions(RANDOMNESS);
    return generateKey(normalize(algorithm, "generateKey"), Boolean(extractable), usages);
  }
  async deriveBits(algorithm: unknown, key: CryptoKey, length: number | null = null): Promise<ArrayBuffer> {
    return deriveBits(normalize(algorithm, "deriveBits"), key, length, "deriveBits");
  }
  async deriveKey(algorithm: unknown, key: CryptoKey, derived: unknown, extractable: boolean, usages: readonly Usage[]): Promise<CryptoKey> {
    const normalized = normalize(algorithm, "deriveBits");
    const target = normalize(derived, "importKey");
    const bits = deriveBits(normalized, key, derivedLength(target), "deriveKey");
    return importKey("raw", bits, target, Boolean(extractable), usages);
  }
  async importKey(format: Format, data: unknown, algorithm: unknown, extractable: boolean, usages: readonly Usage[]): Promise<CryptoKey> {
    return importKey(format, data, normalize(algorithm, "importKey"), Boolean(extractable), usages);
  }
  async exportKey(format: Format, key: CryptoKey): Promise<ArrayBuffer | Jwk> {
    return exportKey(format, key);
  }
  async wrapKey(format: Format, key: CryptoKey, wrappingKey: CryptoKey, algorithm: unknown): Promise<ArrayBuffer> {
    const normalized = normalize(algorithm, "wrapKey");
    const material = materialFor(wrappingKey, normalized, "wrapKey");
    const exported = exportKey(format, key);
    const bytes = exported instanceof ArrayBuffer ? new Uint8Array(exported) : utf8Encode(JSON.stringify(exported));
    if (normalized.name === "AES-KW") return bufferOf(hostBytes("wrap", { key: material }, padForWrap(bytes, format)));
    return crypt("encrypt", normalized, wrappingKey, "wrapKey", bytes);
  }
  async unwrapKey(
    format: Format,
    wrapped: unknown,
    unwrappingKey: CryptoKey,
    algorithm: unknown,
    keyAlgorithm: unknown,
    extractable: boolean,
    usages: readonly Usage[],
  ): Promise<CryptoKey> {
    const normalized = normalize(algorithm, "wrapKey");
    const target = normalize(keyAlgorithm, "importKey");
    const material = materialFor(unwrappingKey, normalized, "unwrapKey");
    const data = dataOf(wrapped, "unwrapKey");
    const bytes =
      normalized.name === "AES-KW" ? hostBytes("unwrap", { key: material }, data) : new Uint8Array(crypt("decrypt", normalized, unwrappingKey, "unwrapKey", data));
    return importKey(format, format === "jwk" ? parseJwk(bytes) : bytes, target, Boolean(extractable), usages);
  }
  get [Symbol.toStringTag](): string {
    return "SubtleCrypto";
  }
}

// AES-KW takes whole blocks of 8 bytes; JSON may end in spaces.
function padForWrap(bytes: Uint8Array<ArrayBuffer>, format: Format): Uint8Array<ArrayBuffer> {
  const missing = (8 - (bytes.length % 8)) % 8;
  return format === "jwk" && missing > 0 ? concatenate([bytes, utf8Encode(" ".repeat(missing))]) : bytes;
}

function parseJwk(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(utf8Decode(bytes));
  } catch {
    throw fail("DataError", "the unwrapped key is not JSON");
  }
}

export class Crypto {
  #subtle = new SubtleCrypto(CONSTRUCT);
  constructor(token?: symbol) {
    if (token !== CONSTRUCT) throw new TypeError("Illegal constructor");
  }
  get subtle(): SubtleCrypto {
    return this.#subtle;
  }
  getRandomValues<T>(array: T): T {
    refuseOutsideActions(RANDOMNESS);
    const name = ArrayBuffer.isView(array) ? (array as unknown as { [Symbol.toStringTag]: string })[Symbol.toStringTag] : "";
    if (!INTEGER_ARRAYS.has(name)) throw fail("TypeMismatchError", "getRandomValues takes an array of integers");
    const view = viewOf(array)!;
    if (view.length > RANDOM_BYTES_MAX) throw fail("QuotaExceededError", `getRandomValues gives at most ${RANDOM_BYTES_MAX} bytes at once`);
    view.set(randomBytes(view.length));
    return array;
  }
  randomUUID(): string {
    refuseOutsideActions(RANDOMNESS);
    const bytes = randomBytes(16);
    bytes[6] = (bytes[6]! & 0x0f) | 0x40;
    bytes[8] = (bytes[8]! & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  }
  get [Symbol.toStringTag](): string {
    return "Crypto";
  }
}

function randomBytes(length: number): Uint8Array {
  return length === 0 ? new Uint8Array() : engine.hostcallBytes("entropy", JSON.stringify({ length }));
}

export const crypto = new Crypto(CONSTRUCT);
export { CryptoKey };

export type { Operation };
