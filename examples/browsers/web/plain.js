// The page with plain JavaScript.

import { askWith } from "./page.js";
import { tracedFetch } from "./trace.js";

askWith(tracedFetch);
