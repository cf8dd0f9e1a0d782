import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react()],
  // An address rather than a name: `localhost` is IPv6 alone on some machines.
  server: { host: "127.0.0.1", port: 5173 },
});
