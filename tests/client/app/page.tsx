// One page for each of the hooks of `convex/react`, named by ?scene=. What is shown is the JSON of what the hook gave;
// `shown` keeps every state that was on the screen, and `hands` is what a test may do.
import { ConvexHttpClient, type OptimisticLocalStore } from "convex/browser";
import {
  ConvexProvider,
  ConvexProviderWithAuth,
  ConvexReactClient,
  useAction,
  useConvex,
  useConvexAuth,
  useConvexConnectionState,
  useMutation,
  usePaginatedQuery,
  usePreloadedQuery,
  useQueries,
  useQuery,
} from "convex/react";
import { anyApi } from "convex/server";
import { Component, type ReactNode, StrictMode, useCallback, useLayoutEffect, useState } from "react";
import { createRoot } from "react-dom/client";

const asked = new URLSearchParams(location.search);
const url = asked.get("server")!;
const list = asked.get("list")!;
const { rows } = anyApi;
const page = globalThis as any;
page.shown = [];
page.hands = {};

/** Keys in order, so that equal states have equal texts. */
const inOrder = (_key: string, value: any) =>
  value?.constructor === Object ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) : value;

function Shown({ state }: { state: unknown }) {
  const text = JSON.stringify(state ?? null, inOrder);
  useLayoutEffect(() => {
    if (JSON.stringify(page.shown.at(-1)) !== text) page.shown.push(JSON.parse(text));
  }, [text]);
  return <pre id="state">{text}</pre>;
}

function List() {
  const numbers = useQuery(rows.all, { list });
  const add = useMutation(rows.add);
  const addSoon = add.withOptimisticUpdate((store, { ns }) => show(store, (now) => [...now, ...ns].sort((a, b) => a - b)));
  const refuseSoon = useMutation(rows.refuse).withOptimisticUpdate((store, { ns }) => show(store, (now) => [...now, ...ns]));
  const addAndLook = useAction(rows.addAndLook);
  const addAndStay = useAction(rows.addAndStay);
  const client = useConvex();
  const connection = useConvexConnectionState();
  Object.assign(page.hands, {
    add: (...ns: number[]) => add({ list, ns }),
    addSoon: (...ns: number[]) => addSoon({ list, ns }),
    refuseSoon: (...ns: number[]) => refuseSoon({ list, ns }),
    addAndLook: (n: number) => addAndLook({ list, n }),
    addAndStay: (n: number) => addAndStay({ list, n }),
    known: () => client.watchQuery(rows.all, { list }).localQueryResult(),
    once: () => client.query(rows.all, { list }),
    overHttp: () => new ConvexHttpClient(url).query(rows.all, { list }),
  });
  page.connection = connection;
  return (
    <>
      <Shown state={numbers} />
      <output>{JSON.stringify(connection)}</output>
    </>
  );
}

function show(store: OptimisticLocalStore, change: (now: number[]) => number[]) {
  const now = store.getQuery(rows.all, { list });
  if (now !== undefined) store.setQuery(rows.all, { list }, change(now));
}

const sum = (name: string) => ({ query: rows.value, args: { list, name } });
const sums = { left: sum("left"), right: sum("right"), odd: { query: rows.pairs, args: { list } } };

function Sums() {
  const [isSkipped, skip] = useState(true);
  page.hands.unskip = () => skip(false);
  const { left, right, odd } = useQueries(sums);
  const also = useQuery(rows.value, isSkipped ? "skip" : sums.left.args);
  return <Shown state={{ left, right, also, odd: odd instanceof Error ? (odd as any).data : odd }} />;
}

function Pages() {
  const size = Number(asked.get("size"));
  const pages = usePaginatedQuery(asked.has("capped") ? rows.capped : rows.page, { list }, { initialNumItems: size });
  page.hands.more = () => pages.loadMore(size);
  return <Shown state={{ status: pages.status, ns: pages.results.map((row: any) => row.n) }} />;
}

class Caught extends Component<{ children: ReactNode }, { error?: any }> {
  state: { error?: any } = {};
  static getDerivedStateFromError = (error: unknown) => ({ error });
  render() {
    page.hands.again = () => this.setState({ error: undefined });
    return this.state.error === undefined ? this.props.children : <Shown state={{ caught: this.state.error.data }} />;
  }
}

function Pairs() {
  return <Shown state={useQuery(rows.pairs, { list })} />;
}

function Preloaded() {
  return <Shown state={usePreloadedQuery(JSON.parse(asked.get("preloaded")!))} />;
}

/** A sign-in of the test's own: whoever has a token is signed in, and each time that the client asks for it is counted. */
function useTokens() {
  const [token, setToken] = useState<string | null>(null);
  page.hands.signIn = (next: string | null) => setToken(next);
  const fetchAccessToken = useCallback(async () => {
    document.body.dataset.asked = String(Number(document.body.dataset.asked ?? 0) + 1);
    return token;
  }, [token]);
  return { isLoading: false, isAuthenticated: token !== null, fetchAccessToken };
}

function Account() {
  const { isAuthenticated, isLoading } = useConvexAuth();
  const who = useQuery(rows.whoAmI, {});
  page.hands.whoWrites = useMutation(rows.whoWrites);
  return <Shown state={{ isAuthenticated, isLoading, who }} />;
}

const client = new ConvexReactClient(url);
const scenes: Record<string, () => ReactNode> = {
  account: () => (
    <ConvexProviderWithAuth client={client} useAuth={useTokens}>
      <Account />
    </ConvexProviderWithAuth>
  ),
  list: () => <List />,
  sums: () => <Sums />,
  pages: () => <Pages />,
  pairs: () => (
    <Caught>
      <Pairs />
    </Caught>
  ),
  preloaded: () => <Preloaded />,
};

createRoot(document.getElementById("root")!, { onCaughtError: () => {} }).render(
  <StrictMode>
    <ConvexProvider client={client}>{scenes[asked.get("scene")!]()}</ConvexProvider>
  </StrictMode>,
);
