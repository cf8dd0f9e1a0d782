// Domain names to ASCII (UTS #46, non-transitional), from the Unicode tables that the engine has for `normalize`, `toLowerCase`
// and `\p{...}`, in place of the tr46 package's own 230 KB table.
//
// The mapping table of UTS #46 is NFKC case folding with exceptions that this file spells out: ß, ς and the joiners stay, the
// ideographic full stop is a dot, default ignorables vanish, unassigned and private code points are refused. Known
// differences from the table: a few characters that the standard refuses for compatibility with older IDNA are accepted, and
// the bidi rule looks at scripts, not at bidi classes.

import punycode from "punycode/punycode.es6.js";

interface Options {
  verifyDNSLength?: boolean;
  checkHyphens?: boolean;
}

const IGNORED = /[\u00AD\u034F\u180B-\u180F\u200B\u2060-\u2064\uFE00-\uFE0F\uFEFF]|[\u{1BCA0}-\u{1BCA3}]|[\u{E0100}-\u{E01EF}]/u;
const REFUSED = /[\p{Cn}\p{Co}\p{Cs}\p{Cf}\p{Zl}\p{Zp}\uFFFD\u0080-\u009F\u115F\u1160\u3164\u17B4\u17B5]/u;
const JOINER = /[\u200C\u200D]/u;
const RIGHT_TO_LEFT = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;
const LEFT_TO_RIGHT_LETTER = /[\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/u;
const MARK = /\p{M}/u;
const NON_ASCII = /[^\x00-\x7F]/;

const LABEL_CHARS_MAX = 63;
const DOMAIN_CHARS_MAX = 253;

export function toASCII(domain: string, options: Options = {}): string | null {
  const mapped = mapDomain(domain);
  if (mapped === null) return null;
  const labels: string[] = [];
  const unicode: string[] = [];
  for (const label of mapped.split(".")) {
    const decoded = label.startsWith("xn--") ? decodeLabel(label) : label;
    if (decoded === null || !isLabelValid(decoded)) return null;
    if (options.checkHyphens === true && (/^-|-$/.test(decoded) || decoded.slice(2, 4) === "--")) return null;
    unicode.push(decoded);
    labels.push(NON_ASCII.test(decoded) ? `xn--${punycode.encode(decoded)}` : label);
  }
  if (RIGHT_TO_LEFT.test(unicode.join("")) && !unicode.every(isBidiValid)) return null;
  const result = labels.join(".");
  if (options.verifyDNSLength === true && !isLengthValid(result, labels)) return null;
  return result;
}

export function toUnicode(domain: string): { domain: string; error: boolean } {
  const mapped = mapDomain(domain);
  if (mapped === null) return { domain, error: true };
  const labels = mapped.split(".").map((label) => (label.startsWith("xn--") ? decodeLabel(label) : label));
  return { domain: labels.map((label) => label ?? "").join("."), error: labels.includes(null) };
}

function mapDomain(domain: string): string | null {
  if (!NON_ASCII.test(domain)) return domain.toLowerCase();
  let mapped = "";
  for (const character of domain) {
    if (IGNORED.test(character)) continue;
    if (character === "\u3002" || character === "\uFF61") {
      mapped += ".";
      continue;
    }
    if (JOINER.test(character)) {
      mapped += character;
      continue;
    }
    if (REFUSED.test(character)) return null;
    // One character at a time: lower case of a whole word would turn a last sigma into its final form.
    const folded = character.normalize("NFKC").toLowerCase().normalize("NFKC");
    // A number with a full stop (U+2488) or an abbreviation must not create labels.
    if (folded.length > 1 && folded.includes(".")) return null;
    mapped += folded;
  }
  return mapped.normalize("NFC");
}

function decodeLabel(label: string): string | null {
  let decoded: string;
  try {
    decoded = punycode.decode(label.slice(4));
  } catch {
    return null;
  }
  // An encoded label holds what could not be written otherwise, in the form in which the mapping leaves it.
  if (!NON_ASCII.test(decoded) || mapDomain(decoded) !== decoded) return null;
  return decoded;
}

function isLabelValid(label: string): boolean {
  if (!NON_ASCII.test(label)) return true;
  const characters = [...label];
  if (MARK.test(characters[0]!)) return false;
  // A joiner belongs after a mark (the virama of Indic scripts) or, in Arabic script, between letters.
  return characters.every((character, i) => {
    if (!JOINER.test(character)) return true;
    const before = characters[i - 1];
    return before !== undefined && (MARK.test(before) || (character === "\u200C" && RIGHT_TO_LEFT.test(before)));
  });
}

function isBidiValid(label: string): boolean {
  if (label === "" || !RIGHT_TO_LEFT.test(label)) return !/^\p{Nd}/u.test(label);
  return RIGHT_TO_LEFT.test([...label][0]!) && !LEFT_TO_RIGHT_LETTER.test(label);
}

function isLengthValid(domain: string, labels: string[]): boolean {
  return domain.length > 0 && domain.length <= DOMAIN_CHARS_MAX && labels.every((label) => label.length > 0 && label.length <= LABEL_CHARS_MAX);
}

export default { toASCII, toUnicode };
