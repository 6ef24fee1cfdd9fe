// The walkthrough: plays the recorded scenes of its page, one at a time. Without this script they stand one below the
// other; in print there is one still picture.
(() => {
  const place = document.getElementById("walkthrough");
  if (!place) return;
  const [SWEEP, REST, WORD] = [2500, 2500, 300]; // milliseconds: a trace in slow motion, a look around, to read a word
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const part = fraction => Math.min(Math.max(fraction, 0), 1);

  let total = 0, traces;
  const scenes = [...place.querySelectorAll("h2")].map(heading => {
    const section = document.createElement("section");
    heading.before(section);
    do section.append(section.nextSibling); while (section.nextSibling && section.nextSibling.nodeName !== "H2");
    const scene = section.querySelector(".scene");
    // What the lab showed before, it still shows.
    const own = scene.querySelector(".traces");
    if (!own && traces) scene.append(traces.cloneNode(true));
    traces = own ?? traces;
    const caption = [...section.querySelectorAll(":scope > p")].map(it => it.innerHTML).join(" ");
    const events = [...scene.querySelectorAll("[data-at]")].filter(it => own || !it.matches(".traces")).map(node => {
      const tables = [...node.querySelectorAll("table")];
      const event = { at: +node.dataset.at, takes: +node.dataset.for || SWEEP * tables.length || 1 };
      if (node.matches("kbd")) {
        const text = node.textContent, rest = document.createElement("span");
        rest.style.visibility = "hidden";
        node.replaceChildren("", rest);
        event.show = done => {
          const typed = Math.round(done * text.length);
          node.firstChild.data = text.slice(0, typed);
          rest.textContent = text.slice(typed);
        };
      } else if (tables.length) {
        event.show = done => tables.forEach((table, index) => {
          const swept = 100 * part(done * tables.length - index);
          table.style.setProperty("--sweep", `${swept}%`);
          table.style.visibility = swept ? "" : "hidden";
          table.caption.style.visibility = swept < 100 ? "hidden" : "";
          for (const bar of table.querySelectorAll(".bar")) {
            bar.closest("tr").style.visibility = parseFloat(bar.style.left) > swept ? "hidden" : "";
          }
        });
      } else event.show = done => { node.style.visibility = done ? "" : "hidden"; };
      return event;
    });
    const start = total, end = Math.max(...events.map(it => it.at + it.takes));
    total += Math.max(end + REST, caption.split(" ").length * WORD);
    const draw = time => events.forEach(it => it.show(part((time - it.at) / it.takes)));
    return { section, start, draw, caption, id: heading.id, title: heading.textContent };
  });
  total = 100 * Math.ceil(total / 100);

  const player = document.createElement("div");
  player.className = "try";
  player.innerHTML = `<div role="group" aria-label="Player"><button name="previous">Previous</button> <button name="play">Play</button> <button name="next">Next</button>
    <label>Speed <select><option value="0.5">half</option><option value="1" selected>normal</option><option value="2">double</option></select></label>
    <input type="range" aria-label="Position" min="0" max="${total}" step="100" value="0"></div>
    <p role="status"></p>`;
  place.prepend(player);
  place.classList.add("player");
  const [previous, play, next] = player.querySelectorAll("button");
  const [speed, seek, status] = ["select", "input", "[role=status]"].map(it => player.querySelector(it));

  // `whole`: the scene as it ends, for those who go from scene to scene.
  let time = 0, whole = true, playing = false, last, shown;
  const draw = () => {
    const index = scenes.findLastIndex(it => it.start <= time);
    const { section, start, caption, title } = scenes[index];
    if (shown !== index) {
      shown = index;
      scenes.forEach(it => { it.section.hidden = it.section !== section; });
      status.innerHTML = `<strong>${index + 1} of ${scenes.length}: ${title}.</strong> ${caption}`;
    }
    scenes[index].draw(whole || calm.matches ? Infinity : time - start);
    seek.value = time;
    seek.setAttribute("aria-valuetext", `${Math.round(time / 1000)} of ${Math.round(total / 1000)} seconds, scene ${index + 1}`);
    play.textContent = playing ? "Pause" : "Play";
    previous.disabled = index === 0;
    next.disabled = index === scenes.length - 1;
    play.hidden = speed.parentElement.hidden = calm.matches;
    playing &&= !calm.matches;
  };
  const tick = now => {
    if (!playing) return;
    // A page in the background waits.
    time = Math.min(time + Math.min(now - last, 100) * speed.value, total);
    last = now;
    playing = time < total;
    draw();
    requestAnimationFrame(tick);
  };
  const go = to => {
    if (!scenes[to]) return;
    [time, whole] = [scenes[to].start, !playing];
    draw();
  };
  const toggle = () => {
    playing = !playing;
    if (playing) {
      if (time >= total) time = 0;
      [whole, last] = [false, performance.now()];
      requestAnimationFrame(tick);
    }
    draw();
  };
  play.addEventListener("click", toggle);
  previous.addEventListener("click", () => go(shown - 1));
  next.addEventListener("click", () => go(shown + 1));
  seek.addEventListener("input", () => { [time, whole] = [+seek.value, false]; draw(); });
  calm.addEventListener("change", draw);
  player.addEventListener("keydown", event => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way || event.target === seek || event.target === speed) return;
    // Else the book turns its page.
    event.stopPropagation();
    go(shown + way);
  });
  const lead = () => go(scenes.findIndex(it => it.id && `#${it.id}` === location.hash));
  addEventListener("hashchange", lead);
  addEventListener("beforeprint", () => scenes.forEach(it => { it.section.hidden = false; it.draw(Infinity); }));
  addEventListener("afterprint", () => { shown = undefined; draw(); });
  draw();
  lead();
})();
