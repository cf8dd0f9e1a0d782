// The types of api.js.

import type { ApiFromModules, FilterApi, FunctionReference } from "convex/server";
import type * as messages from "../messages";

declare const modules: ApiFromModules<{ messages: typeof messages }>;

export declare const api: FilterApi<typeof modules, FunctionReference<any, "public">>;
export declare const internal: FilterApi<typeof modules, FunctionReference<any, "internal">>;
