import { useQuery } from "convex/react";
import { api } from "../convex/_generated/api";
import { MessageLine } from "./Message";

/** The messages that have these words, best first; the list changes as messages come. */
export function Found({ channel, words }: { channel: string; words: string }) {
  const found = useQuery(api.messages.search, { channel, words });
  if (found === undefined) return <p>Searching …</p>;
  if (found.length === 0) return <p>Nothing found.</p>;
  return (
    <ul className="found">
      {found.map((message) => (
        <MessageLine key={message._id} message={message} />
      ))}
    </ul>
  );
}
