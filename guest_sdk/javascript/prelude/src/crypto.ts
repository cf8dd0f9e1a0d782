export class Crypto {}
export class SubtleCrypto {}
export class CryptoKey {}
export const crypto = new Crypto();
