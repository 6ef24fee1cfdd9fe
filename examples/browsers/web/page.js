// The page: asks the gateway when the button is clicked.

const gateway = document.querySelector("meta[name=gateway]").content;

// ANCHOR: trace-id
// The id of the service's trace, or undefined if the answer has none.
export const traceId = response =>
  /traceparent;desc="?00-([0-9a-f]{32})/
    .exec(response.headers.get("server-timing"))?.[1];
// ANCHOR_END: trace-id

export function askWith(fetch) {
  document.querySelector("button").onclick = async () => {
    const show = (css, text) => document.querySelector(css).textContent = text;
    try {
      const response = await fetch(`${gateway}/api/query`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ user_id: "user_1", query: "What is a trace?" }),
      });
      show("code", traceId(response) ?? "unknown");
      show("output", (await response.json()).response);
    } catch (error) {
      show("output", error);
    }
  };
}
