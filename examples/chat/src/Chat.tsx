import { useConvexConnectionState } from "convex/react";
import { useState } from "react";
import { Composer } from "./Composer";
import { Found } from "./Found";
import { History } from "./History";

/** One channel: who writes, whether the server is there, what was said, and where one types. */
export function Chat({ channel, authorAtFirst }: { channel: string; authorAtFirst: string }) {
  const [author, setAuthor] = useState(authorAtFirst);
  const [words, setWords] = useState("");
  const { isWebSocketConnected } = useConvexConnectionState();
  return (
    <main>
      <header>
        <h1>#{channel}</h1>
        <label>
          You are <input name="author" value={author} onChange={(event) => setAuthor(event.target.value)} />
        </label>
        <input
          type="search"
          placeholder="Find words"
          value={words}
          onChange={(event) => setWords(event.target.value)}
        />
        <output>{isWebSocketConnected ? "connected" : "connecting"}</output>
      </header>
      {words.trim() === "" ? <History key={channel} channel={channel} /> : <Found channel={channel} words={words} />}
      <Composer channel={channel} author={author} />
    </main>
  );
}
