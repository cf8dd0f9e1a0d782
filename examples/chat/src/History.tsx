import { usePaginatedQuery } from "convex/react";
import { useEffect, useRef } from "react";
import { api } from "../convex/_generated/api";
import { MessageLine } from "./Message";

const PAGE_MESSAGES = 20;

/** What was said, newest at the bottom. Older messages come as their end of the list is scrolled into sight. */
export function History({ channel }: { channel: string }) {
  const { results, status, loadMore } = usePaginatedQuery(
    api.messages.page,
    { channel },
    { initialNumItems: PAGE_MESSAGES },
  );
  const list = useRef<HTMLUListElement>(null);
  const oldest = useRef<HTMLLIElement>(null);
  useEffect(() => {
    if (status !== "CanLoadMore") return;
    const observer = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) loadMore(PAGE_MESSAGES);
      },
      { root: list.current, rootMargin: "200px" },
    );
    observer.observe(oldest.current!);
    return () => observer.disconnect();
  }, [status, loadMore]);
  // The list is laid out bottom up: what is newest comes first here and is drawn last, and the browser keeps the place
  // of a reader who has scrolled back while lines are added below.
  return (
    <ul className="history" data-status={status} ref={list}>
      {results.map((message) => (
        <MessageLine key={message._id} message={message} />
      ))}
      <li className="oldest" ref={oldest}>
        {status === "Exhausted" ? "The beginning." : "Older messages …"}
      </li>
    </ul>
  );
}
