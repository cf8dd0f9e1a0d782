// The types of api.js.

import type { ApiFromModules, FilterApi, FunctionReference } from "convex/server";
import type * as reminders from "../reminders";

declare const modules: ApiFromModules<{ reminders: typeof reminders }>;

export declare const api: FilterApi<typeof modules, FunctionReference<any, "public">>;
export declare const internal: FilterApi<typeof modules, FunctionReference<any, "internal">>;
