import { actionGeneric, anyApi, internalQueryGeneric, mutationGeneric, queryGeneric } from "convex/server";

export const action = actionGeneric;
export const api: any = anyApi;
export const internalQuery = internalQueryGeneric;
export const mutation = mutationGeneric;
export const query = queryGeneric;

declare const Convex: {
  syscall(op: string, args: string): string;
  asyncSyscall(op: string, args: string): Promise<string>;
  jsSyscall(op: string, args: unknown): unknown;
};

// Runs an operation of the host and gives what became of it: the answer, or the error's code (text where it has none).
export async function tried(op: string, args: unknown): Promise<unknown> {
  try {
    return JSON.parse(await Convex.asyncSyscall(op, typeof args === "string" ? args : JSON.stringify(args)));
  } catch (error) {
    return (error as any).code ?? (error as Error).message;
  }
}
