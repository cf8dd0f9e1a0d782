import type { FunctionReturnType } from "convex/server";
import type { api } from "../convex/_generated/api";

export type Message = FunctionReturnType<typeof api.messages.list>[number];

/** The ids of messages that are shown before the server has them begin so. */
export const SENDING = "sending:";

export function MessageLine({ message }: { message: Message }) {
  const isSending = message._id.startsWith(SENDING);
  return (
    <li data-id={message._id} className={isSending ? "sending" : undefined}>
      <b>{message.author}</b> <span>{message.body}</span>{" "}
      <time>{isSending ? "sending" : new Date(message._creationTime).toLocaleTimeString()}</time>
    </li>
  );
}
