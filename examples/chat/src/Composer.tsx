import { insertAtTop, useMutation } from "convex/react";
import { type FormEvent, useState } from "react";
import { api } from "../convex/_generated/api";
import { type Message, SENDING } from "./Message";

/** Where one types. A message is shown at once, and marked as being sent until the server has it. */
export function Composer({ channel, author }: { channel: string; author: string }) {
  const [body, setBody] = useState("");
  const [refusal, setRefusal] = useState<string>();
  const send = useMutation(api.messages.send).withOptimisticUpdate((localQueryStore, { channel, author, body }) => {
    const item: Message = {
      _id: `${SENDING}${crypto.randomUUID()}` as Message["_id"],
      _creationTime: Date.now(),
      channel,
      author,
      body,
    };
    insertAtTop({ paginatedQuery: api.messages.page, argsToMatch: { channel }, localQueryStore, item });
  });
  function submit(event: FormEvent) {
    event.preventDefault();
    const text = body.trim();
    if (text === "") return;
    setBody("");
    setRefusal(undefined);
    send({ channel, author: author.trim() || "Somebody", body: text }).catch((error: Error) => {
      setRefusal(error.message);
      setBody((typed) => typed || text);
    });
  }
  return (
    <form onSubmit={submit}>
      <input
        name="body"
        autoFocus
        autoComplete="off"
        placeholder="Say something"
        value={body}
        onChange={(event) => setBody(event.target.value)}
      />
      <button>Send</button>
      {refusal !== undefined && <p role="alert">{refusal}</p>}
    </form>
  );
}
