// Compares each value of a list (encoded JSON texts, one a line on standard input) with each other, as the npm package does.
import { readFileSync } from "node:fs";
import { compareValues, jsonToConvex } from "convex/values";

const read = (line) => (line === '{"$undefined":null}' ? undefined : jsonToConvex(JSON.parse(line)));
const values = readFileSync(0, "utf8").trimEnd().split("\n").map(read);
const sign = (order) => (order < 0 ? "<" : order > 0 ? ">" : "=");
for (const left of values) console.log(values.map((right) => sign(compareValues(left, right))).join(""));
