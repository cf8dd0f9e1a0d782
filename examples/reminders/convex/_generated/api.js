// References to this app's functions, for clients and for calls between functions.

import { anyApi } from "convex/server";

export const api = anyApi;
export const internal = anyApi;
