// `toLocaleString` and its siblings on numbers, bigints and dates, as en-US writes them when nothing else is asked for.
//
// `Intl` is not offered (README.md says why). Asking for a format that would need it is an error and not a wrong text.

const FRACTION_OPTIONS = new Set(["minimumFractionDigits", "maximumFractionDigits", "useGrouping"]);
const FRACTION_DIGITS_MAX = 100;

function refuse(option: string): never {
  throw new RangeError(`the option '${option}' needs Intl, which is not available in functions here`);
}

function optionsOf(options: unknown, allowed: (name: string, value: unknown) => boolean): Record<string, unknown> {
  if (options === undefined) return {};
  const given = Object(options) as Record<string, unknown>;
  for (const name of Object.keys(given)) if (given[name] !== undefined && !allowed(name, given[name])) refuse(name);
  return given;
}

function group(digits: string): string {
  return digits.replace(/\B(?=(\d{3})+$)/g, ",");
}

function digitsOption(value: unknown, otherwise: number): number {
  if (value === undefined) return otherwise;
  const digits = Math.floor(Number(value));
  if (!(digits >= 0 && digits <= FRACTION_DIGITS_MAX)) throw new RangeError("the number of fraction digits is out of range");
  return digits;
}

/** A finite number's decimal digits as the language prints them, without an exponent. */
function decimal(value: number): { whole: string; fraction: string } {
  const [mantissa, exponent] = value.toString().split("e") as [string, string?];
  const [whole, fraction = ""] = mantissa.split(".") as [string, string?];
  const shift = exponent === undefined ? 0 : Number(exponent);
  if (shift >= 0) {
    const moved = fraction.slice(0, shift).padEnd(shift, "0");
    return { whole: (whole + moved).replace(/^0+(?=\d)/, ""), fraction: fraction.slice(shift) };
  }
  const all = whole.padStart(1 - shift, "0");
  return { whole: all.slice(0, all.length + shift), fraction: all.slice(all.length + shift) + fraction };
}

/** Rounds half away from zero on the digits, as the number formats of the platform do. */
function round(value: number, digits: number): { whole: string; fraction: string } {
  const { whole, fraction } = decimal(value);
  if (fraction.length <= digits) return { whole, fraction };
  const kept = BigInt(whole + fraction.slice(0, digits)) + (fraction.charCodeAt(digits) >= 0x35 ? 1n : 0n);
  const text = kept.toString().padStart(digits + 1, "0");
  return { whole: text.slice(0, text.length - digits), fraction: text.slice(text.length - digits) };
}

function formatNumber(value: number, options: unknown): string {
  const given = optionsOf(options, (name) => FRACTION_OPTIONS.has(name));
  const least = digitsOption(given.minimumFractionDigits, 0);
  const most = digitsOption(given.maximumFractionDigits, Math.max(least, 3));
  if (least > most) throw new RangeError("minimumFractionDigits is larger than maximumFractionDigits");
  if (Number.isNaN(value)) return "NaN";
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  if (!Number.isFinite(value)) return `${sign}∞`;
  const { whole, fraction } = round(Math.abs(value), most);
  const shown = fraction.replace(/0+$/, "").padEnd(least, "0");
  return `${sign}${given.useGrouping === false ? whole : group(whole)}${shown === "" ? "" : `.${shown}`}`;
}

function datePart(date: Date): string {
  const year = date.getUTCFullYear();
  return `${date.getUTCMonth() + 1}/${date.getUTCDate()}/${year > 0 ? year : 1 - year}`;
}

function timePart(date: Date): string {
  const hours = date.getUTCHours();
  const two = (value: number) => String(value).padStart(2, "0");
  return `${hours % 12 || 12}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())} ${hours < 12 ? "AM" : "PM"}`;
}

function dateFormatter(name: string, format: (date: Date) => string): [string, unknown] {
  const method = {
    [name](this: Date, _locales?: unknown, options?: unknown) {
      optionsOf(options, (option, value) => option === "timeZone" && String(value).toUpperCase() === "UTC");
      return Number.isNaN(this.getTime()) ? "Invalid Date" : format(this);
    },
  };
  return [name, method[name]];
}

export function installLocale(): void {
  const install = (prototype: object, name: string, value: unknown) =>
    Object.defineProperty(prototype, name, { value, writable: true, enumerable: false, configurable: true });
  install(Number.prototype, "toLocaleString", function toLocaleString(this: number, _locales?: unknown, options?: unknown) {
    return formatNumber(Number.prototype.valueOf.call(this), options);
  });
  install(BigInt.prototype, "toLocaleString", function toLocaleString(this: bigint, _locales?: unknown, options?: unknown) {
    const given = optionsOf(options, (name) => name === "useGrouping");
    const text = BigInt.prototype.valueOf.call(this).toString();
    return given.useGrouping === false ? text : text.replace(/\d+/, group);
  });
  for (const [name, method] of [
    dateFormatter("toLocaleDateString", datePart),
    dateFormatter("toLocaleTimeString", timePart),
    dateFormatter("toLocaleString", (date) => `${datePart(date)}, ${timePart(date)}`),
  ]) {
    install(Date.prototype, name as string, method);
  }
}
