// "Paste your trace": hands a text to the lab's own code, compiled for browsers, and shows what it says. Nothing is sent.
(() => {
  const place = document.getElementById("paste");
  if (!place) return;
  place.className = "try";
  place.innerHTML = `<form>
    <label for="pasted">Your trace</label>
    <textarea id="pasted" name="text" spellcheck="false" autocomplete="off" required></textarea>
    <label>or a file <input type="file" name="file"></label>
    <label>or an example <select name="example"><option value="">choose</option></select></label>
    <button>Say why</button>
  </form>
  <p role="status"></p>
  <div class="outcome"></div>`;
  const form = place.querySelector("form");
  const status = place.querySelector("[role=status]");
  const outcome = place.querySelector("div.outcome");
  for (const heading of document.querySelectorAll("main h3[id]")) form.example.add(new Option(heading.textContent, heading.id));

  let program;
  const load = async address => {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
    return answer;
  };
  const start = async () => {
    const answer = await load(place.dataset.program);
    return (await WebAssembly.instantiate(await answer.arrayBuffer())).instance.exports;
  };
  const diagnose = async bytes => {
    program ??= start();
    const { memory, room, diagnose } = await program;
    const at = room(bytes.length);
    new Uint8Array(memory.buffer).set(bytes, at);
    const answer = diagnose(at, bytes.length);
    const length = new DataView(memory.buffer).getUint32(answer, true);
    return new TextDecoder().decode(new Uint8Array(memory.buffer, answer + 4, length));
  };
  // A packed or binary file has no text to show.
  const textOf = bytes => {
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      return "";
    }
  };
  const show = async (content) => {
    status.textContent = "";
    try {
      const given = await content;
      const bytes = typeof given === "string" ? new TextEncoder().encode(given) : new Uint8Array(given);
      form.text.value = textOf(bytes);
      outcome.innerHTML = await diagnose(bytes);
      const found = outcome.querySelectorAll("ul.findings > li").length;
      status.textContent = found === 0 ? outcome.querySelector(".findings").textContent : `${found} ${found === 1 ? "finding" : "findings"}.`;
    } catch (error) {
      // Whatever state it is in, the next text begins with a new one.
      program = undefined;
      outcome.replaceChildren();
      status.textContent = `This does not work here: ${error.message}.`;
    }
  };
  form.addEventListener("submit", event => { event.preventDefault(); show(form.text.value); });
  form.file.addEventListener("change", () => {
    if (form.file.files[0]) show(form.file.files[0].arrayBuffer());
  });
  form.example.addEventListener("change", () => {
    if (form.example.value) show(load(`${place.dataset.examples}${form.example.value}.json`).then(it => it.text()));
  });
})();
