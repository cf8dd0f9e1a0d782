// JSON Web Keys: the members that say what a key is for, and secret keys in that form. (Asymmetric ones are the host's.)

import { fromBase64, toBase64 } from "./bytes.ts";
import { type Algorithm, fail } from "./crypto_algorithms.ts";
import { type CryptoKey, type KeyAlgorithm, materialOf, type Usage } from "./crypto_key.ts";

export interface Jwk {
  kty?: string;
  k?: string;
  d?: string;
  alg?: string;
  use?: string;
  key_ops?: string[];
  ext?: boolean;
  [member: string]: unknown;
}

/** Refuses a JWK that was made for something else. */
export function checkJwk(jwk: Jwk, algorithm: Algorithm, extractable: boolean, usages: readonly Usage[]): void {
  if (typeof jwk !== "object" || jwk === null) throw new TypeError("the key is not a JSON Web Key");
  const use = /^(RSA-OAEP|ECDH|X25519|AES-)/.test(algorithm.name) ? "enc" : "sig";
  if (usages.length > 0 && jwk.use !== undefined && jwk.use !== use) throw fail("DataError", `the JWK member 'use' is not '${use}'`);
  if (Array.isArray(jwk.key_ops) && usages.some((usage) => !jwk.key_ops!.includes(usage))) {
    throw fail("DataError", "the JWK member 'key_ops' does not have the usages asked for");
  }
  if (jwk.ext === false && extractable) throw fail("DataError", "the JWK says that it is not extractable");
  const { hash } = algorithm;
  const expected = jwkAlgorithm({ name: algorithm.name, ...(hash !== undefined && { hash: { name: hash } }) }).alg;
  if (expected !== undefined && jwk.alg !== undefined && jwk.alg !== expected) throw fail("DataError", `the JWK member 'alg' is not '${expected}'`);
}

/** The member `alg` of a key, for the algorithms that have one. */
export function jwkAlgorithm(algorithm: KeyAlgorithm): { alg?: string } {
  const bits = algorithm.hash?.name.slice(4);
  switch (algorithm.name) {
    case "HMAC":
      return { alg: `HS${bits}` };
    case "RSASSA-PKCS1-v1_5":
      return { alg: `RS${bits}` };
    case "RSA-PSS":
      return { alg: `PS${bits}` };
    case "RSA-OAEP":
      return { alg: bits === "1" ? "RSA-OAEP" : `RSA-OAEP-${bits}` };
    case "AES-GCM":
    case "AES-CBC":
    case "AES-CTR":
    case "AES-KW":
      return algorithm.length === undefined ? {} : { alg: `A${algorithm.length}${algorithm.name.slice(4)}` };
    default:
      return {};
  }
}

export function importSecretJwk(jwk: Jwk, algorithm: Algorithm, extractable: boolean, usages: readonly Usage[]): Uint8Array<ArrayBuffer> {
  checkJwk(jwk, algorithm, extractable, usages);
  if (jwk.kty !== "oct") throw fail("DataError", "the JWK member 'kty' is not 'oct'");
  if (typeof jwk.k !== "string" || !/^[A-Za-z0-9_-]*$/.test(jwk.k)) throw fail("DataError", "the JWK member 'k' is not base64url text");
  const material = fromBase64(jwk.k.replaceAll("-", "+").replaceAll("_", "/"));
  const expected = jwkAlgorithm({ name: algorithm.name, length: material.length * 8 }).alg;
  if (algorithm.name.startsWith("AES-") && jwk.alg !== undefined && jwk.alg !== expected) {
    throw fail("DataError", `the JWK member 'alg' is not '${expected}'`);
  }
  return material;
}

export function exportSecretJwk(key: CryptoKey): Jwk {
  const k = toBase64(materialOf(key)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  return { key_ops: [...key.usages], ext: key.extractable, kty: "oct", k, ...jwkAlgorithm(key.algorithm) };
}
