import { ConvexProvider, ConvexReactClient } from "convex/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Chat } from "./Chat";
import "./style.css";

const SERVER_DEFAULT = "http://127.0.0.1:3210"; // where tools/dev serves
const CHANNEL_DEFAULT = "general";

const client = new ConvexReactClient(import.meta.env.VITE_CONVEX_URL ?? SERVER_DEFAULT);
const asked = new URLSearchParams(location.search);

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <ConvexProvider client={client}>
      <Chat channel={asked.get("channel") ?? CHANNEL_DEFAULT} authorAtFirst={asked.get("author") ?? "Ada"} />
    </ConvexProvider>
  </StrictMode>,
);
