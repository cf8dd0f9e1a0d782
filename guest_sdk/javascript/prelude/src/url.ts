// `URL` and `URLSearchParams` from whatwg-url, the reference implementation of the standard. Its IDNA tables are replaced by
// tr46.ts: they would be the largest part of the prelude.

import { URL, URLSearchParams } from "whatwg-url";

export { URL, URLSearchParams };
