// The fault lab: a form that shows one of the recorded cases, or a new one from the reader's own lab. Without this script
// the page has all cases, one below the other; in print too.
(() => {
  const place = document.getElementById("fault-lab");
  const cases = document.getElementById("fault-cases");
  if (!place || !cases) return;
  const recorded = new Map([...cases.querySelectorAll(".fault")].map(it => [it.id, it]));
  const hops = ["client-gateway", "gateway-user", "user-llm"];
  const faults = [...recorded.keys()].filter(id => id.endsWith(hops[0])).map(id => id.slice(0, -hops[0].length - 1));

  place.className = "try";
  place.innerHTML = `<form>
    <label>Hop <select name="hop"></select></label>
    <label>Fault <select name="fault"></select></label>
    <fieldset><legend>How many traces will there be?</legend>
      <label><input type="radio" name="guess" value="1" required> one</label>
      <label><input type="radio" name="guess" value="2"> two</label>
      <label><input type="radio" name="guess" value="3"> three</label>
    </fieldset>
    <label class="own" hidden><input type="checkbox" name="live" checked> with a new request, through the running lab</label>
    <button>Show what happens</button>
  </form>
  <p role="status"></p>
  <div class="outcome"></div>`;
  const form = place.querySelector("form");
  const status = place.querySelector("[role=status]");
  const outcome = place.querySelector("div.outcome");
  for (const hop of hops) form.hop.add(new Option(hop, hop));
  for (const fault of faults) form.fault.add(new Option(fault, fault));
  form.hop.value = "gateway-user";

  // All cases stay within reach, and in print.
  const all = document.createElement("details");
  all.innerHTML = `<summary>All ${recorded.size} cases, as they were recorded</summary>`;
  cases.before(all);
  all.append(cases);
  let open = all.open;
  addEventListener("beforeprint", () => { open = all.open; all.open = true; });
  addEventListener("afterprint", () => { all.open = open; });
  const lead = () => {
    const wanted = document.getElementById(location.hash.slice(1));
    if (wanted && all.contains(wanted)) { all.open = true; wanted.scrollIntoView(); }
  };
  addEventListener("hashchange", lead);
  lead();

  // The page itself may come from a lab that runs the services; one that is a file cannot ask.
  if (location.protocol !== "file:") fetch(`${path_to_root}wire.json`).then(answer => answer.ok ? answer.json() : []).then(served => {
    form.querySelector(".own").hidden = served.length === 0;
  }).catch(() => {});

  const told = (guess, traces) => {
    const count = number => `${number} ${number === 1 ? "trace" : "traces"}`;
    return guess === traces ? `Right: ${count(traces)}.` : `You said ${count(guess)}; there ${traces === 1 ? "is" : "are"} ${count(traces)}.`;
  };
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const [hop, fault, guess] = [form.hop.value, form.fault.value, Number(form.guess.value)];
    const live = form.live.checked && !form.querySelector(".own").hidden;
    let html = recorded.get(`${fault}-${hop}`).innerHTML.replaceAll("h4>", "h3>");
    if (live) {
      status.textContent = "The request is on its way.";
      try {
        const answer = await fetch(`${path_to_root}wire/try`, {
          method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ hop, fault }),
        });
        if (!answer.ok) throw new Error(await answer.text());
        html = `<h3>${fault} on ${hop}, just now</h3>${await answer.text()}`;
      } catch (error) {
        status.textContent = `The lab does not answer (${error.message.trim()}): this is what was recorded.`;
        outcome.innerHTML = html;
        return;
      }
    }
    outcome.innerHTML = html;
    status.textContent = told(guess, Number(outcome.querySelector(".outcome").dataset.traces));
    form.querySelectorAll("[name=guess]").forEach(it => { it.checked = false; });
  });
})();
